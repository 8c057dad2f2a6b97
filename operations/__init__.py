"""What an operator does besides `up`: see who holds the memory, free it, measure.

It reads the stack without Pulumi, so it knows no secrets. It may import ``roles``, ``gpu``,
``stack``, ``engines``, ``declaration``, ``host`` and ``agent``. What runs inside machines
is in ``machine/``.
"""
