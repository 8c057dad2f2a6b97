"""An OpenAI-compatible speech-to-text server: one engine, one model, loaded at start.

It runs with ``python -m stt_server``, where ``PYTHONPATH`` names the directory that holds this
package; ``python -m stt_server.check_model`` only loads the model once. Every setting is an
environment variable (``settings.py``); one that is unknown or cannot take effect is an error at
start, never ignored. ``recognizers/`` has a module for each engine, ``locks/`` the packages that
each one needs.
"""

import os

# ONNX Runtime reads this when its library is loaded. Nothing in this package may import it, or
# faster_whisper or onnx_asr, which do, before this line (docs/decisions/0011-no-telemetry.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
