"""Programs of Debian that the fleet is made of, and how tests start and end them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import postgresql
from tests.support.pages import IS_CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAMS = ("haproxy", "patroni", "etcd")
_PATHS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_TAIL = 2_000


def why_not() -> str | None:
    """Return why there can be no fleet here, or None if there can."""
    if not IS_CHECKOUT:
        return "the page with the configuration is not here"
    missing = [name for name in PROGRAMS if find(name) is None]
    if missing:
        return f"not on this machine: {', '.join(missing)} (Debian has them)"
    return postgresql.why_not()


def find(name: str) -> str | None:
    """Return the path of a program."""
    return shutil.which(name, path=_PATHS)


def user() -> str | None:
    """Return the user that runs what root must not run; None for the present one."""
    return postgresql.unprivileged() if os.geteuid() == 0 else None


class Program:
    """A program that runs until it is ended, and writes its log to a file.

    Args:
        name: For people.
        command: The program and its arguments.
        log: The file.
        environment: Its variables, with which it runs as the present user; without them, root
            starts it as another one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # one thread may start it again while another ends it

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._lock, self._log.open("ab") as log:
            assert not self.runs, f"{self.name} runs already"
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", user=user() if self._environment is None else None,
                env=self._environment,
            )  # fmt: skip

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has ended."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)
                self._process.wait(30)
                self._process = None

    def log(self) -> str:
        """Return what it has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def tail(self) -> str:
        """Return the end of its log, for people."""
        return f"{self.name}: …{self.log()[-_TAIL:]}"


def wait_for(condition: Callable[[], bool], what: str, seconds: float, *programs: Program) -> float:
    """Wait until something holds; return how many seconds it took.

    Raises:
        AssertionError: if it does not hold in time, with the logs of `programs`.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        ended = [program.name for program in programs if not program.runs]
        in_vain = waited > seconds or (programs and len(ended) == len(programs))
        logs = "\n".join(program.tail() for program in programs) if in_vain else ""
        assert not in_vain, f"not after {waited:.0f} s: {what}; ended: {ended}\n{logs}"
        time.sleep(0.1)
    return time.monotonic() - began


def listens(port: int) -> bool:
    """Return True if something accepts connections at a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(number) for number in path.read_text().split()] if path.exists() else []
