"""The hardened unit of a service: sections and directives of systemd, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Sections = dict[str, dict[str, str | Sequence[str]]]

#: What every service gives up, whoever runs it (systemd.exec).
_HARDENING: Mapping[str, str] = {
    "NoNewPrivileges": "yes",
    "LockPersonality": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0027",
}


def hardened_unit(
    *,
    description: str,
    user: str,
    command: str,
    directory: str,
    writable: Sequence[str],
    environment_files: Sequence[str],
    port: int,
    type_: str = "exec",
    before: str = "",
    start_seconds: int = 120,
) -> Sections:
    """A unit that runs ``command`` as ``user`` and may write below ``writable`` only.

    ``before`` is a command that runs before each start. A port below 1024 brings the one capability
    that it needs.
    """
    capability = "CAP_NET_BIND_SERVICE" if port < 1024 else ""
    service: dict[str, str | Sequence[str]] = {
        "Type": type_,
        "User": user,
        "Group": user,
        "WorkingDirectory": directory,
        "EnvironmentFile": list(environment_files),
        **({"ExecStartPre": before} if before else {}),
        "ExecStart": command,
        "Restart": "on-failure",
        "RestartSec": "2",
        "TimeoutStartSec": str(start_seconds),
        "TimeoutStopSec": "20",
        # A service that has no descriptor left answers nobody, and systemd's own limit is 1024.
        "LimitNOFILE": "65536",
        **({"AmbientCapabilities": capability} if capability else {}),
        "CapabilityBoundingSet": capability,
        "ReadWritePaths": " ".join(writable),
        **_HARDENING,
    }
    return {
        "Unit": {
            "Description": description,
            "After": "network-online.target",
            "Wants": "network-online.target",
            "StartLimitIntervalSec": "0",
        },
        "Service": service,
        "Install": {"WantedBy": "multi-user.target"},
    }
