"""infra.yml: the topology. Domains, their machines, and the roles of these."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from declaration.gpu_devices import normalized
from declaration.internet import is_on_internet
from declaration.problems import DeclarationError, Problem, from_pydantic, show
from declaration.sizes import size_bytes
from declaration.yaml_values import ShallowLoader

TRUST_LEVELS = ("admin", "trusted", "semi-trusted", "untrusted", "disposable")
BRIDGE_PREFIX = "net-"
#: Linux' IFNAMSIZ, less the closing zero.
INTERFACE_NAME_MAX = 15
#: /24 subnets of a trust level for each environment; so many environments have room in the third
#: number of an address.
SUBNETS = 32
#: A host name's label (RFC 1035), which Incus holds names of instances to.
NAME_MAX = 63
#: Machines of a domain get .1 to .99.
LAST_MACHINE = 99
ENVIRONMENTS_MAX = 256 // SUBNETS

#: Addresses of this network, multicast, reserved, broadcast.
_NO_HOST = tuple(map(IPv4Network, ("0.0.0.0/8", "224.0.0.0/3")))

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_MEMBER = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME_RULE = "lower-case letters, digits and hyphens, starting with a letter"


def _host_name(value: str) -> str:
    if len(value) > NAME_MAX or not _NAME.fullmatch(value):
        raise ValueError(
            f"{show(value)} is not a name for Incus: use {_NAME_RULE}, at most {NAME_MAX}"
        )
    return value


def _domain_name(value: str) -> str:
    longest = INTERFACE_NAME_MAX - len(BRIDGE_PREFIX)
    if len(value) > longest:
        raise ValueError(
            f"{show(value)} is too long: its bridge {BRIDGE_PREFIX}{value} would have "
            f"{len(BRIDGE_PREFIX) + len(value)} characters, and an interface name has at most "
            f"{INTERFACE_NAME_MAX}. Use a name of at most {longest} characters"
        )
    if value == "default":
        raise ValueError('"default" is the name of Incus\' own project. Choose another name')
    return _host_name(value)


def _member(value: str) -> str:
    if not _MEMBER.fullmatch(value):
        raise ValueError(
            f"{show(value)} names no member of a cluster. Use a name of `incus cluster list`, or @ "
            "and a name of `incus cluster group list`, in quotes"
        )
    return value


def _disk(value: str) -> str:
    if not size_bytes(value):
        raise ValueError(f"{show(value)} is not a disk size. Use one such as 20GiB")
    return value


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text. Write it in quotes")
    return value


Member = Annotated[str, BeforeValidator(_text), AfterValidator(_member)]
HostName = Annotated[str, AfterValidator(_host_name)]
DomainName = Annotated[str, AfterValidator(_domain_name)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _as_text(value: Any) -> Any:
    """Incus accepts only text: YAML's ``true`` and ``4`` become ``"true"`` and ``"4"``."""
    if not isinstance(value, dict):
        return value
    return {
        key: str(item).lower()
        if isinstance(item, bool)
        else str(item)
        if isinstance(item, int | float)
        else item
        for key, item in value.items()
    }


def _devices_as_text(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _as_text(device) for name, device in value.items()}


def _normalized(devices: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: normalized(device) for name, device in devices.items()}


class Addressing(_Model):
    """How subnets follow from trust levels: ``base.(zone_base + level × zone_step).n.0/24``."""

    base_octet: int = Field(default=10, ge=1, le=223, strict=True)
    zone_base: int = Field(default=100, ge=0, le=255, strict=True)
    zone_step: int = Field(default=10, ge=1, le=255, strict=True)


def _environments(names: list[str]) -> list[str]:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"{show(name)} is listed twice. Remove one")
    return names


def _members(members: dict[str, IPv4Address]) -> dict[str, IPv4Address]:
    for name, address in members.items():
        if name.startswith("@"):
            raise ValueError(f"{show(name)} is a group. Name its members, each with its address")
        if address.is_loopback or any(address in each for each in _NO_HOST):
            raise ValueError(
                f"{address} of {name} is not where other members reach it. Use the address that "
                "`incus cluster list` shows"
            )
        if is_on_internet(address, address):
            raise ValueError(
                f"{address} of {name} is on the internet, from where nobody is to reach what is "
                "published for other members: Ollama has no key. Use the member's address in a "
                "network of your own"
            )
        other = next(each for each, its in members.items() if its == address)
        if other != name:
            raise ValueError(f"{address} is the address of {other} and of {name}. Change one")
    return members


class Global(_Model):
    """Settings of all domains. ``environments`` are described in ``declaration.environment``."""

    addressing: Addressing = Addressing()
    gpu_policy: Literal["exclusive", "shared"] = "exclusive"
    #: Whether all domains that ``policy`` lets reach another one's STT and Ollama do so at a time.
    ai_access: Literal["open", "exclusive"] = "open"
    #: With ``exclusive``, the domain that does where ``stt:aiAccess`` names none.
    ai_access_default: str = ""
    environments: Annotated[list[HostName], AfterValidator(_environments)] = Field(
        default=[], max_length=ENVIRONMENTS_MAX
    )
    #: The members of an Incus cluster that one domain may be on, each with the address at which the
    #: others reach it.
    members: Annotated[
        dict[Member, Annotated[IPv4Address, BeforeValidator(_text)]], AfterValidator(_members)
    ] = {}
    #: Networks between hosts whose users are trusted with what crosses them unencrypted.
    trusted_networks: list[Annotated[IPv4Network, BeforeValidator(_text)]] = []


