"""A certificate as one line of JSON: ``certificate.py FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    print(json.dumps({"certificate": Path(sys.argv[1]).read_text(encoding="ascii")}))
