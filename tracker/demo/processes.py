"""The processes of ``tracker-sync demo``, with their own environment; none is left running."""

from __future__ import annotations

import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

import tracker
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

DEADLINE_SECONDS = 30
"""The longest wait of the demo for any single event."""

DATABASE = "collector.sqlite3"
"""The collector's database, in the demo's folder."""

_HTTP_SECONDS = 10
_POLL_SECONDS = 0.02
_PORTS = range(15_000, 32_000)

_KEPT_VARIABLES = (
    # Enough to find Python, the package and a temporary folder. No SDK_* or COLLECTOR_*, no
    # proxies, no certificates: the user's own settings must not have any effect here.
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUSERBASE",
    "TMPDIR",
    "VIRTUAL_ENV",
)


class DemoError(TrackerError):
    """The demo cannot continue; the message says why."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1.

    It is below the range of ports for outgoing connections, so that it most likely stays free while
    the collector is down.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoError("there is no free port on 127.0.0.1: tried 100")


class Child:
    """A running process of this project. Owns it, its pipe, and the thread that reads the pipe.

    Args:
        name: Its name in messages and of its log.
        folder: Folder of its log, and its working directory.
        module: The module for ``python -m``.
        arguments: Its arguments.
        variables: Additional environment variables.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        module: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
    ) -> None:
        self._name = name
        self._log = folder / f"{name.replace(' ', '-')}.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, our own module
                [sys.executable, "-m", module, *arguments],
                # Not the user's folder: `-m` would import modules from there.
                cwd=folder,
                env={**_environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C goes to the demo, which then ends its children
            )
        self._reader = threading.Thread(
            target=self._read, name=f"demo-{self._log.stem}", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def line(self) -> str:
        """Return the next line that the process writes to stdout.

        Raises:
            DemoError: if it ends, or writes nothing in time.
        """
        try:
            line = self._lines.get(timeout=DEADLINE_SECONDS)
        except queue.Empty:
            raise DemoError(f"the {self._name} wrote nothing for {DEADLINE_SECONDS} s") from None
        if line is None:
            self.wait()
            raise self.ended()
        return line

    def rest(self) -> list[str]:
        """Return all remaining lines of a process that has ended."""
        lines: list[str] = []
        while (line := self._lines.get(timeout=DEADLINE_SECONDS)) is not None:
            lines.append(line)
        return lines

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ended(self) -> DemoError:
        """Return the error for a process that ended unexpectedly, with its output."""
        said = self._log.read_text(encoding="utf-8", errors="replace").strip() or "(nothing)"
        code = self._process.returncode
        return DemoError(
            f"the {self._name} ended unexpectedly with exit code {code}; its stderr:\n{said}"
        )

    def wait(self) -> int:
        """Wait for the end and return the exit code.

        Raises:
            DemoError: if the process does not end in time.
        """
        try:
            return self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the {self._name} did not end") from None

    def kill(self) -> int:
        """Send SIGKILL, and return the exit code."""
        self._process.kill()
        return self.wait()

    def stop(self) -> None:
        """End the process, if necessary with SIGKILL; do nothing if it has ended."""
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def dispose(self) -> None:
        """Release the pipe and the thread of a process that has ended."""
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        # To the end: a full pipe would block the process.
        for line in self._process.stdout or ():
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


class Children:
    """All processes of a demo. When the block is left, none of them is running."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._started:
            child.kill()  # all of them first: a second Ctrl-C may interrupt the rest
        for child in self._started:
            child.dispose()

    def start(self, name: str, module: str, *arguments: str, **variables: str) -> Child:
        """Start ``python -m module arguments`` with `variables` in its environment."""
        child = Child(name, self._folder, module, arguments, variables)
        self._started.append(child)
        return child


class Collector:
    """The demo's collector, which can be restarted with the same port and database."""

    def __init__(self, children: Children, folder: Path, client_id: str) -> None:
        self.database = folder / DATABASE
        self._children = children
        self._port = free_port()
        self._process: Child | None = None
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc
        self._session.headers["X-Client-ID"] = client_id
        self.api_key = self._create_key(client_id)
        self._session.headers["Authorization"] = f"Bearer {self.api_key}"

    @property
    def url(self) -> str:
        """Its URL while it is running."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and return when it accepts the key.

        Raises:
            DemoError: if it does not start.
        """
        process = self._process = self._run("serve", "--host", "127.0.0.1", "--port", self._port)
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            if not process.running:
                raise process.ended()
            with suppress(requests.ConnectionError):
                self._get("/v1/ping")
                return
            time.sleep(_POLL_SECONDS)
        raise DemoError(f"the collector did not start within {DEADLINE_SECONDS} s")

    def stop(self) -> None:
        """Stop it."""
        self._session.close()  # a kept-alive connection would end with the process
        if self._process is not None:
            self._process.stop()

    def events(self) -> list[dict[str, Any]]:
        """Return all events in the order in which they were stored."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._get(f"/v1/events?after={after}&limit=1000")
            found += page["events"]
            after = page["next"]
        return found

    def outboxes(self) -> list[dict[str, Any]]:
        """Return the reports on all outboxes."""
        outboxes: list[dict[str, Any]] = self._get("/v1/outboxes")["outboxes"]
        return outboxes

    def _create_key(self, client_id: str) -> str:
        process = self._run("keys", "create", "--client", client_id)
        key = process.line()
        process.wait()
        return key

    def _run(self, *arguments: object) -> Child:
        given = [*map(str, arguments), "--database", str(self.database)]
        return self._children.start("collector", "tracker.collector.main", *given)

    def _get(self, path: str) -> Any:
        answer = self._session.get(self.url + path, timeout=_HTTP_SECONDS, allow_redirects=False)
        if answer.status_code != 200:
            raise DemoError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()


@contextmanager
def without_settings() -> Iterator[None]:
    """Hide the user's own settings from this process, too, in the block."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SDK_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    paths = [
        str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
    ]
    root = Path(tracker.__file__).absolute().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        paths.insert(0, str(root))  # for a checkout, which the children would not find
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
