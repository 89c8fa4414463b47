"""Hosts that share nothing but a network: namespaces of the kernel, where a test may make them.

Elsewhere (no root, no `ip`) all places are this machine, told apart by their folders alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlops_assets.runtime.up.up import free_port

_NEW_NETWORK = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_SUBNET = "10.77.0"


@dataclass(frozen=True)
class Place:
    """Where processes run.

    Attributes:
        name: what a person calls it.
        address: under which other places reach what listens there.
        namespace: of the kernel; "" for this machine's own.
    """

    name: str
    address: str
    namespace: str = ""

    def command(self, *words: str) -> list[str]:
        """The command as it runs there; the process is the program itself, not a wrapper."""
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*prefix, *words]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread opens meanwhile are in that place."""
        if not self.namespace:
            yield
            return
        with open(_OWN) as here, open(f"/run/netns/{self.namespace}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())


@dataclass
class Network:
    """Places that reach each other, and nothing else; see `network`."""

    apart: bool
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "a network namespace each" if self.apart else "one network, homes of their own"

    def place(self, name: str) -> Place:
        """A new place."""
        if not self.apart:
            made = Place(name, "127.0.0.1")
        else:
            number = len(self.places) + 1
            made = Place(name, f"{_SUBNET}.{number}", f"mlops-{os.getpid()}-{number}")
            self._connect(made, number)
        self.places[name] = made
        return made

    def _connect(self, place: Place, number: int) -> None:
        _ip("netns", "add", place.namespace)
        inside = ("-n", place.namespace)
        _ip(*inside, "link", "set", "lo", "up")
        if not self.places:  # the first one has the switch that the others are plugged into
            _ip(*inside, "link", "add", "switch", "type", "bridge")
            _ip(*inside, "addr", "add", f"{place.address}/24", "dev", "switch")
            _ip(*inside, "link", "set", "switch", "up")
            return
        hub, plug = next(iter(self.places.values())).namespace, f"plug{number}"
        peer = ("peer", "name", plug, "netns", hub)
        _ip(*inside, "link", "add", "cable", "type", "veth", *peer)
        _ip("-n", hub, "link", "set", plug, "master", "switch", "up")
        _ip(*inside, "addr", "add", f"{place.address}/24", "dev", "cable")
        _ip(*inside, "link", "set", "cable", "up")


@contextmanager
def network() -> Iterator[Network]:
    """A network of its own, gone afterwards."""
    made = Network(_may_make_namespaces())
    try:
        yield made
    finally:
        for place in made.places.values():
            if place.namespace:
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip("netns", "del", place.namespace)


def port() -> int:
    """A port that is free on this machine, and in a namespace of its own anyway."""
    return free_port()


def _may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None or not Path(_OWN).exists():
        return False
    name = f"mlops-{os.getpid()}-trial"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "switch", "type", "bridge")
        _ip("-n", name, "link", "add", "cable", "type", "veth", "peer", "name", "plug")
        with Place("trial", "", name).inside():
            pass
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return True


def _enter(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
