"""The engines: a module for each value of ``STT_ENGINE``, with ``create(settings)``.

A module is imported only where it is used, because each needs packages that the others lack.
"""
