"""The proof that an STT service transcribes: a recording through its published URL."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent import systemd
from agent.http import HealthRequest, ask
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, last_lines
from agent.words import compared

#: Seconds until a server of another host has to accept a connection, or else a second one.
_CONNECT_SECONDS = 5
#: curl's exit status if it does not trust a certificate, and our word for it.
_CURL_UNTRUSTED, _UNTRUSTED = 60, "untrusted"
#: The one if something takes too long, and our word for it where there was no connection yet.
_CURL_LATE, _UNREACHED = 28, "not reached"


@dataclass(frozen=True)
class Evidence:
    """Where a service says on which device and in which compute type its model runs.

    ``url`` answers JSON with ``device`` and ``compute_type``; or the last match of ``pattern`` in
    the journal of ``unit`` has them as its groups.
    """

    url: str = ""
    unit: str = ""
    pattern: str = ""


@dataclass(frozen=True)
class Transcription(Kind):
    """``recording`` is posted to ``url`` with the header in ``header_file``; words must come back.

    ``words`` are those that it has, and ``error_rate`` is the word error rate that is allowed;
    if they are empty any words will do, which proves less. ``seconds`` is the recording's
    length. ``device``: what the model has to run on, where ``evidence`` tells it. ``header_file``
    is empty if the service asks for no key.
    """

    kind = "transcription"
    url: str
    model: str
    recording: str
    seconds: float
    header_file: str
    unit: str
    engine: str
    device: str
    evidence: Evidence = field(default_factory=Evidence)
    words: str = ""
    error_rate: float = 0.0
    #: How long the answer may take: the first one loads the model; s.
    deadline: int = 300
    #: How long 429, 503 or a certificate that is not trusted is a reason to ask again: a gateway
    #: has to see first that its servers work, or that there is another certificate; s.
    patience: int = 0
    #: The file with the authority of an ``https`` address, or with its certificate itself.
    certificate: str = ""
    #: It is a server that the gateway has beside its own stack's: nothing in this machine tells
    #: what is wrong with it.
    elsewhere: bool = False
    #: The machine of this stack on another member of a cluster that is reached there; empty: it is
    #: one that stt:gateway.servers names.
    published_by: str = ""
    #: What clients call the host of ``url``; the certificate has to be for that. Empty: as ``url``.
    name: str = ""

    def apply(self, machine: Machine, step: str) -> Applied:
        """Post it, and see what comes back."""
        began = time.monotonic()
        text = self._text(machine)
        took = round(time.monotonic() - began, 3)
        if not text:
            raise StepError(
                f"{self.url} returned no text for a recording of spoken words.",
                resolution="Is it the right model (stt:model)?",
            )
        try:
            proof = compared(self.words, text, self.error_rate)
        except ValueError as error:
            raise StepError(
                f"{self.url} {error}",
                resolution="Is it the right model (stt:model), and the right language "
                "(stt:language)? Another recording, or another expectation, is stt:check.",
            ) from None
        result: dict[str, Any] = {
            "text": text,
            **proof,
            "seconds": took,
            "real_time_factor": round(took / self.seconds, 3),
        }
        found = self.runs_on(machine)
        if self.device == "cuda" and self.evidence != Evidence() and found.get("device") != "cuda":
            raise StepError(
                f"{self.engine} runs on the CPU and not on the GPU (it says: "
                f"{found.get('device', 'nothing')}).",
                resolution=f"See nvidia-smi and journalctl -u {self.unit} in the machine.",
            )
        return Applied({**result, **found}, made={**result, **found})

    def _text(self, machine: Machine) -> str:
        """What comes back."""
        look = self._look()
        end = time.monotonic() + self.patience
        body, status, failure = self._post(machine)
        while status in ("429", "503", _UNTRUSTED) and time.monotonic() < end:
            time.sleep(1)
            body, status, failure = self._post(machine)
        if failure is not None:
            raise StepError(
                f"{self.url} does not answer.", details=last_lines(failure, 2), resolution=look
            )
        if status == "401" and self.elsewhere:
            raise self._other_key()
        try:
            if status != "200":
                raise ValueError
            return str(json.loads(body)["text"]).strip()
        except (ValueError, KeyError, TypeError):
            raise StepError(
                f"The verification got HTTP status {status} from "
                f"{self.url}/audio/transcriptions with model {self.model}.",
                details=body[:600],
                resolution=look,
            ) from None

    def _look(self) -> str:
        """Where to look if it does not work."""
        if self.published_by:
            return (
                f"That is the address of its member, where {self.published_by} is published. Check "
                "whether that machine runs, whether global.members has the right addresses, for "
                "this member too the first one of its interface, and whether a firewall between "
                "the members stops the port."
            )
        if self.elsewhere:
            return (
                "It is one of stt:gateway.servers. Check there whether it works and whether this "
                "machine reaches it, or remove it from the setting."
            )
        return f"See journalctl -u {self.unit} in the machine."

    def _other_key(self) -> StepError:
        """What is wrong with a server elsewhere that answers 401."""
        if self.published_by:
            return StepError(
                f"{self.published_by} refuses this stack's key at {self.url} (HTTP status 401).",
                resolution="Run make up again: it gives all servers of the stack their key.",
            )
        if not self.header_file:
            return StepError(
                f"{self.url} asks for a key (HTTP status 401), and this stack has none.",
                resolution="Set stt:authentication and stt:apiKey to the same in both stacks.",
            )
        return StepError(
            f"{self.url} refuses this stack's key (HTTP status 401): its own is different.",
            resolution="Set stt:apiKey to one value in both stacks (pulumi config set --secret "
            "stt:apiKey), and run make up in both.",
        )

    def _post(self, machine: Machine) -> tuple[str, str, str | None]:
        """The body and the status of the answer; and where curl fails, what it says.

        A connection can be lost however often its first packet is sent again: where nothing holds
        it while Incus writes a bridge's rules, as on other members of a cluster (host/hold.py).
        """
        answer = self._post_once(machine)
        if answer[1] == _UNREACHED:
            time.sleep(1)
            answer = self._post_once(machine)
        return answer

    def _post_once(self, machine: Machine) -> tuple[str, str, str | None]:
        recording = machine.path(self.recording)
        key = ["-H", f"@{machine.path(self.header_file)}"] if self.header_file else []
        done = machine.run(
            [
                *("curl", "--silent", "--show-error", "--noproxy", "*"),
                *("--max-time", str(self.deadline)),
                *("--write-out", "\n%{http_code} %{time_connect}"),
                *(("--connect-timeout", str(_CONNECT_SECONDS)) if self.elsewhere else ()),
                *(*key, "-F", f"file=@{recording};type=audio/wav"),
                *("--form-string", f"model={self.model}", "-F", "response_format=json"),
                *self._place(machine),
            ],
            check=False,
            deadline=self.deadline + 10,
        )
        body, _, told = done.stdout.rpartition("\n")
        status, _, connected = told.partition(" ")
        if done.returncode == _CURL_UNTRUSTED:
            status = _UNTRUSTED
        elif done.returncode == _CURL_LATE and not connected.strip("0."):
            status = _UNREACHED
        return body, status, done.stderr if done.returncode else None

    def _place(self, machine: Machine) -> list[str]:
        """The address for curl, and what it trusts there."""
        trust = ["--cacert", str(machine.path(self.certificate))] if self.certificate else []
        path = f"{self.url}/audio/transcriptions"
        if not self.name:
            return [*trust, path]
        parts = urlsplit(path)
        port = parts.port or 443
        named = parts._replace(netloc=f"{self.name}:{port}").geturl()
        return [*trust, "--connect-to", f"{self.name}:{port}:{parts.hostname}:{port}", named]

    def runs_on(self, machine: Machine) -> Mapping[str, str]:
        """The device and the compute type, where the service tells them."""
        if self.evidence.url:
            said = ask(machine, HealthRequest(self.evidence.url)).json
            keys = ("device", "compute_type")
            return {k: str(said[k]) for k in keys if k in said} if isinstance(said, dict) else {}
        if not self.evidence.pattern:
            return {}
        unit = self.evidence.unit
        invocation = systemd.show(machine, f"{unit}.service").get("InvocationID", "")
        words = ["journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={invocation}"]
        said = machine.run(words, check=False, deadline=60).stdout
        matches = re.findall(self.evidence.pattern, said)
        return dict(zip(("device", "compute_type"), matches[-1], strict=True)) if matches else {}
