"""What the machines of a bridge ask for and where they want to go, seen on the bridge itself."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

from tests.e2e.project import Project

_IPV4, _ALL = 0x0800, 0x0003  # linux/if_ether.h
_TCP, _UDP = 6, 17
_DNS, _DHCP = 53, 67
#: Bytes of a header, at least.
_HEADERS = {_TCP: 20, _UDP: 8}


class Heard:
    """Names and addresses that left a machine, each once; the domain's own are left out.

    A packet is seen before the host's firewall drops it.
    """

    def __init__(self, bridge: str, network: str) -> None:
        self._network = IPv4Network(network)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind((bridge, 0))
        self._socket.settimeout(0.2)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self.names: set[str] = set()
        self.addresses: set[str] = set()
        #: Of every kind, the domain's own too: a recorder that catches nothing proves nothing.
        self.packets = 0

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, once all that has come so far is taken."""
        self._done.set()
        self._socket.setblocking(False)
        self._thread.join()
        self._socket.close()

    def assert_nobody_was_called(self) -> None:
        """It has heard something, and of that nothing was for anybody outside."""
        assert self.packets > 0
        assert (self.names, self.addresses) == (set(), set())

    def _listen(self) -> None:
        while True:
            try:
                frame = self._socket.recv(65535)
            except (TimeoutError, BlockingIOError):
                if self._done.is_set():
                    return
                continue
            except OSError:  # the bridge is gone
                return
            if len(frame) > 34 and struct.unpack_from("!H", frame, 12)[0] == _IPV4:
                self._take(frame[14:])

    def _take(self, packet: bytes) -> None:
        source, to = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        protocol, rest = packet[9], packet[(packet[0] & 15) * 4 :]
        if source not in self._network or len(rest) < _HEADERS.get(protocol, len(rest) + 1):
            return
        self.packets += 1
        port = struct.unpack_from("!H", rest, 2)[0]
        if port == _DNS:
            # Over TCP its length comes first, in two bytes; most segments hold nothing.
            message = rest[8:] if protocol == _UDP else rest[(rest[12] >> 4) * 4 + 2 :]
            if message:
                self._ask(_name(message))
        elif to not in self._network and not to.is_multicast and port != _DHCP:
            self.addresses.add(f"{to}:{port}")

    def _ask(self, name: str) -> None:
        own = name == "incus" or name.endswith((".incus", ".in-addr.arpa")) or "." not in name
        if not own:
            self.names.add(name)


def _name(message: bytes) -> str:
    """The name of a query (RFC 1035, 4.1)."""
    labels, place = [], 12
    while place < len(message) and (length := message[place]):
        labels.append(message[place + 1 : place + 1 + length].decode("ascii", "replace"))
        place += 1 + length
    return ".".join(labels).lower()


@contextmanager
def heard(project: Project, seconds: float) -> Iterator[Heard]:
    """What leaves a stack's machines within the block, and for so many seconds after it."""
    recorder = Heard(f"net-{project.domain}", f"{project.subnet}.0/24")
    recorder.start()
    try:
        yield recorder
        time.sleep(seconds)
    finally:
        recorder.stop()
