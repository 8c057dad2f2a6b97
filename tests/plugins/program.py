"""The program of the cases: registers the Commands of ``plan.json``; each notes what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pulumi
from pulumi_command import local

CONFIG = ("text", "number", "flag", "no", "object", "default")
made: dict[str, local.Command] = {}
for entry in json.loads(Path("plan.json").read_text()):
    name, within = entry["name"], [made[other] for other in entry.get("within", [])]
    if "raise" in entry:
        raise ValueError(entry["raise"])
    if "run" in entry:
        read = local.run_output(command=entry["run"], logging=entry.get("logging"))
        pulumi.export(name, read.stdout)
        continue
    stdin = entry.get("stdin")
    if entry.get("secret"):
        stdin = pulumi.Output.secret(stdin)
    if entry.get("from"):
        stdin = pulumi.Output.concat("after ", made[entry["from"]].stdout)
    if entry.get("config"):
        stdin = pulumi.Config().require_secret(entry["config"])
    made[name] = local.Command(
        name,
        create=entry.get("create", f"echo create {name} >> log; echo made {name}; cat"),
        update=entry.get("update", f"echo update {name} >> log; echo again {name}; cat"),
        delete=entry.get("delete", f"echo delete {name} >> log"),
        stdin=stdin,
        triggers=[*entry.get("triggers", []), *(other.id for other in within)],
        environment=entry.get("environment"),
        dir=entry.get("dir"),
        interpreter=entry.get("interpreter"),
        logging=entry.get("logging"),
        asset_paths=entry.get("assets"),
        add_previous_output_in_env=entry.get("previous", False),
        opts=pulumi.ResourceOptions(
            depends_on=[made[other] for other in entry.get("needs", [])] + within,
            delete_before_replace=True,
            ignore_changes=entry.get("ignore"),
            additional_secret_outputs=entry.get("hidden"),
            deleted_with=made[entry["gone_with"]] if "gone_with" in entry else None,
            protect=entry.get("protect"),
            aliases=[pulumi.Alias(name=entry["formerly"])] if "formerly" in entry else None,
            retain_on_delete=entry.get("retain"),
            custom_timeouts=pulumi.CustomTimeouts(create=entry.get("timeout")),
        ),
    )
    pulumi.export(name, made[name].stdout)
if made:
    pulumi.export("config", {key: pulumi.Config().get(key) for key in CONFIG})