class Profile(_Model):
    """An Incus profile: config and devices, as Incus names them."""

    description: str = ""
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}

    _config_is_text = field_validator("config", mode="before")(_as_text)
    _devices_are_text = field_validator("devices", mode="before")(_devices_as_text)
    _devices_are_normalized = field_validator("devices", mode="after")(_normalized)

    @property
    def has_gpu(self) -> bool:
        """Whether the profile gives a GPU to its machines."""
        return any(device.get("type") == "gpu" for device in self.devices.values())


class Machine(_Model):
    """One container; with ``count``, so many that are alike: ``NAME``, ``NAME-2``, ``NAME-3``."""

    description: str = ""
    type: Literal["lxc"] = "lxc"
    count: int = Field(default=1, ge=1, le=LAST_MACHINE, strict=True)
    gpu: bool = Field(default=False, strict=True)
    profiles: list[str] = ["default"]
    roles: list[str] = []
    #: Where it is in an Incus cluster: a member, or ``@GROUP``.
    member: Member | None = None
    ip: Annotated[IPv4Address, BeforeValidator(_text)] | None = None
    formerly: HostName | None = None
    #: The size of its root disk, as Incus writes it; empty: what the storage pool gives.
    disk: Annotated[str, BeforeValidator(_text), AfterValidator(_disk)] = ""
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}

    _config_is_text = field_validator("config", mode="before")(_as_text)
    _devices_are_text = field_validator("devices", mode="before")(_devices_as_text)
    _devices_are_normalized = field_validator("devices", mode="after")(_normalized)

    def replicas(self, name: str) -> dict[str, Machine]:
        """The machines that it stands for, by name.

        The first has the name itself, and so it stays what it was when ``count`` comes. ``ip`` is
        the first one's.
        """
        numbers = range(2, self.count + 1)
        return {name: self} | {
            f"{name}-{number}": self.model_copy(
                update={
                    "ip": self.ip + number - 1 if self.ip else None,
                    "formerly": f"{self.formerly}-{number}" if self.formerly else None,
                }
            )
            for number in numbers
        }


class Domain(_Model):
    """One Incus project and its bridge."""

    description: str = ""
    trust_level: Literal["admin", "trusted", "semi-trusted", "untrusted", "disposable"]
    #: The way out: for `up` only while it installs, always, or never.
    egress: Literal["install", "open", "closed"] = "install"
    subnet: Annotated[IPv4Network, BeforeValidator(_text)] | None = None
    #: Where its machines are in an Incus cluster that name no member: a member, or ``@GROUP``.
    member: Member | None = None
    profiles: dict[HostName, Profile] = {}
    machines: dict[HostName, Machine] = {}
    #: The name before a rename, so that what there is gets the new name.
    formerly: DomainName | None = None


class Rule(_Model):
    """What may cross a domain's border: who may open connections to which ports of whom.

    ``from`` and ``to`` are a domain, ``DOMAIN/MACHINE``, an address or a network.
    """

    from_: Annotated[str, BeforeValidator(_text)] = Field(alias="from")
    to: Annotated[str, BeforeValidator(_text)]
    ports: list[Annotated[int, Field(ge=1, le=65535, strict=True)]] = Field(min_length=1)
    protocol: Literal["tcp", "udp"] = "tcp"
    description: str = ""


class Infra(_Model):
    """The whole file."""

    global_: Global = Field(default=Global(), alias="global")
    policy: list[Rule] = []
    domains: dict[DomainName, Domain] = Field(min_length=1)


_KEYS: dict[tuple[str | int, ...], list[str]] = {
    (): ["global", "policy", "domains"],
    ("policy", "*"): ["from", "to", "ports", "protocol", "description"],
    ("global",): list(Global.model_fields),
    ("global", "addressing"): list(Addressing.model_fields),
    ("domains", "*"): list(Domain.model_fields),
    ("domains", "*", "profiles", "*"): list(Profile.model_fields),
    ("domains", "*", "machines", "*"): list(Machine.model_fields),
}


class _Loader(ShallowLoader):
    """YAML, where a key that is there twice is an error and not a silent loss."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is not text", key_node.start_mark
            )
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {show(key)} is there twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_infra(path: Path, shown: str | None = None) -> Infra:
    """The topology in ``path``; ``shown`` is how messages call the file.

    Raises:
        DeclarationError: the file is missing, is not YAML, or has what is not allowed.
    """
    shown = shown or str(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError as error:
        raise DeclarationError([Problem(shown, "is not UTF-8 text. Save it as UTF-8.")]) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DeclarationError(
            [Problem("stt:infra", f"{show(shown)} cannot be read ({why}). Name a file.")]
        ) from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise DeclarationError([Problem(shown, f"is not valid YAML: {text}")]) from error
    if not isinstance(data, dict):
        raise DeclarationError([Problem(shown, "is not a mapping. It begins with `domains:`.")])
    try:
        return Infra.model_validate(data)
    except ValidationError as error:
        raise DeclarationError(from_pydantic(error, f"{shown}: ", dict(_KEYS))) from error
