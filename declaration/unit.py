"""The hardened unit of a service: sections and directives of systemd, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Sections = dict[str, dict[str, str | Sequence[str]]]

#: What every service gives up, whoever runs it (systemd.exec; `systemd-analyze security`).
HARDENING: Mapping[str, str | Sequence[str]] = {
    "NoNewPrivileges": "yes",
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "PrivateMounts": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0077",
}
#: What is not for a service that uses a card: its devices, and its driver's own calls on memory.
WITHOUT_CARD: Mapping[str, str | Sequence[str]] = {
    "PrivateDevices": "yes",
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
}
#: CTranslate2 makes code while it runs. ONNX Runtime gives each of its threads a processor, and
#: logs an error where it cannot.
_COMPUTING: Mapping[str, str | Sequence[str]] = {
    "SystemCallFilter": [*WITHOUT_CARD["SystemCallFilter"], "sched_setaffinity"],
}
_NOT_COMPUTING: Mapping[str, str | Sequence[str]] = {"MemoryDenyWriteExecute": "yes"}
#: The devices of NVIDIA's driver and no others, by the names that /proc/devices gives them (nvidia,
#: nvidiactl, nvidia-uvm, nvidia-caps). nixpkgs runs Ollama on CUDA with the same.
_WITH_CARD: Mapping[str, str | Sequence[str]] = {
    "DevicePolicy": "closed",
    "DeviceAllow": "char-nvidia* rw",
    "SystemCallFilter": ["@system-service", "~@privileged"],
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
    card: bool = False,
    computes: bool = True,
    most_memory: int | None = None,
    type_: str = "exec",
    before: str = "",
    start_seconds: int = 120,
    socket: str = "",
) -> Sections:
    """A unit that runs ``command`` as ``user`` and may write below ``writable`` only.

    ``card``: it uses a card. ``computes``: a model runs in it. ``most_memory``: MiB at which the
    kernel ends it, and systemd starts it again. ``before`` is a command that runs before each
    start. ``socket`` is the socket unit that holds its port: whoever stops or restarts one of the
    two does it to both. A port below 1024 brings the one capability that it needs, and then no
    users of its own, which would take it away.
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
        **HARDENING,
        **(_WITH_CARD if card else {**WITHOUT_CARD, **(_COMPUTING if computes else {})}),
        # A driver may look at whose its devices are.
        **({} if card or capability else {"PrivateUsers": "yes"}),
        **({} if computes else _NOT_COMPUTING),
        **({"MemoryMax": f"{most_memory}M"} if most_memory else {}),
    }
    return {
        "Unit": {
            "Description": description,
            "After": "network-online.target",
            "Wants": "network-online.target",
            **({"Requires": f"{socket}.socket"} if socket else {}),
            "StartLimitIntervalSec": "0",
        },
        "Service": service,
        "Install": {"WantedBy": "multi-user.target"},
    }
