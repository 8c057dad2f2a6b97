"""Which member of a cluster each domain is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from host.read import Member


@dataclass(frozen=True)
class Placement:
    """The member of each domain, by the domain's name; nothing if there is no cluster.

    ``left``: domains that `up` leaves as they are, each with its member, which is not online.
    ``offline``: a member that does not answer, and ``closed`` the other domains whose bridges open
    for steps that fetch. ``former``: the members where the state has domains, while this host is in
    no cluster.
    """

    members: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, Member] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)
    offline: Member | None = None
    closed: Sequence[str] = ()

    def of(self, domain: str) -> str:
        """The member of a domain; empty if there is no cluster."""
        return self.members.get(domain, "")

    def warnings(self) -> list[str]:
        """What was left out, and why; what is made again on a host that is in no cluster."""
        return [
            *(
                f"{domain} is left as it is: its machines are on {member.name}, which is "
                f"{member.condition}. {member.way_back} The next up applies what has changed in "
                "the meantime."
                for domain, member in self.left.items()
            ),
            *(
                f"{domain}: a step that fetches something, such as another engine or model, fails: "
                f"its bridge opens for that (egress: install), and Incus changes no network while "
                f"{self.offline.name} is {self.offline.condition}. {self.offline.way_back}"
                for domain in self.closed
                if self.offline
            ),
            *(
                f"{domain} was on {member} of a cluster, and this host is in none: it is made "
                "again here. If the cluster was meant, name a host of it with stt:connection."
                for domain, member in self.former.items()
            ),
        ]
