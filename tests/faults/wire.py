"""A network between a device and its collector that a test cuts, slows and makes lossy.

The device lives in a network namespace of its own. Its only interface is one end of a TUN device;
the packets go through this process, which passes them on, late, or not at all. So a blackhole
really swallows packets, in the midst of a connection too, and it is known how many.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PACKET_BYTES = 65_536


@functools.cache
def why_not() -> str | None:
    """Say why this machine cannot have such a network; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a network namespace needs root on Linux"
    if not shutil.which("ip"):
        return "ip (iproute2) is not installed"
    if not Path("/dev/net/tun").exists():
        return "there are no TUN devices"
    try:
        with Wire():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a network namespace cannot be made here: {error}"


class Wire:
    """The network. As a context manager it is laid and taken away.

    Owns the namespace, both ends' descriptors, and the thread that passes packets on.

    Attributes:
        address: This side's, for the collector.
        within: The command that runs another one on the device's side.
        loss: The share of packets that is lost.
        delay: Seconds that a packet takes, and half as much again at random.
        swallow: Lose everything.
        passed: Packets that got through.
        lost: Packets that did not.
    """

    def __init__(self) -> None:
        number = os.getpid() % 250 + 1
        self._name = f"fault-{os.getpid()}"
        self._ours, self._theirs = f"fo{os.getpid()}"[:15], f"ft{os.getpid()}"[:15]
        self.address, self._device = f"10.213.{number}.1", f"10.213.{number}.2"
        self.within = ("ip", "netns", "exec", self._name)
        self.loss = self.delay = 0.0
        self.swallow = False
        self.passed = self.lost = 0
        self._chance = random.Random(5)  # noqa: S311 - a script
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name="wire")
        self._ends: list[int] = []

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        try:
            self._ends += [_tun(self._ours), _tun(self._theirs)]
            _ip("link", "set", self._theirs, "netns", self._name)
            _ip("addr", "add", self.address, "peer", self._device, "dev", self._ours)
            _ip("link", "set", self._ours, "up")
            _ip("addr", "add", self._device, "peer", self.address, "dev", self._theirs, of=self)
            _ip("link", "set", "lo", "up", of=self)
            self.link(up=True)
        except BaseException:
            self._take_away()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._take_away()

    def link(self, *, up: bool) -> None:
        """Put the device's interface up or down."""
        _ip("link", "set", self._theirs, "up" if up else "down", of=self)

    @property
    def namespace(self) -> str:
        """The name of the device's namespace."""
        return self._name

    def _take_away(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends.clear()
        _ip("netns", "delete", self._name)

    def _pass_on(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                _, _, end, packet = heapq.heappop(self._waiting)
                with contextlib.suppress(OSError):  # the interface is down
                    os.write(end, packet)
            pause = min(0.05, max(0.0, self._waiting[0][0] - now)) if self._waiting else 0.05
            for end in select.select(self._ends, [], [], pause)[0]:
                with contextlib.suppress(OSError):
                    self._take(os.read(end, _PACKET_BYTES), self._ends[end == self._ends[0]])

    def _take(self, packet: bytes, to: int) -> None:
        if self.swallow or self._chance.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        late = self.delay * (1 + self._chance.random() / 2)
        heapq.heappush(self._waiting, (time.monotonic() + late, self.passed, to, packet))


def _tun(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(end)
        raise
    return end


def _ip(*arguments: str, of: Wire | None = None) -> None:
    within = ["-n", of.namespace] if of is not None else []
    subprocess.run(["ip", *within, *arguments], check=True, capture_output=True)
