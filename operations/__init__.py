"""What an operator does beside `up`: see who holds the memory, free it, measure.

It reads the stack without Pulumi, so it knows no secrets. It may import every room except
``components``. What runs inside machines is in ``machine/``.
"""
