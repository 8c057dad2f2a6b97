"""Graphics cards: which a machine gets, who else has one, and what fits on it. Pure.

What the host has is passed in as values. This room may import ``stack``, ``engines``,
``declaration`` and ``agent``.
"""
