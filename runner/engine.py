"""Pulumi's engine in small: what differs from the state is created, updated, replaced, deleted."""

import difflib
import json
import sys
import time
from fnmatch import fnmatchcase
from threading import RLock
from typing import Any

from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from runner.command import execute
from runner.state import RunnerError, State, masked, secret

#: Stands on Pulumi's wire for a value that only `up` will know.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNS = {"create": "+", "update": "~", "replace": "+-", "delete": "-"}


def matches(urn: str, patterns: list[str]) -> bool:
    """Whether a URN is like one of the patterns."""
    return any(fnmatchcase(urn, pattern) for pattern in patterns)


class Engine(MockMonitor):
    """The monitor that the program speaks to; registrations come in threads of their own."""

    def __init__(self, state: State, preview: bool, targets: list[str], again: list[str]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no mocks: every call is here
        self.state, self.preview, self.targets, self.again = state, preview, targets, again
        self.counts, self.outputs, self.failed = dict[str, int](), dict[str, Any](), False
        self._lock, self._seen, self._replaced = RLock(), set[str](), set[str]()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        """Bring one Command to its desired state; components are groups and nothing else."""
        urn: str = self.make_urn(request.parent, request.type, request.name)
        if not request.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        if request.type != "command:local:Command":
            raise RunnerError(f"the runner has no resource of type {request.type}")
        if self.failed:
            raise RunnerError("not started, for another resource failed")
        try:
            resource = self._apply(urn, request, json_format.MessageToDict(request.object))
        except (RunnerError, OSError) as error:
            self.fail(error)
            raise
        values = resource["inputs"] | resource["results"]
        answer = json_format.ParseDict(values, struct_pb2.Struct())
        return resource_pb2.RegisterResourceResponse(urn=urn, id=resource["id"], object=answer)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        """Keep the stack's outputs."""
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack" and len(request.outputs):
            self.outputs = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    def fail(self, error: Exception) -> None:
        """Tell an error; what runs ends, and nothing else starts."""
        self.failed = True
        print(f"error: {error}".rstrip(), file=sys.stderr)

    def _apply(self, urn: str, request: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if urn in self._seen:
                raise RunnerError(f"two resources are called {request.name}")
            self._seen.add(urn)
            for alias in request.aliases:
                self.state.rename(f"{urn.rpartition('::')[0]}::{alias.spec.name}", urn)
            old = self.state.resources.get(urn, {})
            before = old.get("inputs", {})
            if not matches(urn, self.targets):
                if not old:
                    raise RunnerError(f"{request.name} does not exist yet, and is no target")
                return old
            inputs |= {key: before.get(key) for key in request.ignoreChanges if old}
            inputs = {key: value for key, value in inputs.items() if value is not None}
            changed = [key for key in before | inputs if inputs.get(key) != before.get(key)]
            asked = old and ("triggers" in changed or matches(urn, self.again))
            again = asked or urn in self._replaced
            kind = "replace" if again else "create" if not old else "update" if changed else ""
            self._report(kind, request.name, changed if old else [], before, inputs)
            if asked:
                self._replaced |= self._dependents(urn)
                self.delete({urn, *self._dependents(urn)}, replacing=True)
        began, results = time.monotonic(), old.get("results", {})
        if kind and self.preview:
            results = {"stdout": UNKNOWN, "stderr": UNKNOWN}
        elif kind:
            script = (kind == "update" and inputs.get("update")) or inputs.get("create")
            run = execute(request.name, script, inputs, results) if script else {}
            hidden = run if masked(inputs) != inputs else request.additionalSecretOutputs
            results = {key: secret(run[key]) if key in hidden else run[key] for key in run}
            print(f" {SIGNS[kind]:2} {request.name} {kind}d ({time.monotonic() - began:.1f} s)")
        resource = {
            "name": request.name,
            "id": old["id"] if kind in ("", "update") else "" if self.preview else str(time.time()),
            "inputs": inputs,
            "results": results,
            "dependencies": list(request.dependencies),
            "replaced_with": list(request.propertyDependencies["triggers"].urns),
            **{key: getattr(request, key) for key in ("deletedWith", "retainOnDelete", "protect")},
        }
        with self._lock:
            self.state.resources[urn] = resource
            if kind and not self.preview:
                self.state.save()
        return resource

    def _dependents(self, urn: str) -> set[str]:
        """What must be replaced with a resource: its triggers hold something of it."""
        direct = {u for u, r in self.state.resources.items() if urn in r["replaced_with"]}
        return direct.union(*(self._dependents(each) for each in direct))

    def delete(self, doomed: set[str], replacing: bool = False) -> None:
        """Delete resources, dependents first; one that fails keeps what it depends on."""
        resources, planned = self.state.resources, set() if replacing else set(doomed)
        kept: set[str] = set()
        while ready := doomed - {n for u in doomed | kept for n in resources[u]["dependencies"]}:
            urn = next(urn for urn in reversed(resources) if urn in ready)
            doomed.discard(urn)
            gone = resources[urn]
            script = gone["inputs"].get("delete") or ":"
            try:
                if gone["protect"]:
                    raise RunnerError(f"{gone['name']} is protected: take that away first")
                if not (self.preview or gone["retainOnDelete"] or gone["deletedWith"] in planned):
                    execute(gone["name"], script, gone["inputs"], gone["results"])
            except (RunnerError, OSError) as error:
                if replacing:
                    raise
                self.fail(error)
                kept.add(urn)
                continue
            del resources[urn]
            if not replacing:
                self._report("delete", gone["name"], [], {}, {})
            if not self.preview:
                self.state.save()

    def finish(self) -> None:
        """Delete what the program no longer has."""
        gone = {u for u in self.state.resources if u not in self._seen and matches(u, self.targets)}
        self.delete(gone)

    def _report(self, kind: str, name: str, keys: list[str], old: Any, new: Any) -> None:
        self.counts[kind or "unchanged"] = self.counts.get(kind or "unchanged", 0) + 1
        if kind and (self.preview or kind == "delete"):
            print(f" {SIGNS[kind]:2} {name} {kind}d {', '.join(keys)}".rstrip())
        for key in keys if self.preview else ():
            sides = (json.dumps(masked(side.get(key, "")), indent=1) for side in (old, new))
            left, right = (s.replace("\\n", "\n").replace(UNKNOWN, "[unknown]") for s in sides)
            lines = difflib.unified_diff(left.splitlines(), right.splitlines(), n=1, lineterm="")
            print("\n".join(f"      {key}: {line}" for line in list(lines)[2:] or ["[secret]"]))
