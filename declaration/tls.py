"""HTTPS of a service: where its certificate comes from, and what is wrong with its files."""

from __future__ import annotations

import re
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from declaration.field_types import Text, check_path, setting, text_problems
from declaration.problems import Problem, show

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?![\d.]+$){_LABEL}(\.{_LABEL})*")
#: OpenSSL's numbers of what is wrong: the certificate is for another name, or another address.
_OTHER_NAME = (62, 64)


def _check_name(value: str) -> str:
    try:
        IPv4Address(value)
    except ValueError:
        if len(value) > 253 or not _HOST_NAME.fullmatch(value):
            raise ValueError(
                f"{show(value)} is neither a host name nor an IPv4 address. "
                "Use one such as stt.home.arpa"
            ) from None
    return value


Tls = Literal["none", "internal", "files"]
Names = list[Annotated[Text, AfterValidator(_check_name)]]
PemFile = Annotated[Text, AfterValidator(check_path)]


def tls_setting(output: str) -> Any:
    """The field ``tls``; ``output`` has the certificate of the service's own authority."""
    return setting(
        "none",
        "HTTPS: `internal` has a certificate authority of its own, which each computer has to "
        f"trust once (output `{output}`); `files` takes `certificate` and `certificateKey`",
    )


def names_setting(more: str = "") -> Any:
    """The field ``names``."""
    return setting(
        [],
        f"What the certificate is for, besides the machine's address and localhost{more}",
        allowed="a list of host names and IPv4 addresses, such as `[stt.home.arpa]`",
    )


def certificate_setting() -> Any:
    """The field ``certificate``."""
    return setting(
        "", "The certificate with its chain, for `tls: files`", allowed="a PEM file, or empty"
    )


def key_setting() -> Any:
    """The field ``certificateKey``."""
    return setting(
        "",
        "The certificate's key, without a passphrase, for `tls: files`",
        allowed="a PEM file, or empty",
    )


def file_problems(group: str, tls: Tls, certificate: str, key: str) -> list[Problem]:
    """What is wrong with the files of ``group`` (``stt:webui``), as far as ``tls`` asks for any."""
    problems: list[Problem] = []
    files = {"certificate": certificate, "certificateKey": key}
    if tls != "files":
        return [
            Problem(f"{group}.{name}", "is only for tls: files. Set that, or remove this.")
            for name, path in files.items()
            if path
        ]
    missing = [name for name, path in files.items() if not Path(path).is_file()]
    for name in missing:
        message = f"{show(files[name])} is not a file. Name a PEM file, or set tls: internal."
        problems.append(Problem(f"{group}.{name}", message))
    for name in sorted(files.keys() - missing):
        problems += text_problems(f"{group}.{name}", files[name])
    if not problems:
        try:
            _server_context(certificate, key)
        except (OSError, ValueError) as error:
            problems.append(
                Problem(
                    f"{group}.certificateKey",
                    f"{show(key)} does not open {show(certificate)} "
                    f"({error.__class__.__name__}). Name a PEM certificate with its chain, and its "
                    "key without a passphrase.",
                )
            )
    return problems


def is_for(certificate: str, key: str, host: str) -> bool:
    """Whether a certificate in files without problems is for a host name or an address.

    Asked as a client asks it: by a handshake in memory.
    """
    client = ssl.create_default_context(cafile=certificate)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # itself is trusted
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        _server_context(certificate, key).wrap_bio(to_server, to_client, server_side=True),
    )
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_code not in _OTHER_NAME
    return True


def _server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A key with a passphrase must not ask for it here.
    context.load_cert_chain(certificate, key, lambda: b"")
    return context


def private_key(path: str) -> str:
    """The operator's own key, as it is in its file; empty if none is named."""
    return Path(path).read_text(encoding="utf-8") if path else ""
