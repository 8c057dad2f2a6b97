"""Role ``open_webui``: Open WebUI, wired to Ollama and the STT service, with HTTPS if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pulumi

from components.facts import Fact, sealed, service_facts
from components.machine_script import MachineScript, Upload, digest
from components.roles.role import Facts, Role, role
from components.roles.stt_server import RECORDING, SttServer, recording_path
from components.service import Service
from components.templates import ROOT
from components.webui import open_webui, proxy
from declaration.settings import Settings
from declaration.topology import MachinePlan
from declaration.urls import HTTPS, webui_url
from stack.declare import Declaration


def _digests() -> tuple[str, str]:
    """Of this project's programs for Open WebUI, and of its lock file."""
    directory = Path("webui")
    return digest(directory), digest(directory / "requirements.txt")


@role("open_webui")
class OpenWebui(Role):
    """Open WebUI, whose microphone button and chats use the domain's own services.

    ``url``, ``password`` and ``check`` (the verification's JSON) are for the outputs, and so is
    ``certificate``: the root certificate of the proxy's own CA, where there is one.
    """

    volumes: ClassVar = {"webui": open_webui.VOLUME}
    certificate: pulumi.Output[str] | None = None

    @classmethod
    def facts(cls, declaration: Declaration, plan: MachinePlan) -> Facts:
        """The service, its administrator, and the proxy."""
        settings = declaration.settings
        args = open_webui.open_webui_args(settings, declaration.topology, plan, _digests(), "")
        facts = service_facts(plan.resource(open_webui.SERVICE), args)
        note = f"{open_webui.HOME}/data/.administrator"
        facts[plan.resource("open_webui/administrator")] = [
            Fact("administrator", f"[ -e {note} ] && echo there || echo not there", "there")
        ]
        facts[plan.resource("open_webui/recording")] = [sealed(recording_path())]
        if settings.webui.tls != "none":
            facts |= service_facts(plan.resource(proxy.SERVICE), proxy.proxy_args(settings, plan))
        return facts

    @classmethod
    def devices(cls, settings: Settings) -> dict[str, dict[str, str]]:
        """What brings it to an address of the host (``stt:webui.publish``)."""
        webui = settings.webui
        if not webui.publish:
            return {}
        port = webui.port if webui.tls == "none" else HTTPS
        listen, connect = f"tcp:{webui.publish}", f"tcp:127.0.0.1:{port}"
        return {"publish": {"type": "proxy", "listen": listen, "connect": connect}}

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """The service with its secrets, its administrator, the proxy."""
        context, settings = self.context, self.context.settings
        mine = pulumi.ResourceOptions(parent=self)
        self.url = webui_url(settings, context.plan)
        self.password = context.shared.admin_password
        self.digests = _digests()
        secrets = open_webui.secret_environment(
            {
                "WEBUI_SECRET_KEY": context.shared.secret("open_webui/session-key"),
                "WEBUI_ADMIN_EMAIL": settings.webui.adminEmail,
                "WEBUI_ADMIN_PASSWORD": self.password,
                "AUDIO_STT_OPENAI_API_KEY": context.shared.stt_key,
            }
        )
        args = open_webui.open_webui_args(
            settings, context.topology, context.plan, self.digests, secrets
        )
        name = context.name(open_webui.SERVICE)
        self.service = Service(name, context.instance, args, needs, mine)
        self.administrator = MachineScript(
            f"{name}/administrator",
            context.instance,
            open_webui.administrator_script(settings, self.password, self.digests),
            needs=[self.service.configure],
            quiet=True,
            opts=mine,
        )
        self.ready: pulumi.Resource = self.service.configure
        if settings.webui.tls != "none":
            behind = [*needs, self.service.configure]
            self.ready = self._proxy(context.name(proxy.SERVICE), behind, mine)

    def _proxy(
        self, name: str, needs: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        settings, instance = self.context.settings, self.context.instance
        args = proxy.proxy_args(settings, self.context.plan)
        service = Service(name, instance, args, needs, opts)
        if settings.webui.tls == "internal":
            shown = MachineScript(
                f"{name}/certificate",
                instance,
                f"cat {proxy.ROOT_CERTIFICATE}\n",
                after=service.last_line,
                needs=[service.configure],
                opts=opts,
            )
            self.certificate = shown.stdout
        return service.configure

    def verify(self, roles: Mapping[str, Role]) -> None:
        """Sign in; where there is STT, let Open WebUI hear a recording."""
        context, settings = self.context, self.context.settings
        mine = pulumi.ResourceOptions(parent=self)
        _, stt_link = open_webui.links(settings, context.topology, context.plan.domain)
        name = context.name(open_webui.SERVICE)
        recording = Upload(
            f"{name}/recording",
            context.instance,
            str(RECORDING.relative_to(ROOT)),
            recording_path(),
            needs=[self.service.configure],
            opts=mine,
        )
        needs: list[pulumi.Resource] = [recording, self.administrator, self.ready]
        after, hint = self.service.last_line, ""
        stt = roles.get("stt_server")
        if stt_link and isinstance(stt, SttServer):
            needs.append(stt.verified)
            # Another model or key is heard here too.
            after = pulumi.Output.concat(after, " ", stt.service.last_line)
            hint = f", and those of the STT service in {stt.context.plan.name}"
        verified = MachineScript(
            f"{name}/verify",
            context.instance,
            open_webui.verify_script(
                settings,
                context.plan,
                recording_path() if stt_link else "",
                hint,
                self.digests,
            ),
            after=after,
            needs=needs,
            opts=mine,
        )
        self.check = verified.stdout
