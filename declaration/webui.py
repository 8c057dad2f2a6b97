"""``stt:webui``: Open WebUI and how browsers reach it."""

from __future__ import annotations

import re
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from declaration.field_types import Flag, Port, StrictModel, Text, check_path, check_url
from declaration.problems import Problem, show

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?![\d.]+$){_LABEL}(\.{_LABEL})*")


def _check_email(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", value):
        raise ValueError(f"{show(value)} is no e-mail address. Use one such as me@example.com")
    return value


def _check_name(value: str) -> str:
    try:
        IPv4Address(value)
    except ValueError:
        if len(value) > 253 or not _HOST_NAME.fullmatch(value):
            raise ValueError(
                f"{show(value)} is no host name and no IPv4 address. Use one such as stt.home.arpa"
            ) from None
    return value


def _check_listen(value: str) -> str:
    address, _, port = value.rpartition(":")
    try:
        if value:
            IPv4Address(address)
            if not re.fullmatch(r"[1-9]\d{0,4}", port) or int(port) > 65535:
                raise ValueError
    except ValueError:
        raise ValueError(
            f"{show(value)} is no address and port of the host. Use one such as 127.0.0.1:3000 "
            "(the host alone), 0.0.0.0:443 (all that reach the host), or leave it empty"
        ) from None
    return value


class Webui(StrictModel):
    """``stt:webui``: Open WebUI."""

    port: Port = 3000
    tls: Literal["none", "internal", "files"] = "none"
    #: What the certificate is for, besides the machine's address and localhost.
    names: list[Annotated[Text, AfterValidator(_check_name)]] = Field(default=[])
    #: PEM files for ``tls: files``: the certificate with its chain, and its key.
    certificate: Annotated[Text, AfterValidator(check_path)] = ""
    certificateKey: Annotated[Text, AfterValidator(check_path)] = ""  # noqa: N815
    #: Address and port of the host on which it is published; empty: nowhere.
    publish: Annotated[Text, AfterValidator(_check_listen)] = "127.0.0.1:3000"
    #: Whether anybody may make an account.
    signup: Flag = False
    adminEmail: Annotated[Text, AfterValidator(_check_email)] = "admin@incus-stt.internal"  # noqa: N815
    #: Base URLs; none: those of the same domain's services. An empty stt_url disables STT.
    ollama_url: Annotated[str, AfterValidator(check_url)] | None = None
    stt_url: Annotated[str, AfterValidator(check_url)] | None = None


def tls_problems(webui: Webui) -> list[Problem]:
    """What is wrong with the certificate of Open WebUI, and with ports that clash."""
    problems: list[Problem] = []
    if webui.tls != "none" and webui.port in (80, 443):
        message = f"is {webui.port}, where the HTTPS proxy listens. Use another, such as 3000."
        problems.append(Problem("stt:webui.port", message))
    files = {"certificate": webui.certificate, "certificateKey": webui.certificateKey}
    if webui.tls != "files":
        return problems + [
            Problem(f"stt:webui.{key}", "is for tls: files alone. Set that, or take this away.")
            for key, path in files.items()
            if path
        ]
    missing = [key for key, path in files.items() if not Path(path).is_file()]
    for key in missing:
        message = f"{show(files[key])} is no file. Name a PEM file, or set tls: internal."
        problems.append(Problem(f"stt:webui.{key}", message))
    if not missing:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # A key with a passphrase must not ask for it here.
            context.load_cert_chain(webui.certificate, webui.certificateKey, lambda: b"")
        except (OSError, ValueError) as error:
            problems.append(
                Problem(
                    "stt:webui.certificateKey",
                    f"{show(webui.certificateKey)} does not open {show(webui.certificate)} "
                    f"({error.__class__.__name__}). Name a PEM certificate with its chain, and its "
                    "key without a passphrase.",
                )
            )
    return problems
