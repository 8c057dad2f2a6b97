"""A step as a Command: its spec on stdin of the agent in its machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from agent.difference import Difference
from agent.record import digest_of, salted_with
from components.command import Command, Host, joined
from components.incus_object import egress_command, host_command, is_another
from components.kept_values import Secrets
from declaration.secret import fill_secrets, secret_names
from declaration.step import Step
from declaration.topology import MachinePlan
from host.client import incus_words, shell
from host.read import AGENT_WORDS, AppliedStep, MachineState

#: The variable of a Command's environment that has it run after other steps.
AFTER = "AFTER"


def step_drift(
    host: Host, plan: MachinePlan, step: Step, restored: Sequence[str]
) -> list[Difference]:
    """Where the machine differs from what this step applied.

    ``restored`` is what `up` restores under it, so that what runs has to start again.
    """
    if host.live is None or not host.known(step.name):
        return []
    machine = host.live.machines.get((plan.domain, plan.name))
    if machine is None:
        return _without_answer(host, plan)
    return _differences(host, step, machine, restored)


def late_drift(
    host: Host,
    step: Step,
    machine: pulumi.Output[MachineState | None],
    under: Mapping[str, pulumi.Output[list[Difference]]],
) -> pulumi.Output[list[Difference]]:
    """The same for a machine that is read while `up` runs; ``under`` is the drift under this step.

    Where it does not answer even then, everything is applied again.
    """

    def find(
        machine: MachineState | None, under: Mapping[str, list[Difference]]
    ) -> list[Difference]:
        if not host.known(step.name):
            return []
        restored = [name for name, found in under.items() if found]
        return _differences(host, step, machine or MachineState({}), restored)

    return pulumi.Output.all(machine, dict(under)).apply(lambda all_: find(*all_))


def _differences(
    host: Host, step: Step, machine: MachineState, restored: Sequence[str]
) -> list[Difference]:
    applied = machine.steps.get(step.part)
    if applied is None:
        return [Difference("step", "not applied", "applied")]
    found = list(applied.differences)
    if applied.stack not in ("", host.state.stack):
        found.append(Difference("applied by", "another stack", "this stack"))
    elif not found:
        found += _other_state(host, step, applied, machine.salt)
    if not found and restored and step.spec.starts_programs:
        names = ", ".join(name.rpartition("/")[2] for name in restored)
        found.append(Difference("restart", "needed", f"done after {names}"))
    return found


def _other_state(host: Host, step: Step, applied: AppliedStep, salt: str) -> list[Difference]:
    """What was applied last is not what the state has.

    The state is an old one that was restored, or an `up` was killed before it had noted its work.
    """
    noted = noted_digest(str((host.outputs(step.name) or {}).get("stdin")), salt)
    if not noted or applied.digest in ("", noted):
        return []
    if secret_names(step.text()):
        other = "(others than this stack's state has, not shown)"
        return [Difference("secrets", other, "as the state has them")]
    return [Difference("applied", "something other than this stack's state has", "as it has it")]


def noted_digest(stdin: str, salt: str) -> str:
    """The digest that a machine has of a step, once it has applied what the state has as stdin.

    Empty if it is not known: of secrets, without the machine's salt.
    """
    try:
        data = json.loads(stdin)
        digest = digest_of(data["spec"])
    except (ValueError, KeyError, TypeError):
        return ""
    if not data.get("secret"):
        return digest
    return salted_with(salt, digest) if salt else ""


def _without_answer(host: Host, plan: MachinePlan) -> list[Difference]:
    """A machine that is gone or was made again has lost its steps; one that is stopped has them."""
    instance = host.live.find("instance", plan.name, plan.domain) if host.live else None
    if instance is None:
        return [Difference(f"machine {plan.name}", "not there", "there")]
    if is_another(host, plan.resource("instance"), instance):
        return [Difference("step", "not applied", "applied")]
    return []


def agent_command(host: Host, plan: MachinePlan, words: Sequence[str]) -> str:
    """A call of the agent as shell text, where ``incus`` runs."""
    inside = ["exec", plan.name, "--", *AGENT_WORDS, *words]
    return incus_words(host.connection, inside, plan.domain)


def remove_command(host: Host, plan: MachinePlan, step: Step, here: bool) -> str:
    """The command that has the agent take a step away, where the machine runs.

    In a machine that is gone or stopped there is nothing to take away. Pulumi runs it as it runs
    the step: ``here``, or where ``incus`` runs.
    """
    columns = ["list", "--format", "csv", "--columns", "ns", plan.name]
    listed = incus_words(host.connection, columns, plan.domain)
    running = shlex.quote(f"{plan.name},RUNNING")
    remove = agent_command(host, plan, ["remove", step.part])
    text = f"set -eu; {listed} </dev/null | grep -qx {running} || exit 0; {remove} </dev/null"
    over_ssh = here and host.connection.kind == "ssh"
    return shlex.join([*shell(host.connection), text]) if over_ssh else text


class StepCommand(Command):
    """A step. ``result`` is what it says came of it; ``late`` is drift that `up` finds late.

    One that fetches something has the bridge ``way_out`` open meanwhile, if there is one.
    """

    def __init__(
        self,
        step: Step,
        plan: MachinePlan,
        host: Host,
        secrets: Secrets,
        *,
        agent: Command,
        machine: Command,
        needs: Sequence[Command],
        after: Mapping[str, Command],
        restored: Sequence[str],
        late: pulumi.Output[list[Difference]] | None,
        way_out: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        self.step, self.late = step, late
        way_out = way_out if step.spec.fetches else ""
        here = bool(step.source or way_out)
        text = step.text()
        names = secret_names(text)
        super().__init__(
            step.name,
            host,
            create=self._create(step, plan, host, way_out),
            delete=remove_command(host, plan, step, here),
            stdin=_named(text, names) if host.compared else _stdin(text, names, secrets),
            after=run_after(after),
            identity=[agent.id],
            drift=step_drift(host, plan, step, restored),
            late=late,
            here=here,
            quiet=bool(names),
            secret_output=bool(names),
            opts=pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(depends_on=[agent, *needs], deleted_with=machine),
            ),
        )
        self.result: pulumi.Output[dict[str, Any]] = self.stdout.apply(_result)

    @staticmethod
    def _create(step: Step, plan: MachinePlan, host: Host, way_out: str) -> pulumi.Input[str]:
        words = ["apply", step.part, "--stack"]
        if way_out:
            # The quoted text and the id after it are one word for the shell.
            inside = shlex.quote(f"{agent_command(host, plan, words)} ")
            return joined(f"{egress_command(host, way_out)} {inside}", host.stack)
        if not step.source:
            command = agent_command(host, plan, words)
        else:
            where = ["--project", plan.domain, step.source, plan.name, "--"]
            command = host_command(host, "upload", *where, *AGENT_WORDS, *words)
        return joined(f"{command} ", host.stack)


def _named(text: str, names: list[str]) -> str:
    """Kind and spec, with the names of secrets in their places."""
    values = {name: f"(the secret {name})" for name in names}
    return json.dumps(_filled(json.loads(text), values), ensure_ascii=False)


def _stdin(text: str, names: list[str], secrets: Secrets) -> pulumi.Input[str]:
    """Kind and spec, with secrets in place."""
    if not names:
        return text

    def fill(values: dict[str, str]) -> str:
        data = {**_filled(json.loads(text), values), "secret": True}
        return json.dumps(data, ensure_ascii=False)

    return pulumi.Output.secret(secrets.values(names).apply(fill))


def run_after(commands: Mapping[str, Command]) -> dict[str, pulumi.Input[str]]:
    """A variable with what came of other Commands: it changes with each of their runs."""
    if not commands:
        return {}
    every = pulumi.Output.all(**{name: command.stdout for name, command in commands.items()})
    return {AFTER: every.apply(lambda known: "\n".join(str(text) for text in known.values()))}


def _filled(data: Any, values: dict[str, str]) -> Any:
    if isinstance(data, dict):
        return {key: _filled(item, values) for key, item in data.items()}
    if isinstance(data, list):
        return [_filled(item, values) for item in data]
    return fill_secrets(data, values) if isinstance(data, str) else data


def _result(said: str) -> dict[str, Any]:
    """The JSON of an agent's last line."""
    try:
        found = json.loads((said or "{}").strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}
