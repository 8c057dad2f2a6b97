"""Resources for Pulumi's ``--target`` and ``--replace``, by patterns of their URNs."""

from __future__ import annotations

from pathlib import Path

from declaration.stack_file import read_stack_file
from operations.host import OperationError
from roles import ROLES
from roles.stt_server.access import API_KEY, CLIENT_KEY, keys
from stack.checks import STT_ROLE
from stack.declare import Declaration


def stt_targets(declaration: Declaration) -> list[str]:
    """The STT role with everything that it needs: also on a stack that is still empty.

    Raises:
        OperationError: the stack has no STT service.
    """
    services = declaration.services
    resources = ["stack/id", *keys(declaration.settings)]
    if not services or not declaration.settings.enabled:
        why = "stt:enabled is false" if services else "no machine has the role stt_server"
        raise OperationError(f"there is no STT service in this stack: {why}.")
    for machine in (service.machine for service in services):
        domain, name = machine.domain, machine.full_name
        # Not all of the domain: one that is no longer declared would be removed.
        roles = [ROLES[role] for role in machine.roles]
        volumes = sorted({volume for role in roles for volume in (*role.volumes, *role.caches)})
        resources += [
            *(domain, f"{domain}/project", f"{domain}/acl", f"{domain}/acl/install"),
            *(f"{domain}/acl/ai", f"{domain}/firewall", f"{domain}/network"),
            f"{domain}/profile/*",
            *(f"{domain}/volume/{volume}" for volume in volumes),
            *(name, f"{name}/instance", f"{name}/agent"),
            *(f"{name}/{role}{part}" for role in ("base_system", STT_ROLE) for part in ("", "/*")),
        ]
    return [f"**::{resource}" for resource in dict.fromkeys(resources)]


def key_targets(root: Path, stack: str, client: str = "") -> list[str]:
    """The API key, whose replacement is another key, and the steps that bring it to the services.

    Nothing else: settings that were changed meanwhile wait for `up`. With ``client`` it is the key
    of that client of ``stt:clients``, and the step that brings the clients' keys.

    Raises:
        OperationError: the operator's own key is in use, or none; there is no such client.
    """
    values = read_stack_file(root, stack).values
    if values.get("authentication") == "none":
        raise OperationError(
            f"there is no key to rotate: stack {stack} has stt:authentication: none. Set it to key "
            "(pulumi config set stt:authentication key), then run `make up`."
        )
    if client:
        clients = values.get("clients")
        known = clients if isinstance(clients, list) else []
        if client not in known:
            names = ", ".join(map(str, known)) or "none"
            raise OperationError(
                f"nothing was rotated: stt:clients of stack {stack} does not have {client}. It "
                f"has: {names}. Name one of them with CLIENT=NAME."
            )
        every = f"--target=**::{CLIENT_KEY}*"  # the step has the keys of all of them
        return [f"--replace=**::{CLIENT_KEY}{client}", every, "--target=**/stt_server/clients"]
    if values.get("apiKey"):
        raise OperationError(
            f"nothing was rotated: stack {stack} uses the key of stt:apiKey. Set another one "
            f"(pulumi config set --secret stt:apiKey), or remove it (pulumi config rm stt:apiKey), "
            "then run `make up`."
        )
    return [f"--replace=**::{API_KEY}", f"--target=**::{API_KEY}", "--target=**/secrets"]
