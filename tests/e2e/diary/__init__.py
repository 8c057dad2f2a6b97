"""Role ``diary`` of the tests: data on a volume of its own, with a key that is made once.

It stands for Open WebUI, whose installation takes long. A test copies it into `roles/`.
"""

from __future__ import annotations

from pathlib import Path

from agent.files import File
from agent.http import HealthRequest
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.service import Service
from agent.kinds.user import Directory, User
from declaration.secret import secret
from declaration.step import Step
from declaration.unit import hardened_unit
from roles.role import Context, Role

NAME, USER, UID, VOLUME, PORT = "diary", "diary", 921, "/srv/diary", 8300
_HOME, _ENVIRONMENT = "/var/lib/diary", "/etc/incus-stt/diary.env"
_PAGES = f"{VOLUME}/pages"
_SERVER, _KEY = "/etc/incus-stt/diary/server.py", "/etc/incus-stt/diary/key.env"
_SECRET = "diary/key"  # a name


def steps(context: Context) -> list[Step]:
    """Its user, its key, the service."""
    directories = [Directory(VOLUME, owner="root:root"), Directory(_PAGES)]
    user = Step(context.part(f"{NAME}/user"), User(USER, UID, _HOME, directories))
    key = SecretFiles([SecretFile(_KEY, f"DIARY_KEY={secret(_SECRET)}\n")], f"{NAME}/service")
    keys = Step(context.part(f"{NAME}/secrets"), key, [user.name])
    service = Service(
        unit=NAME,
        environment_file=_ENVIRONMENT,
        variables={"DIARY": f"{_PAGES}/diary.db", "DIARY_PORT": str(PORT)},
        sections=hardened_unit(
            description="The diary of the tests",
            user=USER,
            command=f"/usr/bin/python3 {_SERVER}",
            directory=_HOME,
            writable=[_HOME, _PAGES],
            environment_files=[_ENVIRONMENT, _KEY],
            port=PORT,
        ),
        files=[File(_SERVER, (Path(__file__).parent / "server.py").read_text())],
        port=PORT,
        health=[HealthRequest(f"http://127.0.0.1:{PORT}/")],
        deadline=30,
    )
    return [user, keys, Step(context.part(f"{NAME}/service"), service, [user.name, keys.name])]


ROLE = Role(
    NAME,
    "a diary, for the tests",
    steps,
    volumes={NAME: VOLUME},
    data=[NAME],
    secrets=lambda _: {_SECRET: ""},
    outputs=lambda context: {
        "diary_url": f"http://{context.machine.address}:{PORT}",
        "diary_key": secret(_SECRET),
    },
    requires=lambda _: (),
)
