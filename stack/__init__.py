"""One stack as a whole: its settings, topology, engine and model, checked against each other.

This room stands between ``engines`` and ``gpu``: it may import ``declaration`` and ``engines``. The
files of the stacks are in ``stacks/``.
"""
