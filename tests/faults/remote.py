"""A device that logs: run as ``python -m tests.faults.remote``, told what to do over its stdin.

Each line is a JSON list, a command and its arguments; each answer is a line of JSON. An answer to
``log`` is the acknowledgement of its events: it is written after the calls have returned.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import opened
from tests.support.conversations import ROOT
from tracker import AgentPerformanceTracker, APIConfig, OutboxError
from tracker.outbox.queue import sync_state
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

_EXIT_SECONDS = 30
_DESCRIPTORS = 128


class _Counter(logging.Handler):
    """Counts what a user's log would show."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class _Inside:
    """The device's own side: carries out commands."""

    def __init__(self, settings: dict[str, Any]) -> None:
        for name in ("outbox_path", "ca_bundle"):
            if name in settings:
                settings[name] = Path(settings[name])
        self._hogs: list[int] = []
        self._log = _Counter()
        logging.getLogger("tracker").addHandler(self._log)
        self._tracker = AgentPerformanceTracker(APIConfig(**settings))
        self._client = opened.client_of(self._tracker.config.outbox_path)

    def log(self, first: int, count: int) -> list[str]:
        """Log so many events, the n-th with n as its content; return their ids."""
        return [
            self._tracker.track("device.noted", {"content": f"message {number}"})
            for number in range(first, first + count)
        ]

    def try_to_log(self, first: int, count: int) -> list[str | None]:
        """Do the same where calls may be refused; None stands for one that was."""
        ids: list[str | None] = []
        for number in range(first, first + count):
            try:
                ids += self.log(number, 1)
            except OutboxError:
                ids.append(None)
        return ids

    def use_up_descriptors(self) -> int:
        """Open files until the system refuses; return how many."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))
        while True:
            try:
                self._hogs.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return len(self._hogs)

    def free_descriptors(self) -> None:
        """Close them again."""
        while self._hogs:
            os.close(self._hogs.pop())

    def become(self, user: int) -> None:
        """Go on as another user, with what is open."""
        os.setegid(user)
        os.seteuid(user)

    def health(self) -> dict[str, Any]:
        """Return how storage does, as the tracker tells it."""
        health = self._tracker.health()
        return {
            "ok": health.ok,
            "in_memory": health.in_memory,
            "storage_error": health.storage_error,
            "discarded": dict(health.discarded),
            "damaged_sets": [str(path) for path in health.damaged_sets],
        }

    def flush(self, timeout: float) -> dict[str, Any]:
        """Flush; return what is pending and how long it took."""
        start = time.monotonic()
        pending = self._tracker.flush(timeout).pending
        return {"pending": pending, "seconds": time.monotonic() - start}

    def prune(self) -> int:
        """Run a round of retention, as the sync thread does every hour."""
        return self._client.outbox.prune()

    def rows(self) -> int:
        """Return how many events of the application the outbox holds."""
        query = "SELECT count(*) FROM events WHERE type != 'integrity.checkpoint'"
        with self._client.outbox.reading() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def report(self) -> dict[str, Any]:
        """Return how the device does; checkpoints do not count."""
        with self._client.outbox.reading() as connection:
            connection.exec_driver_sql("BEGIN")
            book = ledger.read(connection)
            state = sync_state.read_state(connection)
            all_, sent = connection.exec_driver_sql(_CHECKPOINTS).one()
            connection.exec_driver_sql("COMMIT")
        return {
            "pending": book.pending - (all_ - sent),
            "delivered": book.delivered - sent,
            "accepted": book.accepted - all_,
            "dead": book.dead,
            "paused_because": state.paused_because,
            "failures": self._client.worker.failures,
            "alive": any(t.name == "tracker-sync" and t.is_alive() for t in threading.enumerate()),
            "cpu": time.process_time(),
            "wall_ms": time.time_ns() // 1_000_000,
            "steady": time.monotonic(),
            "log": self._log.lines,
        }

    def close(self) -> None:
        """Close the tracker without waiting."""
        self._tracker.close(timeout=0)


_CHECKPOINTS = """
SELECT count(*), count(delivered_at_ms) FROM events WHERE type = 'integrity.checkpoint'
"""


class Device:
    """A running device, from the outside. As a context manager it ends with its block.

    Args:
        settings: Arguments for `APIConfig`, in JSON.
        environment: Added to ours.
        within: A command to run it by, as that of a network namespace.

    Attributes:
        acknowledged: The contents of every event whose call returned, by event id, in order.
        refused: How many calls raised.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused = 0
        self._settings = dict(settings)
        self._environment = {**os.environ, **(environment or {})}
        self._within = within
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            [
                *self._within,
                sys.executable,
                "-m",
                "tests.faults.remote",
                json.dumps(self._settings),
            ],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """End the process in order."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate(timeout=_EXIT_SECONDS)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def tell(self, *command: object) -> Any:
        """Have a command carried out; return the answer."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(command), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        assert answer, f"the device ended with code {process.poll()} at {command}"
        return json.loads(answer)

    def log(self, count: int) -> None:
        """Log so many events and record what was acknowledged."""
        first = len(self.acknowledged) + self.refused
        ids = self.tell("log", first, count)
        for number, event_id in enumerate(ids, first):
            self.acknowledged[event_id] = f"message {number}"

    def try_to_log(self, count: int) -> int:
        """Log so many where calls may be refused; return how many were."""
        first = len(self.acknowledged) + self.refused
        refused = 0
        for number, event_id in enumerate(self.tell("try_to_log", first, count), first):
            if event_id is None:
                refused += 1
            else:
                self.acknowledged[event_id] = f"message {number}"
        self.refused += refused
        return refused


def _fail_names_while(path: str) -> None:
    """Let no host name be found while the file is there, and every one be this machine after."""
    find = socket.getaddrinfo

    def faulty(host: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return find("127.0.0.1", *arguments, **options)

    socket.getaddrinfo = faulty


def main() -> None:
    """Carry out commands until there are no more."""
    if path := os.environ.get("DEVICE_FAILS_NAMES_WHILE"):
        _fail_names_while(path)
    inside = _Inside(json.loads(sys.argv[1]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(inside, name)(*arguments)), flush=True)  # noqa: T201 - the answer
    inside.close()


if __name__ == "__main__":
    main()
