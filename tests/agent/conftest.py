"""A machine in a directory: fake systemd and packages on PATH, a real HTTP server for health."""

from __future__ import annotations

import errno
import grp
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent import __main__ as cli
from agent.http import HealthRequest
from agent.kinds import Kind
from agent.kinds.service import Service
from agent.machine import Machine, StepError
from agent.specs import encode
from tests.ports import free_port

UNITS = "/etc/systemd/system"
#: What tells that a run was cut off by the test, and not by a bug.
CUT_OFF = 77

#: What runs is what the unit's file and environment were at its last start.
SYSTEMCTL = r"""#!/bin/sh
S='{state}'; R='{root}'
echo "systemctl $*" >>"$S/log"
for unit; do :; done
file="$R/etc/systemd/system/$unit"
case $1 in
show)
  a=inactive e=
  [ ! -e "$S/active/$unit" ] || a=active
  [ ! -e "$S/failed/$unit" ] || a=failed
  [ ! -e "$S/enabled/$unit" ] || e=enabled
  r=0
  case $(cat "$S/active/$unit" 2>/dev/null) in *LOOPS*) a=activating r=3;; esac
  printf 'ActiveState=%s\nUnitFileState=%s\nNRestarts=%s\nInvocationID=1\n' "$a" "$e" "$r";;
enable) [ -e "$file" ] || {{ echo "no $unit" >&2; exit 1; }}; : >"$S/enabled/$unit";;
disable)
  [ -e "$file" ] || {{ echo "Unit file $unit does not exist." >&2; exit 1; }}
  rm -f "$S/enabled/$unit";;
stop) rm -f "$S/active/$unit" "$S/failed/$unit";;
start|restart)
  case $unit in
  *.socket)
    service=$(sed -n s/^Service=//p "$file")
    [ ! -e "$S/active/$service" ] ||
      {{ echo "Socket service already active, refusing." >&2; exit 1; }};;
  *)
    for socket in "$R/etc/systemd/system/"*.socket; do
      grep -qsx "Service=$unit" "$socket" && [ -e "$S/active/${{socket##*/}}" ] || continue
      listens=$(grep -x 'ListenStream=.*' "$S/active/${{socket##*/}}")
      grep -qx "$listens" "$socket" ||
        {{ echo "$unit: no open socket file descriptor left" >&2; exit 1; }}
    done;;
  esac
  rm -f "$S/active/$unit" "$S/failed/$unit"
  [ -e "$file" ] || {{ echo "Unit $unit not found." >&2; exit 5; }}
  etc="$R/etc/incus-stt"
  text=$(cat "$file" "$etc/${{unit%.service}}.env" "$etc"/*.secret 2>/dev/null)
  case $text in
  *DIES*) : >"$S/failed/$unit"; echo "Job for $unit failed." >&2; exit 1;;
  *EXITS*) : >"$S/failed/$unit";;
  *) printf '%s\n' "$text" >"$S/active/$unit";;
  esac;;
esac
"""
JOURNALCTL = """#!/bin/sh
echo "journalctl $*" >>'{state}/log'
cat '{state}/journal' 2>/dev/null
"""
LOGGED = """#!/bin/sh
echo "{name} $*" >>'{state}/log'
{body}
"""
#: Only where a socket is as its unit file says does systemd listen.
SS = """for socket in '{state}/active/'*.socket; do
  [ -e "$socket" ] || continue
  for address in $(sed -n s/^ListenStream=//p "$socket"); do
    grep -qsx "ListenStream=$address" '{root}/etc/systemd/system/'"${{socket##*/}}" || continue
    echo "LISTEN 0 4096 $address 0.0.0.0:* users:((\\"systemd\\",pid=1,fd=9))"
  done
done"""
OTHERS = {
    "ss": SS,
    "update-ca-certificates": "",
    "dpkg": "",
    "ip": "echo default via 10.0.0.1",
    "useradd": "",
    "dpkg-query": (
        "shift 3; for p; do [ ! -e '{state}/packages/'$p ] || echo \"$p installed\"; done"
    ),
    "apt-get": (
        "[ ! -e '{state}/apt-fails' ] || {{ echo 'E: no network' >&2; exit 100; }}\n"
        "go=; for w; do [ -z \"$go\" ] || : >'{state}/packages/'$w; [ $w != install ] || go=1; done"
    ),
}


