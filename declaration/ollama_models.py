"""What the name of one of Ollama's models says of its size."""

from __future__ import annotations

import re

#: Billions (b) or millions (m) of parameters, then perhaps more words, the quantization last.
_TAG = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[bm])(?:-(?P<more>[a-z0-9._-]+))?")
_QUANTIZATION = re.compile(r"(?:^|[-_])(?:i?q(?P<bits>[2-8])|(?P<half>b?f(?:p)?16))")
#: Bits of a weight by the number in a quantization's name, scales included; ``q4_K_M`` is what
#: names without a quantization mean.
_BITS = {2: 3.0, 3: 3.9, 4: 4.85, 5: 5.7, 6: 6.6, 8: 8.5, 16: 16.0}
#: Names round the number of parameters down (``3b`` has 3.2 billion); and bytes that each has.
_MORE, _BASE = 1.07, 300_000_000


def estimated_bytes(name: str) -> int | None:
    """About what a model such as ``llama3.1:8b`` or ``qwen3:4b-q8_0`` is to download; bytes.

    None if its name does not tell. Held against the sizes in Ollama's README (0.9.6), of which
    none is further off than 30 %.
    """
    tag = name.rpartition("/")[2].partition(":")[2].lower()
    found = _TAG.fullmatch(tag)
    if not found:
        return None
    billions = float(found["number"]) / (1 if found["unit"] == "b" else 1000)
    quantization = _QUANTIZATION.search(found["more"] or "")
    bits = 4
    if quantization:
        bits = 16 if quantization["half"] else int(quantization["bits"])
    return round(billions * 1e9 * _MORE * _BITS.get(bits, 4.85) / 8) + _BASE
