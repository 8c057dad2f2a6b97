"""A copy of the project with a stack of the tests' own, and what a person does with it."""

from __future__ import annotations

import atexit
import compileall
import copy
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from host.client import past_races
from tests.whole import whole

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "recordings"
STACK = "e2e"
POOLS = "/1.0/storage-pools"
#: The pool that the run has made (memory_pool.py), where it has.
POOL = "incus-stt-tests"
#: Wheels of the tests' machines, kept for the next run.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "incus-stt", "uv-shared")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program's end, with its output as text."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def ended(
    *words: str, project: str = "default", stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """The end of a call of the Incus client; ``more`` is added to the environment."""
    environment = {**os.environ, "INCUS_PROJECT": project, **more}

    def client(*words: str) -> subprocess.CompletedProcess[str]:
        # Tests beside this one make bridges and more.
        return past_races(lambda: run("incus", *words, input=stdin, env=environment))

    return whole(client, *words)


def incus(*words: str, project: str = "default", stdin: str = "", **more: str) -> str:
    """What the Incus client says; a failure is an error."""
    done = ended(*words, project=project, stdin=stdin, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


#: How names of projects, bridges and pools begin that belong to a test, maybe one beside this one.
OF_TESTS = ("stt-e2e-", "stt-boot")


def everything(domain: str, **more: str) -> list[str]:
    """The paths of a domain's objects, and of all that belong to no test.

    Images are left out, which come and go by age.
    """

    def told(path: str) -> bool:
        return domain in path or not any(name in path for name in OF_TESTS)

    pools = [pool for pool in json.loads(incus("query", POOLS, **more)) if told(pool)]
    queries = [
        "/1.0/projects",
        "/1.0/networks",
        "/1.0/network-acls",
        "/1.0/profiles?all-projects=true",
        "/1.0/instances?all-projects=true",
        *(f"{pool}/volumes?all-projects=true" for pool in pools),
    ]
    found = (path for query in queries for path in json.loads(incus("query", query, **more)))
    return sorted(filter(told, found))


def ending(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command said: of a failed `up`, what failed. The whole can be very long."""
    return (done.stdout + done.stderr)[-4000:]


def way_out(bridge: str) -> str:
    """What lets a bridge's machines out now: its own ACL only, once `up` has closed it."""
    return incus("network", "get", bridge, "security.acls").strip()


def left_of(domain: str, **more: str) -> list[str]:
    """What there still is of a domain: in Incus, and in the host's firewall."""
    tables = run("nft", "list", "tables").stdout.splitlines()
    return [path for path in (*everything(domain, **more), *tables) if domain in path]


def remove_leftovers(prefix: str) -> None:
    """Remove the domains and storage pools that a run which was cut off has left."""
    for project in json.loads(incus("project", "list", "--format", "json")):
        name = project["name"]
        if not name.startswith(prefix):
            continue
        for path in sorted(project["used_by"], key=lambda path: "/instances/" not in path):
            kind, last = path.split("/")[2], Path(path.split("?")[0]).name
            if kind == "instances":
                incus("delete", "--force", last, project=name)
            elif kind == "profiles" and last == "default":
                incus("profile", "edit", last, project=name, stdin="devices: {}")
            else:
                incus("query", "-X", "DELETE", "--wait", path)
        incus("project", "delete", name)
    for network in json.loads(incus("network", "list", "--format", "json")):
        ours = re.sub("^net[0-9]*-", "", network["name"]).startswith(prefix)
        if network["managed"] and ours:
            incus("network", "delete", network["name"])
        elif ours:
            run("ip", "link", "delete", network["name"])  # of a daemon that is gone
    for table in run("nft", "list", "tables").stdout.splitlines():
        if re.fullmatch(rf"table inet incus-stt(-dns)?\.net[0-9]*-{re.escape(prefix)}\S*", table):
            run("nft", f"delete {table}")
    for acl in json.loads(incus("network", "acl", "list", "--format", "json")):
        if re.sub("^net[0-9]*-", "", acl["name"]).startswith(prefix):
            incus("network", "acl", "delete", acl["name"])
    for pool in json.loads(incus("storage", "list", "--format", "json")):
        if pool["name"].startswith(prefix):
            incus("storage", "delete", pool["name"])


def machine(*roles: str, cache: bool = True) -> dict[str, Any]:
    """A machine of infra.yml; with ``cache``, its wheels come from the last run's."""
    if not cache:
        return {"roles": list(roles)}
    CACHE.mkdir(parents=True, exist_ok=True)
    # Each machine has users of its own, and its root is to be root there.
    place = {"source": str(CACHE), "path": "/var/cache/incus-stt/uv"}
    disk = {"type": "disk", "shift": True, **place}
    return {"roles": list(roles), "devices": {"cache": disk}}


def domain(subnet: str, **machines: dict[str, Any]) -> dict[str, Any]:
    """A domain of infra.yml; ``subnet`` is the first three numbers of its addresses."""
    return {"trust_level": "semi-trusted", "subnet": f"{subnet}.0/24", "machines": machines}


def ai_access_by_turns(project: Project, subnets: Mapping[str, str]) -> None:
    """Give a stack more domains, which take turns at the AI access; the first one has it first."""
    project.domains = {
        name: domain(subnet, other=machine(cache=False)) for name, subnet in subnets.items()
    }
    project.globals = {"ai_access": "exclusive", "ai_access_default": next(iter(subnets))}


#: The directory of an engine that needs no packages, in a copy of the project.
LIGHT = "./tests/e2e/light_engine"


def light(project: Project, model: str = "light") -> None:
    """Give a stack an engine that installs nothing, so that it is up in seconds."""
    project.machines = {"gpu-server": machine("stt_server", cache=False)}
    custom = {
        "install": f"{LIGHT}/install.sh",
        "unit": f"{LIGHT}/engine.service",
        "files": LIGHT,
    }
    # It tells how many bytes it got, and no words.
    project.set(engine="custom", model=model, custom=custom, check={"words": ""})


def broken_model(project: Project) -> str:
    """A model that does not load, in ``project``'s directory: for ``stt:model``."""
    folder = project.root / "models" / "broken"
    shutil.copytree(project.root / "models" / "tiny-digits", folder, dirs_exist_ok=True)
    (folder / "model.bin").write_bytes(b"this is no model")
    return "./models/broken"


def mute_model(project: Project) -> str:
    """A model that loads and transcribes nothing, as ``broken_model``."""
    folder = project.root / "models" / "mute"
    shutil.copytree(project.root / "models" / "tiny-digits", folder, dirs_exist_ok=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "Replace", "pattern": {"Regex": ".+"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return "./models/mute"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(url: str, key: str = "", timeout: float = 300, **options: Any) -> Answer:
    """An HTTP request without any proxy; an error status is an answer too.

    ``trust``: the context of an ``https`` address.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= options.pop("headers", {})
    trust = urllib.request.HTTPSHandler(context=options.pop("trust", None))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trust)
    try:
        with opener.open(
            urllib.request.Request(url, headers=headers, **options), timeout=timeout
        ) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


def post_recording(
    url: str,
    recording: Path,
    model: str,
    key: str = "",
    trust: ssl.SSLContext | None = None,
    **fields: str,
) -> Answer:
    """A recording to an OpenAI endpoint, as curl's -F sends it."""
    form = httpx.Request(
        "POST",
        f"{url}/audio/transcriptions",
        data={"model": model, **fields},
        files={"file": ("a.wav", recording.read_bytes(), "audio/wav")},
    )
    kind = {"Content-Type": form.headers["Content-Type"]}
    return request(str(form.url), key, data=form.read(), headers=kind, trust=trust)


#: The key of a secret value in a state.
SEALED = "4dabf18193072939515e22adb298388d"
#: What Pulumi says once it changes something.
AT_WORK = r"command:local:Command \S+ (creat|updat|delet|replac)ing"


@dataclass
class Running:
    """A command that runs, in a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str = AT_WORK) -> None:
        """Until it has said something, or has ended."""
        while self.process.poll() is None and not re.search(pattern, self.said):
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """A signal to all its processes, as a terminal sends Ctrl-C."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Its exit status."""
        return self.process.wait(timeout=600)


@cache
def _files() -> Path:
    """The project's files with what Python compiles of them, which takes longest of a first run."""
    made = Path(tempfile.mkdtemp(prefix="incus-stt-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = made / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    compileall.compile_dir(made, quiet=1, rx=re.compile(rf"{re.escape(str(made))}/tests/"))
    return made


@dataclass
class Project:
    """The project in a directory of its own, driven by its own commands.

    ``domain`` is the Incus project and ``subnet`` its addresses.
    """

    root: Path
    domain: str
    subnet: str
    settings: dict[str, Any] = field(default_factory=dict)
    machines: dict[str, Any] = field(default_factory=dict)
    #: The domain's name and addresses in the file, where they are those of another environment.
    written: tuple[str, str] | None = None
    #: The environments that the file lists.
    environments: list[str] = field(default_factory=list)
    #: The file's rules of what may cross the domain's border.
    policy: list[dict[str, Any]] = field(default_factory=list)
    #: Further domains of the file, and keys of its ``global``.
    domains: dict[str, Any] = field(default_factory=dict)
    globals: dict[str, Any] = field(default_factory=dict)
    #: Added to the environment of every command.
    environment: dict[str, str] = field(default_factory=dict)
    #: The words before `make` and Pulumi that lead to another place, such as nsenter's.
    leading: list[str] = field(default_factory=list)
    #: Settings and machines of the last `up` that succeeded.
    _applied: object = field(default=None, repr=False)
    #: The secret outputs as the state has them, and what Pulumi made of these.
    _secrets: tuple[dict[str, Any], dict[str, Any]] = field(default=({}, {}), repr=False)

    def __post_init__(self) -> None:
        shutil.copytree(_files(), self.root, dirs_exist_ok=True)
        (self.root / ".venv").symlink_to(ROOT / ".venv")
        self.machines = {"gpu-server": machine("base_system", "stt_server")}
        self.settings = {
            "keepModels": False,
            "infra": "infra.e2e.yml",
            "engine": "faster-whisper",
            "model": "./models/tiny-digits",
            "quantization": "int8",
            "image": "images:debian/12",
        }
        pools = ("storage", "list", "--format", "csv", "--columns", "n")
        if POOL in incus(*pools, **self.environment).split():
            self.settings["pool"] = POOL
        self.write()

    def write(self, formerly: str = "") -> None:
        """The stack's file and its topology, as the settings are now."""
        name, subnet = self.written or (self.domain, self.subnet)
        topology = {
            "global": {"environments": self.environments, **self.globals},
            "policy": self.policy,
            "domains": {
                name: {
                    **domain(subnet, **self.machines),
                    **({"formerly": formerly} if formerly else {}),
                },
                **self.domains,
            },
        }
        (self.root / "infra.e2e.yml").write_text(yaml.safe_dump(topology, sort_keys=False))
        file = self.root / "stacks" / f"Pulumi.{STACK}.yaml"
        data = yaml.safe_load(file.read_text()) if file.exists() else {}
        data["config"] = {f"stt:{key}": value for key, value in self.settings.items()}
        file.write_text(yaml.safe_dump(data))

    @property
    def pool(self) -> str:
        """The storage pool."""
        return str(self.settings.get("pool", "default"))

    def set(self, **settings: Any) -> None:
        """Change settings; None takes one back to its default."""
        merged = {**self.settings, **settings}
        self.settings = {key: value for key, value in merged.items() if value is not None}
        self.write()

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of the project's commands: nothing of the caller's own Pulumi and make.

        Python keeps what it compiled, whatever the caller's environment says: as it does for a
        user, a run takes half a second less.
        """
        own = ("PULUMI_", "PYTHONDONTWRITEBYTECODE", "MAKE", "MFLAGS", "ARGS")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        return {**inherited, "PULUMI_SKIP_UPDATE_CHECK": "true", **self.environment, **more}

    def pulumi(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``bootstrap/pulumi.sh e2e …``, which is what make runs."""
        script = str(self.root / "bootstrap" / "pulumi.sh")
        return run(
            *self.leading, script, STACK, *words, cwd=self.root, env=self.variables(**environment)
        )

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``make … STACK=e2e``."""
        line = (*self.leading, "make", "-s", *words, f"STACK={STACK}")
        return run(*line, cwd=self.root, env=self.variables(**environment))

    def start_up(self) -> Running:
        """`make up`, which runs on."""
        log = self.root / "up.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self.leading, str(self.root / "bootstrap" / "pulumi.sh"), STACK, "up"],
                cwd=self.root,
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return Running(process, log)

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """A script in the shell that ``eval "$(make -s env)"`` gives."""
        whole = f'eval "$(make -s env STACK={STACK})"\nset -eu\n{script}\n'
        return run(*self.leading, "sh", "-c", whole, cwd=self.root, env=self.variables())

    def up(self, *words: str) -> str:
        """``up``, which has to succeed; what it said."""
        self._applied = None
        done = self.pulumi("up", *words)
        assert done.returncode == 0, ending(done)
        self._applied = copy.deepcopy((self.settings, self.machines))
        return done.stdout + done.stderr

    def settle(self) -> None:
        """``up``, where something was changed since the last one."""
        if self._applied != (self.settings, self.machines):
            self.up()

    def fails(self, *words: str) -> str:
        """``up`` (or other words), which has to fail; what it said."""
        self._applied = None
        done = self.pulumi(*(words or ("up",)))
        assert done.returncode != 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def destroy(self) -> str:
        """``destroy``, which has to succeed; what it said."""
        done = self.pulumi("destroy")
        assert done.returncode == 0, ending(done)
        return done.stdout + done.stderr

    def drift(self) -> list[str]:
        """What `make drift` prints, without the domain's name."""
        done = self.pulumi("drift")
        assert done.returncode in (0, 2), done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert (done.returncode == 2) == bool(lines), done.stdout
        return self._without_domain(lines)

    def preview(self) -> tuple[str, list[str]]:
        """What a preview with its diff says, and the drift in it, as ``drift`` has it."""
        report = self.root / "drift"
        done = self.pulumi("preview", "--diff", STT_DRIFT_REPORT=str(report))
        assert done.returncode == 0, ending(done)
        return done.stdout + done.stderr, self._without_domain(report.read_text().splitlines())

    def _without_domain(self, lines: list[str]) -> list[str]:
        return [line.removeprefix(f"{self.domain}/") for line in lines]

    def outputs(self) -> dict[str, Any]:
        """The outputs as the state has them; Pulumi is asked where a secret is another one."""
        state = json.loads((self.root / f"state/.pulumi/stacks/stt/{STACK}.json").read_text())
        resources = state["checkpoint"]["latest"]["resources"]
        [made] = [each for each in resources if each["type"] == "pulumi:pulumi:Stack"]
        found = made.get("outputs", {})  # a stack may have none
        sealed = {key: value for key, value in found.items() if SEALED in json.dumps(value)}
        if sealed != self._secrets[0]:
            done = self.pulumi("outputs", "--show-secrets")
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            self._secrets = sealed, {key: said[key] for key in sealed}
        return copy.deepcopy({**found, **self._secrets[1]})

    def unchanged(self) -> bool:
        """Whether a preview has nothing to do."""
        return self.pulumi("preview", "--expect-no-changes").returncode == 0

    def inside(self, *command: str, machine: str = "gpu-server") -> str:
        """A command in a machine; a failure is an error."""
        words = ("exec", machine, "--", *command)
        return incus(*words, project=self.domain, **self.environment).strip()

    def invocation(self, unit: str) -> str:
        """Tells a service that runs from one that was started before or after it."""
        return self.inside("systemctl", "show", "-P", "InvocationID", unit)

    def journal(self, unit: str) -> str:
        """What a service said since it started."""
        match = f"_SYSTEMD_INVOCATION_ID={self.invocation(unit)}"
        return self.inside("journalctl", "--no-pager", "-o", "cat", match)

    def operation(self, verb: str) -> str:
        """What `make vram` or `make flush` says."""
        python = str(self.root / ".venv" / "bin" / "python")
        done = run(python, "-m", "operations", verb, "--stack", STACK, cwd=self.root)
        assert done.returncode == 0, ending(done)
        return done.stdout

    def variables_of(self, *files: str) -> frozenset[str]:
        """The names of the variables in environment files of the machine."""
        lines = self.inside("cat", *(f"/etc/incus-stt/{file}" for file in files)).splitlines()
        kept = (line for line in lines if line and not line.startswith("#"))
        return frozenset(line.partition("=")[0] for line in kept)

    def transcribe(self, recording: str, model: str | None = None, **fields: str) -> Answer:
        """A recording, sent to the published URL with the published key."""
        outputs = self.outputs()
        return post_recording(
            outputs["stt_url"],
            RECORDINGS / f"{recording}.wav",
            model or outputs["stt_model"],
            outputs["stt_api_key"],
            None,
            **fields,
        )

    def health(self) -> Any:
        """What the service says of itself."""
        answer = request(self.outputs()["stt_health_url"])
        assert answer.status == 200, answer
        return answer.json


def wait_until(done: Callable[[], bool], seconds: float = 60, pause: float = 0.2) -> None:
    """Until it is so; who does not answer yet is asked again."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError, httpx.TransportError):
            if done():
                return
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(pause)


def changed(said: str, prefix: str = "") -> list[str]:
    """The Commands that an ``up`` ran, sorted, without ``prefix``."""
    done = r"command:local:Command (\S+) (?:created|updated|replaced|deleted)\b"
    return sorted({name.removeprefix(prefix) for name in re.findall(done, said)})


def two_machines(root: Path, domain: str, subnet: str) -> Project:
    """A stack with an engine that is up in seconds, and a second machine."""
    project = Project(root, domain, subnet)
    light(project)
    project.machines["other"] = machine(cache=False)
    project.write()
    return project


def tree(*places: Path) -> dict[str, tuple[int, int]]:
    """Every file below some directories with its size and time, but what Python keeps compiled."""
    files = [path for place in places for path in place.rglob("*") if not path.is_dir()]
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in files
        if "__pycache__" not in path.parts
    }
