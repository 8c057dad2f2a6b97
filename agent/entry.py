"""``__main__.py`` of the agent's file.

A preview waits for an agent in every machine. So Python does not look for memory to free while it
imports, and does not give it back at the end.
"""

from __future__ import annotations

import gc

gc.disable()
# ruff: noqa: E402  # for this

import os
import sys

from agent.__main__ import main

gc.freeze()
gc.enable()
status = main()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