class Systemd:
    """What the fake programs have done; ``url`` answers for the services that run."""

    def __init__(self, state: Path, root: Path) -> None:
        self.state, self.root = state, root
        #: What a program does at its start, by what it runs with (for ``systemctl``).
        self.starts: Callable[[str], None] = lambda text: None
        self.bin = state / "bin"
        for each in ("bin", "active", "enabled", "failed", "packages"):
            (state / each).mkdir(parents=True)
        self.program("systemctl", SYSTEMCTL)
        self.program("journalctl", JOURNALCTL)
        for name, body in OTHERS.items():
            filled = body.format(state=state, root=root)
            self.program(name, LOGGED.format(name=name, state=state, body=filled), ready=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def program(self, name: str, text: str, *, ready: bool = False) -> None:
        """An executable on PATH."""
        place = self.bin / name
        place.write_text(text if ready else text.format(state=self.state, root=self.root))
        place.chmod(0o755)

    def running(self, unit: str) -> str:
        """What a service runs with; empty where it does not run."""
        place = self.state / "active" / f"{unit}.service"
        return place.read_text() if place.exists() else ""

    def active(self) -> list[str]:
        """The units that run."""
        return sorted(os.listdir(self.state / "active"))

    def enabled(self) -> list[str]:
        """The units that start with the machine."""
        return sorted(os.listdir(self.state / "enabled"))

    def log(self) -> list[str]:
        """Every program that was run, and no program twice in the next log."""
        place = self.state / "log"
        lines = place.read_text().splitlines() if place.exists() else []
        place.unlink(missing_ok=True)
        return lines

    def systemctl(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What the program ``systemctl`` does, without a process: for tests with many runs."""
        unit = words[-1]
        active, failed, enabled = (
            self.state / each / unit for each in ("active", "failed", "enabled")
        )
        file = self.root / UNITS.lstrip("/") / unit
        code, said = 0, ""
        if words[1] == "show":
            state = "failed" if failed.exists() else "active" if active.exists() else "inactive"
            said = f"ActiveState={state}\nNRestarts=0\nInvocationID=1\n"
            said += f"UnitFileState={'enabled' if enabled.exists() else ''}\n"
        elif words[1] in ("enable", "disable"):
            code = 0 if file.exists() else 1
            if code == 0 and words[1] == "enable":
                enabled.touch()
            elif code == 0:
                enabled.unlink(missing_ok=True)
        elif words[1] in ("stop", "start", "restart"):
            active.unlink(missing_ok=True)
            failed.unlink(missing_ok=True)
            if words[1] != "stop" and not self._may_start(unit):
                code = 1
            elif words[1] != "stop":
                etc = self.root / "etc/incus-stt"
                sources = [file, etc / f"{unit.removesuffix('.service')}.env"]
                text = "".join(each.read_text() for each in sources if each.exists())
                code = 1 if "DIES" in text or not file.exists() else 0
                self.starts(text)
                (failed if code or "EXITS" in text else active).write_text(text)
        return subprocess.CompletedProcess(words, code, said, "")

    def _may_start(self, unit: str) -> bool:
        """Whether systemd would not refuse, for the sake of a socket."""
        for active in (self.state / "active").glob("*.socket"):
            file = self.root / UNITS.lstrip("/") / active.name
            now, then = file.read_text() if file.exists() else "", active.read_text()
            address = then.partition("ListenStream=")[2].partition("\n")[0]
            if f"Service={unit}\n" in now and f"ListenStream={address}\n" not in now:
                return False  # it has closed the old address, and listens nowhere
        if unit.endswith(".socket"):
            file = self.root / UNITS.lstrip("/") / unit
            service = file.read_text().partition("Service=")[2].partition("\n")[0]
            return not (self.state / "active" / service).exists()
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        systemd = self

        class Handler(BaseHTTPRequestHandler):
            """/UNIT: 200 with its model while it runs; SICK services answer 500, NOT ones 403."""

            def do_GET(self) -> None:
                text = systemd.running(self.path.strip("/").split("?")[0])
                if "GARBAGE" in text:
                    self.wfile.write(b"this is not HTTP\r\n\r\n")
                    return
                sick = not text or "SICK" in text or "LOOPS" in text
                status = 503 if sick else 403 if "REFUSES" in text else 200
                model = text.partition('MODEL="')[2].partition('"')[0]
                body = json.dumps({"model": model}).encode()
                # In one piece, so that nothing waits for an acknowledgement.
                head = f"HTTP/1.0 {status} -\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

            def log_message(self, *words: Any) -> None:
                pass

        return Handler


class QuickMachine(Machine):
    """A machine whose systemd needs no processes; a run can be cut off before each call."""

    systemd: Systemd

    def run(
        self, argv: Sequence[str], *, check: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        if argv[0] not in ("systemctl", "journalctl"):
            return super().run(argv, check=check, **more)
        sys.audit("subprocess.Popen", argv[0], argv, None, None)
        if argv[0] == "journalctl":
            return subprocess.CompletedProcess(argv, 0, "", "")
        done = self.systemd.systemctl(argv)
        if check and done.returncode:
            raise StepError(f"{' '.join(argv[:3])} failed with status {done.returncode}.")
        return done


class Agent:
    """The agent in a machine of its own; every call is a run of its own."""

    def __init__(self, root: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.systemd, self._monkeypatch = root, systemd, monkeypatch
        self.quick = False
        self.port = free_port()

    @property
    def machine(self) -> Machine:
        """The machine, as a new run sees it."""
        if not self.quick:
            return Machine(self.root)
        machine = QuickMachine(self.root)
        machine.systemd = self.systemd
        return machine

    def keep(self) -> Callable[[], None]:
        """Keep how everything is; what puts it back."""
        kept = self.root.parent / f"kept-{os.urandom(4).hex()}"
        state = self.systemd.state
        places = {state / each: kept / each for each in ("active", "enabled", "failed")}
        places[self.root] = kept / "root"
        for place, copy in places.items():
            shutil.copytree(place, copy, symlinks=True)

        def back() -> None:
            for place, copy in places.items():
                shutil.rmtree(place)
                shutil.copytree(copy, place, symlinks=True)

        return back

    def path(self, path: str) -> Path:
        """A path in the machine."""
        return self.root / path.lstrip("/")

    @property
    def owner(self) -> str:
        """Who runs the tests."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        return f"{user}:{grp.getgrgid(os.getegid()).gr_name}"

    def service(
        self, model: str, unit: str = "engine", files: Sequence[Any] = (), **more: Any
    ) -> Service:
        """A service that is healthy once it runs with its own model."""
        health = HealthRequest(f"{self.systemd.url}/{unit}", fields={"model": model})
        given = {
            "health": [health],
            "port": self.port,
            "host": "127.0.0.1",
            "deadline": 20,
            "sections": {"Service": {"ExecStart": f"/bin/{unit} {model}"}},
            **more,
        }
        variables = {"MODEL": model}
        return Service(unit, f"/etc/incus-stt/{unit}.env", variables, files=list(files), **given)

    def apply(
        self, step: str, spec: Kind, *, secret: bool = False, payload: bytes = b""
    ) -> dict[str, Any]:
        """Apply a step."""
        data = {"kind": type(spec).kind, "spec": encode(spec)}
        text = json.dumps({**data, **({"secret": True} if secret else {})})
        machine = self.machine
        self._monkeypatch.setattr(type(machine), "stdin", io.BufferedReader(io.BytesIO(payload)))
        return cli.apply(machine, step, "stack-1", text)

    def check(self) -> dict[str, list[str]]:
        """The differences of every step."""
        said = cli.check(self.machine)["steps"]
        return {
            step: [f"{d['field']}: {d['found']} -> {d['wanted']}" for d in each["differences"]]
            for step, each in said.items()
        }

    def drift(self) -> list[str]:
        """All differences."""
        return [line for lines in self.check().values() for line in lines]

    def remove(self, step: str) -> None:
        """Take a step away."""
        cli.remove(self.machine, step)

    def tree(self) -> dict[str, bytes]:
        """Every file with its content, except locks."""
        found = {}
        for directory, _, names in os.walk(self.root):
            inside = directory[len(str(self.root)) + 1 :]
            for name in names if inside != "run/incus-stt" else ():
                path = os.path.join(inside, name)
                if os.path.isfile(os.path.join(directory, name)):
                    found[path] = Path(directory, name).read_bytes()
        return dict(sorted(found.items()))

    def leftovers(self) -> list[str]:
        """What no finished run leaves."""
        endings = (".part", ".incus-stt", ".begun", ".before", ".unpacked")
        return [
            os.path.join(directory, name)
            for directory, directories, files in os.walk(self.root)
            for name in (*directories, *files)
            if name.endswith(endings) or "/transactions" in directory
        ]

    def texts(self) -> str:
        """Everything that the machine holds outside of the files of ``/etc``, as one text."""
        kept = {name: text for name, text in self.tree().items() if not name.startswith("etc/")}
        return "".join(f"{name} {text!r}\n" for name, text in kept.items())

    def count(self, act: Callable[[], object], *, full: bool = False) -> int:
        """Do it; how many file operations it took, or how many that need room."""
        FAULT.arm(self.root, 1 << 30, full, False)
        try:
            act()
        finally:
            FAULT.root = ""
        return (1 << 30) - FAULT.left

    def cut(
        self,
        number: int,
        act: Callable[[], object],
        *,
        full: bool = False,
        process: bool = False,
    ) -> str:
        """Do it, but be killed before the file operation ``number``.

        ``cut``, ``failed`` or ``done``. With ``full``, the disk is full at that one instead. To
        be killed means that from there on nothing changes any more, whatever the code does; or, in
        a ``process``, to exit at once.
        """
        FAULT.arm(self.root, number, full, process)
        try:
            if process:
                return _in_process(act)
            act()
        except Killed:
            return "cut"
        except (StepError, OSError):
            return "failed"
        finally:
            FAULT.root = ""
        return "done"


def _in_process(act: Callable[[], object]) -> str:
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            act()
            code = 0
        except (StepError, OSError):
            code = 1
        finally:
            os._exit(code)
    words = {0: "done", 1: "failed", CUT_OFF: "cut"}
    return words[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


#: What changes a file system, and needs room where it adds something (True).
EVENTS = {
    "os.rename": True,
    "os.mkdir": True,
    "os.symlink": True,
    "os.remove": False,
    "os.rmdir": False,
    "os.chmod": False,
    "os.chown": False,
    "subprocess.Popen": False,  # but for what asks only
}


class Killed(BaseException):
    """The run does not exist any more."""


class Fault:
    """What happens to the run, as an audit hook: it sees every change of the file system."""

    def __init__(self) -> None:
        self.root = ""
        self.left = 0
        self.full = self.process = False
        sys.addaudithook(self._hook)

    def arm(self, root: Path, number: int, full: bool, process: bool) -> None:
        """From now on, count."""
        self.root, self.left, self.full, self.process = str(root), number, full, process

    def _hook(self, event: str, words: tuple[Any, ...]) -> None:
        if not self.root or (event != "open" and event not in EVENTS):
            return
        path, adds = str(words[0]), EVENTS.get(event, True)
        if event == "open" and not words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if event == "subprocess.Popen":
            if self.full or "show" in words[1]:
                return
        elif self.root not in path or "/run/incus-stt" in path or (self.full and not adds):
            return
        # What changes nothing is the same moment as the next one.
        idle = {"os.remove": False, "os.mkdir": True}.get(event)
        if idle is not None and os.path.lexists(path) == idle:
            return
        self.left -= 1
        if self.left == 0 and self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.left <= 0 and not self.full:
            if self.process:
                os._exit(CUT_OFF)
            raise Killed


FAULT = Fault()


@contextmanager
def unarmed() -> Iterator[None]:
    """What somebody else does meanwhile is not cut off."""
    root, FAULT.root = FAULT.root, ""
    try:
        yield
    finally:
        FAULT.root = root


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory, in memory where that is possible: these tests write thousands of files."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.fixture
def systemd(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """Fake programs, first on PATH."""
    root = place / "root"
    root.mkdir()
    found = Systemd(place / "state", root)
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def agent(place: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """The agent."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # nobody pulls the plug here
    return Agent(place / "root", systemd, monkeypatch)


@pytest.fixture
def archive() -> Callable[[dict[str, str]], bytes]:
    """Files as a tar archive."""

    def make(files: dict[str, str]) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w|") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        return made.getvalue()

    return make
