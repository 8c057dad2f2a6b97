"""infra.yml and the stack's configuration, checked, as resources."""

from __future__ import annotations

from components.reading import start_reading

READING = start_reading()  # the host answers while the rest is imported

from components.program import main  # noqa: E402

main(READING)
