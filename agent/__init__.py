"""Runs inside a machine: applies steps, remembers them, says what differs from what it applied.

Standard library only, Python 3.11 or later; nothing else of this project is imported here. The
program imports the kinds (``agent.kinds``) to describe steps, so each kind is written once.
"""
