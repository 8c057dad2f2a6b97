"""``stt:gateway``: one address in front of several STT servers."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from declaration.checks import check_unique
from declaration.field_types import Port, StrictModel, Text, setting
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

_SERVER = re.compile(r"http://\d{1,3}(\.\d{1,3}){3}(:[1-9]\d{0,4})?")


def _check_server(value: str) -> str:
    try:
        if not _SERVER.fullmatch(value):
            raise ValueError
        server_address(value)
    except ValueError:
        raise ValueError(
            f"{show(value)} is not the address of an STT server. Use http://, an IPv4 address and "
            "a port, without a path, such as http://192.168.1.20:8000"
        ) from None
    return value


def server_address(url: str) -> tuple[str, int]:
    """The address and the port of one of ``stt:gateway.servers``.

    Raises:
        ValueError: it is no such URL.
    """
    parts = urlsplit(url)
    return str(IPv4Address(parts.hostname or "")), parts.port or 80


class Gateway(StrictModel):
    """``stt:gateway``: one address in front of several STT servers."""

    port: Port = setting(8000, "Port on which the gateway listens")
    servers: Annotated[
        list[Annotated[Text, AfterValidator(_check_server)]], AfterValidator(check_unique)
    ] = setting(
        [],
        "STT servers outside this stack, in addition to those of the gateway's domain. They must "
        "take the same key: set `stt:apiKey` to one value in both stacks",
        allowed="a list of addresses without a path, such as `[http://192.168.1.20:8000]`",
    )
    tls: Tls = tls_setting("gateway_ca")
    names: Names = names_setting(". The first one is in `stt_url`; it has to lead to the gateway")
    certificate: PemFile = certificate_setting()
    certificateKey: PemFile = key_setting()  # noqa: N815

    @property
    def secure(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.tls != "none"

    @property
    def scheme(self) -> str:
        """That of its URLs."""
        return "https" if self.secure else "http"


def gateway_tls_problems(gateway: Gateway) -> list[Problem]:
    """What is wrong with the certificate of the gateway."""
    return file_problems("stt:gateway", gateway.tls, gateway.certificate, gateway.certificateKey)
