"""One class for every service in a machine: install, secrets, model, configure, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.instance import Instance
from components.machine_script import MachineScript, Upload
from components.templates import render, script


@dataclass(frozen=True)
class File:
    """A file in a machine."""

    path: str
    content: str
    mode: str = "0644"
    owner: str = "root:root"


@dataclass(frozen=True)
class Sent:
    """A file or directory of Pulumi's machine that goes into the machine first."""

    name: str
    source: str
    destination: str


@dataclass(frozen=True)
class Unit:
    """A hardened systemd unit (``service.unit.j2``)."""

    name: str
    description: str
    user: str
    command: str
    directory: str
    writable: Sequence[str]
    variables: Mapping[str, str]
    #: A whole unit file, in the place of the template's.
    text: str = ""
    secret_environment: str = ""
    type: str = "exec"
    #: A command before each start.
    before: str = ""
    start_seconds: int = 120
    low_port: bool = False

    def files(self) -> list[File]:
        """The unit file and its environment file."""
        environment = f"/etc/incus-stt/{self.name}.env"
        extra = [self.secret_environment] if self.secret_environment else []
        unit = self.text or render(
            "service.unit.j2",
            description=self.description,
            type=self.type,
            user=self.user,
            directory=self.directory,
            environment_files=[environment, *extra],
            before=self.before,
            command=self.command,
            start_seconds=self.start_seconds,
            low_port=self.low_port,
            writable=self.writable,
        )
        return [
            File(f"/etc/systemd/system/{self.name}.service", unit),
            File(environment, render("environment.j2", variables=list(self.variables.items()))),
        ]


@dataclass(frozen=True)
class ServiceArgs:
    """What a service is.

    ``install`` and ``models`` are scripts (see ``templates.script``) that make the directories
    ``program`` (and ``directories`` beside) and ``model_directory``; a program may also be among
    ``packages``. ``health`` is a
    shell command that succeeds once the service works, tried for ``timeout`` seconds. ``secrets``
    are files with mode 0600: path, content, owner. ``name`` names the service's state in the
    machine. ``check_environment`` are shell commands that fail where a variable of the unit has no
    effect (``components.environment``); ``evidence`` prints the device and compute type on which
    the loaded model runs.
    """

    name: str
    unit: Unit
    uid: int
    port: int
    install: str
    health: str
    timeout: int
    program: str = ""
    directories: Sequence[str] = ()
    packages: Sequence[str] = ()
    sent: Sequence[Sent] = ()
    host: str = "0.0.0.0"  # noqa: S104  # what is published is the operator's choice
    models: str = ""
    model_directory: str = ""
    files: Sequence[File] = ()
    check_environment: str = ""
    evidence: str = ""
    secrets: Sequence[tuple[str, pulumi.Input[str], str]] = field(default=())


def configure_script(args: ServiceArgs) -> str:
    """The transaction that puts a service's files in place and starts it."""
    files = [*args.unit.files(), *args.files]
    return script(
        "configure.sh.j2",
        service=args.name,
        unit=f"{args.unit.name}.service",
        files=files,
        paths=[file.path for file in files],
        health=args.health.strip(),
        check_environment=args.check_environment.strip(),
        timeout=args.timeout,
        host=args.host,
        port=args.port,
    )


def secrets_script(name: str, files: Sequence[File]) -> str:
    """The script that puts secret files in place."""
    return script("secrets.sh.j2", service=name, files=files)


class Service(pulumi.ComponentResource):
    """A systemd service in a machine; ``configure`` ends once it is healthy."""

    def __init__(
        self,
        prefix: str,
        instance: Instance,
        args: ServiceArgs,
        needs: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:service:Service", prefix, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        uploads = [
            Upload(
                f"{prefix}/{sent.name}",
                instance,
                sent.source,
                sent.destination,
                needs=needs,
                opts=mine,
            )
            for sent in args.sent
        ]
        before: list[pulumi.Resource] = [*needs, *uploads]
        install = MachineScript(
            f"{prefix}/install", instance, args.install, needs=before, opts=mine
        )
        after: list[pulumi.Resource] = [install]
        if args.secrets:
            after.append(self._secrets(prefix, instance, args, install))
        self.model: MachineScript | None = None
        if args.models:
            self.model = MachineScript(
                f"{prefix}/model", instance, args.models, needs=[install], opts=mine
            )
            after.append(self.model)
        self.configure = MachineScript(
            f"{prefix}/configure",
            instance,
            configure_script(args),
            delete=script("remove_service.sh.j2", service=args.name),
            needs=after,
            opts=mine,
        )
        self.register_outputs({})

    @property
    def last_line(self) -> pulumi.Output[str]:
        """What changes with every start of ``configure``: for what is to follow each."""
        return self.configure.stdout.apply(lambda said: (said.splitlines() or [""])[-1])

    def _secrets(
        self, prefix: str, instance: Instance, args: ServiceArgs, install: pulumi.Resource
    ) -> MachineScript:
        def text(contents: Sequence[str]) -> str:
            files = [
                File(path, content, "0600", owner)
                for (path, _, owner), content in zip(args.secrets, contents, strict=True)
            ]
            return secrets_script(args.name, files)

        contents = pulumi.Output.all(*(content for _, content, _ in args.secrets))
        paths = [path for path, _, _ in args.secrets]
        return MachineScript(
            f"{prefix}/secrets",
            instance,
            pulumi.Output.secret(contents.apply(text)),
            delete=script("remove_files.sh.j2", service=args.name, paths=paths),
            needs=[install],
            quiet=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
