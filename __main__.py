"""infra.yml and the stack's configuration, checked, as resources."""

from __future__ import annotations

import gc

gc.disable()  # while modules are imported it finds nothing, and takes a fifth of the time

from components.reading import start_reading  # noqa: E402

READING = start_reading()  # the host answers while the rest is imported

from components.program import main  # noqa: E402

gc.enable()
main(READING)
