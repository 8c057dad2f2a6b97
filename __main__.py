"""infra.yml and the stack's configuration, checked, as resources."""

from __future__ import annotations

import gc

gc.disable()  # until all is registered it finds next to nothing, and takes a fifth of the time

from components.start import start  # noqa: E402

STARTED = start()  # the host answers, and Pulumi starts its provider, while the rest is imported

from components.program import main  # noqa: E402

main(STARTED)
gc.freeze()  # what is there now stays until the end
gc.enable()
