"""Pulumi's engine in small: what differs from the state is created, updated, replaced, deleted."""

import difflib
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.mocks import MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.proto import resource_pb2

from runner.command import CommandFailed, execute
from runner.state import RunnerError, State, masked, secret

#: Stands on Pulumi's wire for a value that only `up` will know.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
COMMAND = "command:local:Command"
SIGNS = {"create": "+", "update": "~", "replace": "+-", "delete": "-"}


class _Groups(Mocks):
    """Resources that are no Commands: components, which group others, and nothing else."""

    def call(self, args: Any) -> Any:
        raise RunnerError(f"the runner has no function {args.token}")

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        if args.custom:
            raise RunnerError(f"the runner has no resource of type {args.typ}")
        return None, args.inputs


class Engine(MockMonitor):
    """The monitor that the program speaks to; registrations run in threads of their own."""

    def __init__(self, state: State, preview: bool, targets: list[str], diff: bool = False) -> None:
        super().__init__(_Groups())
        self.state, self.preview, self.targets, self.diff = state, preview, targets, diff
        self.outputs: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.failed = False
        self._seen: set[str] = set()
        self._replaced: set[str] = set()
        self._changed = threading.Condition(threading.RLock())
        self._running = 0

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        """Bring one Command to its desired state."""
        if request.type != COMMAND:
            return super().RegisterResource(request)
        urn = self.make_urn(request.parent, request.type, request.name)
        with self._slot():
            resource = self._apply(urn, request, json_format.MessageToDict(request.object))
        answer = struct_pb2.Struct()
        answer.update({**resource["inputs"], **resource["results"]})
        return resource_pb2.RegisterResourceResponse(urn=urn, id=resource["id"], object=answer)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        """Keep the stack's outputs."""
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack":
            self.outputs = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One operation; after a failure those that run end, and no other starts."""
        with self._changed:
            if self.failed:
                raise CommandFailed("not started, for another resource failed")
            self._running += 1
        try:
            yield
        except (CommandFailed, OSError) as error:
            self.failed = True
            print(f"error: {error}", file=sys.stderr)
            raise
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _targeted(self, urn: str) -> bool:
        return not self.targets or any(fnmatchcase(urn, target) for target in self.targets)

    def _apply(self, urn: str, request: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self._seen.add(urn)
            old = self.state.resources.get(urn, {})
            before = old.get("inputs", {})
            if not self._targeted(urn):
                if not old:
                    raise CommandFailed(f"{request.name} does not exist yet, and is no target")
                return old
            for key in request.ignoreChanges if old else ():
                inputs = {k: v for k, v in inputs.items() if k != key}
                inputs |= {key: before[key]} if key in before else {}
            changed = [k for k in {**before, **inputs} if inputs.get(k) != before.get(k)]
            replace = urn in self._replaced or (old and "triggers" in changed)
            kind = "replace" if replace else "create" if not old else "update" if changed else ""
            self._report(kind, request.name, changed if old else [], before, inputs)
            if replace and old:
                doomed = self._dependents(urn)
                self._replaced |= doomed
                self.delete({urn, *doomed}, quiet=True)
        began = time.monotonic()
        if not kind:
            results, identity = old["results"], old["id"]
        elif self.preview:
            results = {"stdout": UNKNOWN, "stderr": UNKNOWN}
            identity = old["id"] if kind == "update" else ""
        else:
            script = (inputs.get("update") if kind == "update" else None) or inputs.get("create")
            run = execute(request.name, script, inputs, old.get("results", {})) if script else {}
            hidden = run if masked(inputs) != inputs else request.additionalSecretOutputs
            results = {k: secret(v) if k in hidden else v for k, v in run.items()}
            identity = old["id"] if kind == "update" else hex(time.time_ns())[2:]
            print(f" {SIGNS[kind]:2} {request.name} {kind}d ({time.monotonic() - began:.1f} s)")
        resource = {
            "name": request.name,
            "id": identity,
            "inputs": inputs,
            "results": results,
            "dependencies": list(request.dependencies),
            "replaced_with": list(request.propertyDependencies["triggers"].urns),
            "deleted_with": request.deletedWith,
            "retain": request.retainOnDelete,
            "protect": request.protect,
        }
        with self._changed:
            self.state.resources[urn] = resource
            if kind and not self.preview:
                self.state.save()
        return resource

    def _dependents(self, urn: str) -> set[str]:
        """What must be replaced with a resource: its triggers hold something of it."""
        direct = {u for u, r in self.state.resources.items() if urn in r["replaced_with"]}
        return direct.union(*(self._dependents(each) for each in direct))

    def delete(self, doomed: set[str], quiet: bool = False) -> None:
        """Delete resources, dependents first; one that fails keeps what it depends on."""
        resources, planned = self.state.resources, set(doomed)
        while doomed:
            needed = {need for urn in doomed for need in resources[urn]["dependencies"]}
            urn = next(urn for urn in reversed(resources) if urn in doomed - needed)
            doomed.discard(urn)
            gone = resources[urn]
            if not quiet:
                self._report("delete", gone["name"], [], {}, {})
            skipped = self.preview or gone["retain"] or gone["deleted_with"] in planned
            try:
                if gone["protect"] and not self.preview:
                    raise CommandFailed(f"{gone['name']} is protected, and is not deleted")
                if gone["inputs"].get("delete") and not skipped:
                    execute(gone["name"], gone["inputs"]["delete"], gone["inputs"], gone["results"])
            except (CommandFailed, OSError) as error:
                self.failed = True
                print(f"error: deleting {error}", file=sys.stderr)
                if quiet:
                    raise
                doomed -= self._needs(urn)
                continue
            del resources[urn]
            if not self.preview:
                self.state.save()

    def _needs(self, urn: str) -> set[str]:
        direct = set(self.state.resources.get(urn, {}).get("dependencies", ()))
        return direct.union(*(self._needs(each) for each in direct))

    def finish(self) -> None:
        """Wait for what runs; where all went well, delete what the program no longer has."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)
            if not self.failed:
                known = set(self.state.resources) - self._seen
                self.delete({urn for urn in known if self._targeted(urn)})

    def _report(self, kind: str, name: str, keys: list[str], old: Any, new: Any) -> None:
        if not kind:
            self.counts["unchanged"] = self.counts.get("unchanged", 0) + 1
            return
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.preview or kind == "delete":
            print(f" {SIGNS[kind]:2} {name} {kind}{f' [{chr(44).join(keys)}]' if keys else ''}")
        for key in keys if self.diff else ():
            sides = [_lines(masked(side.get(key, ""))) for side in (old, new)]
            for line in list(difflib.unified_diff(*sides, n=1, lineterm=""))[2:] or ["[secret]"]:
                print(f"      {key}: {line}")


def _lines(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    return text.replace(UNKNOWN, "[unknown]").splitlines()
