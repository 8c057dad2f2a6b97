"""``stt:webui``: Open WebUI and how browsers reach it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator

from declaration.checks import check_key
from declaration.field_types import Flag, Port, StrictModel, Text, check_url, setting
from declaration.problems import Problem, show
from declaration.tls import (
    Names,
    PemFile,
    Tls,
    certificate_setting,
    file_problems,
    key_setting,
    names_setting,
    tls_setting,
)


def _check_email(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", value):
        raise ValueError(f"{show(value)} is not an e-mail address. Use one such as me@example.com")
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
            "(only the host), 0.0.0.0:443 (everyone who can reach the host), or leave it empty"
        ) from None
    return value


class Webui(StrictModel):
    """``stt:webui``: Open WebUI and the HTTPS proxy in front of it."""

    port: Port = setting(3000, "Port on which Open WebUI listens in its machine")
    tls: Tls = tls_setting("webui_ca")
    names: Names = names_setting()
    origins: list[Annotated[Text, AfterValidator(_check_origin)]] = setting(
        [],
        "Further addresses under which browsers reach Open WebUI. Pages at any other address do "
        "not get the connection that carries answers. It knows those of its machine, `localhost`, "
        "`publish` and, with HTTPS, `names`",
        allowed="a list of addresses without a path, such as `[http://192.168.1.5:3000]`",
    )
    certificate: PemFile = certificate_setting()
    certificateKey: PemFile = key_setting()  # noqa: N815
    publish: Annotated[Text, AfterValidator(_check_listen)] = setting(
        "127.0.0.1:3000",
        "Address and port of the host on which browsers reach Open WebUI (the HTTPS proxy, if "
        "there is one); empty: it is not published",
        allowed="an IPv4 address and a port, such as `127.0.0.1:3000` (only the host) or "
        "`0.0.0.0:443` (everyone who can reach the host), or empty",
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
    return problems + file_problems("stt:webui", webui.tls, webui.certificate, webui.certificateKey)
