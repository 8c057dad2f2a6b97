"""The gateway's two services: nginx, and the watcher that tells it which servers work."""

from __future__ import annotations

import json
from pathlib import Path

from agent.files import File
from agent.http import HealthRequest
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.service import Service
from agent.kinds.upload import Upload
from agent.kinds.user import User
from declaration.artifacts import Artifact
from declaration.secret import secret
from declaration.source_files import digest
from declaration.step import Step
from declaration.unit import HARDENING, hardened_unit
from roles.role import Context
from roles.stt_gateway.nginx import HOME, Gateway, keys_text, nginx_conf
from roles.stt_server.access import authorization, keys
from stack.gateway import gateway_servers

NAME = "stt_gateway"
USER, UID = "stt-gateway", 905
ETC = f"/etc/incus-stt/{NAME}"
CONFIGURATION, SETTINGS = f"{ETC}/nginx.conf", f"{ETC}/servers.json"
ENVIRONMENT, WATCHER_ENVIRONMENT = f"{ETC}/nginx.env", f"{ETC}/watcher.env"
#: The keys as nginx reads them, and the stack's own as a header for curl.
KEYS, AUTHORIZATION = f"{ETC}/keys.conf", f"{ETC}/authorization"
PROGRAM = "roles/stt_gateway/machine"
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
ARTIFACT = Artifact(
    "pkg:deb/nginx",
    "",
    "BSD-2-Clause",
    "the distribution of the machine",
    "by apt, from the distribution's signed lists; its version is the distribution's",
)


def steps(context: Context) -> list[Step]:
    """User, packages, program, keys, watcher, nginx."""
    user = Step(context.part(f"{NAME}/user"), User(USER, UID, HOME))
    packages = Step(
        context.part(f"{NAME}/packages"),
        # The package starts a server of its own, which is not wanted.
        Packages(["ca-certificates", "curl", "iproute2", "nginx"], mask=["nginx.service"]),
        context.base("packages"),
    )
    place = f"/opt/incus-stt/stt-gateway-{digest(Path(PROGRAM))}"
    upload = Upload(place, subdirectory=NAME)
    program = Step(context.part(f"{NAME}/program"), upload, source=PROGRAM)
    network = Step(
        context.part(f"{NAME}/network"),
        Files([KEEPALIVE], [["/lib/systemd/systemd-sysctl", KEEPALIVE.path]]),
    )
    found = [user, packages, program, network]
    if context.settings.asks_key:
        found.append(Step(context.part(f"{NAME}/secrets"), _secrets(context), [user.name]))
    needs = [step.name for step in found]
    # First the watcher: it writes what nginx includes.
    watcher = Step(context.part(f"{NAME}/watcher"), _watcher(context, place), needs)
    needs = [*needs, watcher.name]
    return [*found, watcher, Step(context.part(f"{NAME}/service"), _nginx(context), needs)]


def _secrets(context: Context) -> SecretFiles:
    """The keys that clients may send; the watcher sees a change, and nobody waits."""
    tokens = [secret(name) for name in keys(context.settings)]
    return SecretFiles(
        [
            SecretFile(KEYS, keys_text(tokens), owner=f"{USER}:{USER}"),
            authorization(AUTHORIZATION),
        ]
    )


def _keys_file(context: Context) -> str:
    return KEYS if context.settings.asks_key else ""


def _watcher(context: Context, place: str) -> Service:
    settings = context.settings
    servers = gateway_servers(settings, context.declaration.topology, context.machine)
    told = {
        "servers": [vars(each) for each in servers],
        "waiting": settings.limits.waiting,
        "upload_mb": settings.limits.uploadMB,
        "home": HOME,
        "keys_file": _keys_file(context),
        "port": WATCHER_PORT,
    }
    sections = hardened_unit(
        description="Which STT servers the gateway gives requests to",
        user=USER,
        command=f"/usr/bin/python3 -m {NAME} {SETTINGS}",
        directory=HOME,
        writable=[HOME],
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
    )
    # To end gracefully: the main process tells the others.
    sections["Service"] |= {
        "KillSignal": "SIGQUIT",
        "KillMode": "mixed",
        "TimeoutStopSec": str(_END_SECONDS),
        # nginx leaves an inherited socket as it is. Of two workers that hear of one client, the
        # second would wait in accept(), and with it all the clients it has.
        "NonBlocking": "true",
    }
    conf = Gateway(port, settings.limits.uploadMB, _keys_file(context))
    return Service(
        unit="stt-gateway",
        environment_file=ENVIRONMENT,
        # The descriptor of the socket that systemd holds: nginx takes it as one of its own.
        variables={"NGINX": "3;"},
        sections=sections,
        files=[File(CONFIGURATION, nginx_conf(conf))],
        host=conf.host,
        port=port,
        # nginx works where no server does, too; the verification asks for one.
        health=[HealthRequest(f"http://127.0.0.1:{port}/health", statuses=[200, 503])],
        deadline=_DEADLINE,
        socket="stt-gateway",
    )
