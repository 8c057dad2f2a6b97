"""When a certificate ends."""

from __future__ import annotations

import calendar
import re
import ssl
import time

#: The two times of a certificate in its DER form (RFC 5280, ``Validity``): UTCTime until 2049,
#: GeneralizedTime after that. Python's ``ssl`` tells them of certificates that it trusts only.
_TIME = rb"(?:\x17\x0d(\d{12}Z)|\x18\x0f(\d{14}Z))"
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22]" + _TIME + _TIME)


def not_after(pem: str) -> float:
    """When the first certificate of a PEM text ends, in seconds since 1970.

    Raises:
        ValueError: it holds no certificate.
    """
    begin, _, rest = pem.partition(ssl.PEM_HEADER)
    body, end, _ = rest.partition(ssl.PEM_FOOTER)
    if not end or begin == pem:
        raise ValueError("no certificate in PEM form")
    found = _VALIDITY.search(ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{body}{end}"))
    if found is None:
        raise ValueError("a certificate without its times")
    short, long = found[3], found[4]
    if long is None:
        # RFC 5280: 50 and above are of the century before.
        long = (b"20" if int(short[:2]) < 50 else b"19") + short
    return calendar.timegm(time.strptime(long.decode(), "%Y%m%d%H%M%SZ"))
