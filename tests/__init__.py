"""The tests. They load ONNX Runtime too, which must not report to its makers."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
