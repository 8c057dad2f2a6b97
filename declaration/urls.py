"""Where the services answer."""

from __future__ import annotations

from ipaddress import ip_address

from declaration.settings import Settings
from declaration.topology import MachinePlan

HTTPS = 443
#: Where a gateway with HTTPS answers Open WebUI, and nobody else, without it.
GATEWAY_PLAIN = 9146
#: The ports of URLs that name none.
WEB_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Whether a URL's host is the machine itself that asks (RFC 1122, RFC 6761)."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def stt_host(settings: Settings, everywhere: str) -> str:
    """Where the STT server answers; ``everywhere`` where it listens on every address."""
    host = str(settings.host)
    return everywhere if host == "0.0.0.0" else host  # noqa: S104  # compared, not bound


def stt_url(settings: Settings, machine: MachinePlan) -> str:
    """The base URL for OpenAI clients."""
    return f"http://{stt_host(settings, str(machine.address))}:{settings.port}/v1"


def stt_base_url(settings: Settings) -> str:
    """The STT service's address inside its own machine."""
    return f"http://{stt_host(settings, '127.0.0.1')}:{settings.port}"


def gateway_url(settings: Settings, machine: MachinePlan) -> str:
    """The base URL for OpenAI clients at the gateway in front of several STT servers."""
    gateway = settings.gateway
    return f"{gateway.scheme}://{gateway_host(settings, machine)}:{gateway.port}/v1"


def gateway_host(settings: Settings, machine: MachinePlan) -> str:
    """What clients call the gateway: the first of its names with HTTPS, or its address."""
    names = settings.gateway.names if settings.gateway.secure else []
    return names[0] if names else str(machine.address)


def gateway_plain_url(settings: Settings, machine: MachinePlan) -> str:
    """The base URL for Open WebUI in the gateway's domain: it need not trust a certificate."""
    if not settings.gateway.secure:
        return gateway_url(settings, machine)
    return f"http://{machine.address}:{GATEWAY_PLAIN}/v1"


def ollama_url(settings: Settings, machine: MachinePlan) -> str:
    """Where Ollama answers."""
    return f"http://{machine.address}:{settings.ollama.port}"


def webui_url(settings: Settings, machine: MachinePlan) -> str:
    """Where a browser reaches Open WebUI.

    Browsers give the microphone to the loopback and to HTTPS; published on another address without
    TLS, or not published at all, it serves for chats only.
    """
    webui = settings.webui
    address, _, published = webui.publish.rpartition(":")
    if webui.tls == "none":
        if not published:
            return f"http://{machine.address}:{webui.port}"
        # On every address, or on the loopback only: the host itself reaches it as localhost.
        local = address in ("0.0.0.0", "127.0.0.1")  # noqa: S104  # compared, not bound
        return f"http://{'localhost' if local else address}:{published}"
    if webui.names:
        port = f":{published}" if published and int(published) != HTTPS else ""
        return f"https://{webui.names[0]}{port}"
    return f"https://{machine.address}"


def webui_hosts(settings: Settings, machine: MachinePlan) -> list[str]:
    """What browsers may call Open WebUI's machine: its address first."""
    names = settings.webui.names if settings.webui.tls != "none" else []
    return [str(machine.address), "localhost", "127.0.0.1", *names]


def webui_origins(settings: Settings, machine: MachinePlan) -> list[str]:
    """Every origin (RFC 6454) that Open WebUI's own pages may have."""
    webui = settings.webui
    scheme, usual, port = (
        ("https", HTTPS, HTTPS) if webui.tls != "none" else ("http", 80, webui.port)
    )
    address, _, published = webui.publish.rpartition(":")
    hosts = webui_hosts(settings, machine)
    if address not in ("", "0.0.0.0"):  # noqa: S104  # compared, not bound
        hosts.append(address)
    ports = dict.fromkeys([port, *([int(published)] if published else [])])
    made = [
        f"{scheme}://{host}" + (f":{each}" if each != usual else "")
        for host in hosts
        for each in ports
    ]
    return list(dict.fromkeys([*made, *webui.origins]))
