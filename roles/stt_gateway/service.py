"""The gateway's two services: nginx, and the watcher that tells it which servers work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.files import File
from agent.http import HealthRequest
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.service import Service
from agent.kinds.upload import Upload
from agent.kinds.user import Directory, User
from declaration.artifacts import Artifact
from declaration.notice import Notice
from declaration.secret import secret
from declaration.settings import Settings
from declaration.source_files import own_digest
from declaration.step import Step
from declaration.unit import HARDENING, hardened_unit
from roles.certificate import own_certificate, show_certificate
from roles.role import Context
from roles.stt_gateway.nginx import HOME, Gateway, Tls, keys_text, nginx_conf
from roles.stt_server.access import authorization, keys
from stack.checks import WEBUI_ROLE
from stack.gateway import gateway_servers

NAME = "stt_gateway"
USER, UID = "stt-gateway", 905
#: The socket unit that holds its ports.
SOCKET = "stt-gateway"
ETC = f"/etc/incus-stt/{NAME}"
CONFIGURATION, SETTINGS = f"{ETC}/nginx.conf", f"{ETC}/servers.json"
ENVIRONMENT, WATCHER_ENVIRONMENT = f"{ETC}/nginx.env", f"{ETC}/watcher.env"
#: The keys as nginx reads them, and the stack's own as a header for curl.
KEYS, AUTHORIZATION = f"{ETC}/keys.conf", f"{ETC}/authorization"
#: The same header where servers elsewhere are tried with it, apart from the keys of clients: one of
#: those more or less is no reason to try them again.
SERVERS_AUTHORIZATION = f"{ETC}/servers-authorization"
PROGRAM = "roles/stt_gateway/machine"
#: On a volume: clients trust the gateway's own authority for years, and it outlives the machine.
VOLUME = "/srv/gateway"
AUTHORITY = f"{VOLUME}/authority"
ROOT_CERTIFICATE = f"{AUTHORITY}/root/root.crt"
#: The operator's own certificate and its key, and the secret with that.
CERTIFICATE, KEY = f"{ETC}/certificate.pem", f"{ETC}/key.pem"
PRIVATE_KEY = "stt_gateway/certificate-key"
#: Seconds of silence on a connection after which a sign of life is sent, and between two of them.
KEEPALIVE = File(
    "/etc/sysctl.d/60-incus-stt-gateway.conf",
    "net.ipv4.tcp_keepalive_time = 10\nnet.ipv4.tcp_keepalive_intvl = 5\n",
)
#: Where the watcher answers, on the loopback.
WATCHER_PORT = 9145
#: Seconds that nginx gets to end what runs before it restarts; new requests wait at its socket.
_END_SECONDS = 60
#: Seconds that a service gets to start, after the end of the one before.
_DEADLINE = _END_SECONDS + 30
#: What users notice of its changes.
NOTICES = {
    f"{NAME}/service": Notice(
        "the gateway's nginx restarts: new requests wait at its socket until the running ones have "
        f"ended, at most {_END_SECONDS} s"
    ),
    f"{NAME}/watcher": Notice("only the gateway's watcher restarts: no request waits", False),
    f"{NAME}/secrets": Notice("the gateway reads its keys again: no request waits", False),
}
ARTIFACT = Artifact(
    "pkg:deb/nginx",
    "",
    "BSD-2-Clause",
    "the distribution of the machine",
    "by apt, from the distribution's signed lists; its version is the distribution's",
)


def steps(context: Context, first: Sequence[str], elsewhere: Sequence[str]) -> list[Step]:
    """User, packages, program, keys, watcher, nginx.

    ``first`` is the step that tries the first of its own servers, which comes before the watcher
    has another port or key; ``elsewhere`` are those that try others before the watcher has them.
    """
    tls = context.settings.gateway.tls
    directories = [Directory(AUTHORITY, "0700")] if tls == "internal" else []
    user = Step(context.part(f"{NAME}/user"), User(USER, UID, HOME, directories))
    names = ["ca-certificates", "curl", "iproute2", "nginx"]
    packages = Step(
        context.part(f"{NAME}/packages"),
        # The package starts a server of its own, which is not wanted.
        Packages([*names, *(["openssl"] if tls == "internal" else [])], mask=["nginx.service"]),
        context.base("packages"),
    )
    place = f"/opt/incus-stt/stt-gateway-{own_digest(PROGRAM)}"
    upload = Upload(place, subdirectory=NAME)
    program = Step(context.part(f"{NAME}/program"), upload, source=PROGRAM)
    network = Step(
        context.part(f"{NAME}/network"),
        Files([KEEPALIVE], [["/lib/systemd/systemd-sysctl", KEEPALIVE.path]]),
    )
    found = [user, packages, program, network]
    if context.settings.asks_key:
        secrets = context.part(f"{NAME}/secrets")
        # Another key has to come to a server first: until then every one has the former.
        found.append(Step(secrets, _secrets(context), [user.name], follows=first))
    if tls == "files":
        # The watcher sees another one, and nobody waits.
        files = own_certificate(
            context.settings.gateway.certificate,
            secret(PRIVATE_KEY),
            (CERTIFICATE, KEY),
            f"{USER}:{USER}",
        )
        found.append(Step(context.part(f"{NAME}/certificate"), files, [user.name]))
    needs = [step.name for step in found]
    # First the watcher: it writes what nginx includes.
    watcher = Step(
        context.part(f"{NAME}/watcher"),
        _watcher(context, place),
        needs,
        follows=[*first, *elsewhere],
    )
    needs = [*needs, watcher.name]
    found += [watcher, Step(context.part(f"{NAME}/service"), _nginx(context), needs)]
    if tls == "internal":
        show = show_certificate(ROOT_CERTIFICATE, "stt-gateway-watcher")
        found.append(Step(context.part(f"{NAME}/authority"), show, [], [watcher.name]))
    return found


def _secrets(context: Context) -> SecretFiles:
    """The keys that clients may send; the watcher sees a change, and nobody waits."""
    tokens = [secret(name) for name in keys(context.settings)]
    return SecretFiles(
        [
            SecretFile(KEYS, keys_text(tokens), owner=f"{USER}:{USER}"),
            authorization(AUTHORIZATION, f"{USER}:{USER}"),
        ]
    )


def trusted(settings: Settings) -> str:
    """The file with what a client in the machine trusts; empty: nothing is asked of it."""
    files = {"internal": ROOT_CERTIFICATE, "files": CERTIFICATE}
    return files.get(settings.gateway.tls, "")


def _tls(context: Context) -> Tls | None:
    if not context.settings.gateway.secure:
        return None
    webui = context.declaration.topology.with_role(WEBUI_ROLE, context.machine.domain)
    plain_for = str(webui[0].address) if webui else ""
    if context.settings.gateway.tls == "files":
        return Tls(CERTIFICATE, KEY, plain_for)
    both = f"{AUTHORITY}/certificate.pem"
    return Tls(both, both, plain_for)


def _authority(context: Context) -> dict[str, Any] | None:
    """What the watcher certifies."""
    gateway = context.settings.gateway
    if gateway.tls != "internal":
        return None
    return {
        "directory": AUTHORITY,
        "name": f"incus-stt {context.machine.domain} gateway",
        "names": [str(context.machine.address), "localhost", "127.0.0.1", *gateway.names],
    }


def _keys_file(context: Context) -> str:
    return KEYS if context.settings.asks_key else ""


def _watcher(context: Context, place: str) -> Service:
    settings = context.settings
    servers = gateway_servers(settings, context.declaration.topology, context.machine)
    authority = _authority(context)
    files = [KEYS, AUTHORIZATION] if settings.asks_key else []
    if settings.gateway.tls == "files":
        files += [CERTIFICATE, KEY]
    told = {
        "servers": [vars(each) for each in servers],
        "waiting": settings.limits.waiting,
        "upload_mb": settings.limits.uploadMB,
        "home": HOME,
        "files": files,
        "port": WATCHER_PORT,
        **({"authority": authority} if authority else {}),
        **({"authorization": AUTHORIZATION} if settings.asks_key else {}),
    }
    sections = hardened_unit(
        description="Which STT servers the gateway gives requests to",
        user=USER,
        command=f"/usr/bin/python3 -m {NAME} {SETTINGS}",
        directory=HOME,
        writable=[HOME, *([AUTHORITY] if authority else [])],
        environment_files=[WATCHER_ENVIRONMENT],
        port=WATCHER_PORT,
        computes=False,
    )
    # It ends the connections to a server that hangs, which the kernel is asked for by netlink.
    del sections["Service"]["PrivateUsers"]
    sections["Service"] |= {
        "AmbientCapabilities": "CAP_NET_ADMIN",
        "CapabilityBoundingSet": "CAP_NET_ADMIN",
        "RestrictAddressFamilies": f"{HARDENING['RestrictAddressFamilies']} AF_NETLINK",
        "Restart": "always",
    }
    url = f"http://127.0.0.1:{WATCHER_PORT}"
    return Service(
        unit="stt-gateway-watcher",
        environment_file=WATCHER_ENVIRONMENT,
        variables={"PYTHONPATH": place, "PYTHONUNBUFFERED": "1"},
        sections=sections,
        files=[File(SETTINGS, json.dumps(told, indent=2) + "\n")],
        host="127.0.0.1",
        port=WATCHER_PORT,
        health=[HealthRequest(f"{url}/health")],
        deadline=_DEADLINE,
        reports={"gateway": f"{url}/status"},
    )


def _nginx(context: Context) -> Service:
    settings, port = context.settings, context.settings.gateway.port
    sections = hardened_unit(
        description="One address for several STT servers: nginx",
        user=USER,
        command=f"/usr/sbin/nginx -e stderr -p {HOME} -c {CONFIGURATION}",
        directory=HOME,
        writable=[HOME],
        environment_files=[ENVIRONMENT],
        port=port,
        computes=False,
        socket=SOCKET,
    )
    # To end gracefully: the main process tells the others.
    sections["Service"] |= {
        "KillSignal": "SIGQUIT",
        "KillMode": "mixed",
        "TimeoutStopSec": str(_END_SECONDS),
        # nginx leaves an inherited socket as it is. Of two workers that are told of one client, the
        # second would wait in accept(), and with it all the clients it has.
        "NonBlocking": "true",
    }
    if settings.gateway.tls == "internal":
        # It reads the certificate, and not the authority's key.
        sections["Service"]["InaccessiblePaths"] = f"-{AUTHORITY}/root"
    tls = _tls(context)
    conf = Gateway(port, settings.limits.uploadMB, _keys_file(context), tls=tls)
    sockets = [port, *([conf.plain_port] if conf.plain_port else [])]
    health = HealthRequest(
        f"{settings.gateway.scheme}://127.0.0.1:{port}/health",
        statuses=[200, 503],
        # An operator's own is for other names than this one.
        certificate=ROOT_CERTIFICATE if settings.gateway.tls == "internal" else "",
    )
    return Service(
        unit="stt-gateway",
        environment_file=ENVIRONMENT,
        # The descriptors of the sockets that systemd holds: nginx takes them as its own.
        variables={"NGINX": "".join(f"{each};" for each, _ in enumerate(sockets, 3))},
        sections=sections,
        files=[File(CONFIGURATION, nginx_conf(conf))],
        host=conf.host,
        port=port,
        # nginx works even if no server does; the verification asks for one.
        health=[health],
        deadline=_DEADLINE,
        socket=SOCKET,
        more_ports=sockets[1:],
    )
