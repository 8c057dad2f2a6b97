"""``stt:webui``: Open WebUI and how browsers reach it."""

from __future__ import annotations

import re
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from declaration.checks import check_key
from declaration.field_types import (
    Flag,
    Port,
    StrictModel,
    Text,
    check_path,
    check_url,
    setting,
    text_problems,
)
from declaration.problems import Problem, show

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?![\d.]+$){_LABEL}(\.{_LABEL})*")


def _check_email(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", value):
        raise ValueError(f"{show(value)} is not an e-mail address. Use one such as me@example.com")
    return value


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


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:[1-9]\d{0,4})?", value):
        raise ValueError(
            f"{show(value)} is not an address without a path. Use one such as "
            "http://192.168.1.5:3000"
        )
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
            f"{show(value)} is not an address and port of the host. Use one such as 127.0.0.1:3000 "
            "(only the host), 0.0.0.0:443 (all that reach the host), or leave it empty"
        ) from None
    return value


class Webui(StrictModel):
    """``stt:webui``: Open WebUI and the HTTPS proxy in front of it."""

    port: Port = setting(3000, "Port on which Open WebUI listens in its machine")
    tls: Literal["none", "internal", "files"] = setting(
        "none",
        "HTTPS: `internal` has a certificate authority of its own, which each computer has to "
        "trust once (output `webui_ca`); `files` takes `certificate` and `certificateKey`",
    )
    names: list[Annotated[Text, AfterValidator(_check_name)]] = setting(
        [],
        "What the certificate is for, besides the machine's address and localhost",
        allowed="a list of host names and IPv4 addresses, such as `[stt.home.arpa]`",
    )
    origins: list[Annotated[Text, AfterValidator(_check_origin)]] = setting(
        [],
        "Further addresses under which browsers reach Open WebUI. From others it refuses the "
        "connection on which answers come. It knows those of its machine, `localhost`, `publish` "
        "and, with HTTPS, `names`",
        allowed="a list of addresses without a path, such as `[http://192.168.1.5:3000]`",
    )
    certificate: Annotated[Text, AfterValidator(check_path)] = setting(
        "",
        "The certificate with its chain, for `tls: files`",
        allowed="a PEM file, or empty",
    )
    certificateKey: Annotated[Text, AfterValidator(check_path)] = setting(  # noqa: N815
        "",
        "The certificate's key, without a passphrase, for `tls: files`",
        allowed="a PEM file, or empty",
    )
    publish: Annotated[Text, AfterValidator(_check_listen)] = setting(
        "127.0.0.1:3000",
        "Address and port of the host on which browsers reach Open WebUI (the HTTPS proxy, where "
        "there is one); empty: it is not published",
        allowed="an IPv4 address and a port, such as `127.0.0.1:3000` (only the host) or "
        "`0.0.0.0:443` (all that reach the host), or empty",
    )
    signup: Flag = setting(False, "Whether anybody may create an account")
    adminEmail: Annotated[Text, AfterValidator(_check_email)] = setting(  # noqa: N815
        "admin@incus-stt.internal",
        "E-mail address with which the administrator signs in",
        allowed="an e-mail address",
    )
    ollama_url: Annotated[str, AfterValidator(check_url)] | None = setting(
        None,
        "Base URL of Ollama; not set: the Ollama service of the same domain",
        allowed="a URL, such as `http://10.120.0.1:11434`, or not set",
    )
    stt_url: Annotated[str, AfterValidator(check_url)] | None = setting(
        None,
        "Base URL of the STT service; not set: the STT service of the same domain; empty: no STT",
        allowed="a URL, such as `http://10.120.0.1:8000/v1`, empty, or not set",
    )
    sttKey: Annotated[Text, AfterValidator(check_key)] = setting(  # noqa: N815
        "",
        "The key for the service of `stt_url`; empty: none is sent. The key of this stack goes to "
        "its own services only",
        allowed="8 to 200 of `A-Z a-z 0-9 . _ ~ + / = -`, or empty",
        secret=True,
    )


def tls_problems(webui: Webui) -> list[Problem]:
    """What is wrong with the certificate of Open WebUI, and with ports that clash."""
    problems: list[Problem] = []
    if webui.tls != "none" and webui.port in (80, 443):
        message = f"is {webui.port}, where the HTTPS proxy listens. Use another, such as 3000."
        problems.append(Problem("stt:webui.port", message))
    files = {"certificate": webui.certificate, "certificateKey": webui.certificateKey}
    if webui.tls != "files":
        return problems + [
            Problem(f"stt:webui.{key}", "is only for tls: files. Set that, or remove this.")
            for key, path in files.items()
            if path
        ]
    missing = [key for key, path in files.items() if not Path(path).is_file()]
    for key in missing:
        message = f"{show(files[key])} is not a file. Name a PEM file, or set tls: internal."
        problems.append(Problem(f"stt:webui.{key}", message))
    for key in sorted(files.keys() - missing):
        problems += text_problems(f"stt:webui.{key}", files[key])
    if not missing and not problems:
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
