"""Processes that are to be killed, and the nursery that makes and kills them.

The nursery (``python -m tests.faults.victim``) has imported everything and opened nothing. For
each order, a JSON line on its stdin, it forks a victim, kills it at the given instant, and answers
with what a further process took to open the outbox afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import alembic.command  # noqa: F401 - imported here once, not in each victim
import requests  # noqa: F401 - likewise

from tests.faults import oracle
from tests.support.conversations import ROOT
from tracker import APIConfig, Tracker
from tracker.cli.main import cli
from tracker.outbox.outbox import Outbox
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from tracker.sync.destination import Upload

_LIFE_SECONDS = 60
_OPENING_SECONDS = 30


@dataclass(frozen=True)
class Order:
    """What a victim is to do, and when it dies.

    Attributes:
        role: Name of a function in `ROLES`.
        name: Begins the names of its writers; no other victim has it.
        settings: Fields of `APIConfig`, as JSON has them.
        notes: The file of acknowledgements.
        complaints: The file for what a victim should not have met.
        after: Seconds from its birth, or from when it says that it is ready, to SIGKILL.
        await_ready: Whether to wait for that.
        parent_first: Kill the victim itself, and its children a moment later.
        arguments: Further arguments of the role.
    """

    role: str
    name: str
    settings: dict[str, Any]
    notes: str
    complaints: str
    after: float = 0.0
    await_ready: bool = False
    parent_first: bool = False
    arguments: list[str] = field(default_factory=list)

    @property
    def config(self) -> APIConfig:
        """The settings of the outbox."""
        return APIConfig(**self.settings)


class Opening(NamedTuple):
    """What opening an outbox took, in seconds.

    Attributes:
        wall: All in all, waits for the machine's other work included.
        cpu: Of the process's own.
    """

    wall: float
    cpu: float


class Nursery:
    """A nursery process. As a context manager it is started and stopped."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def kill_one(self, order: Order) -> Opening:
        """Have a victim made and killed; return what opening the outbox took afterwards."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return Opening(*json.loads(self._process.stdout.readline()))


def _tend() -> None:
    """Make and kill victims until stdin ends."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        ready, say_ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            return run(order, functools.partial(os.write, say_ready, b"!"))
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it did so itself
            os.setpgid(pid, pid)
        os.close(say_ready)
        if order.await_ready:
            os.read(ready, 1)
        time.sleep(order.after)  # the random instant
        _kill(pid, order)
        os.close(ready)
        sys.stdout.write(json.dumps(_time_opening(order)) + "\n")
        sys.stdout.flush()
    return None


def _kill(pid: int, order: Order) -> None:
    if order.parent_first:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # the orphans go on for so long
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _time_opening(order: Order) -> Opening:
    """Return what a process takes to open the outbox; it ends without closing it."""
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            config, wall, cpu = order.config, time.monotonic(), time.process_time()
            Outbox(config)
            took = Opening(time.monotonic() - wall, time.process_time() - cpu)
            os.write(say, json.dumps(took).encode())
        except BaseException:
            _complain(order)
            raise
        finally:
            os._exit(0)
    os.close(say)
    in_time = select.select([answer], [], [], _OPENING_SECONDS)[0]
    said = os.read(answer, 100) if in_time else b""
    os.close(answer)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Opening(*json.loads(said)) if said else Opening(math.inf, math.inf)


def run(order: Order, ready: Callable[[], object] = lambda: None) -> None:
    """Be a victim."""
    signal.alarm(_LIFE_SECONDS)  # whatever becomes of those who should kill it
    logging.getLogger("tracker").addHandler(logging.NullHandler())
    threading.excepthook = lambda _: _complain(order)
    try:
        ROLES[order.role](order, ready)
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code in (0, 1)):
            _complain(order)
        raise


def _complain(order: Order) -> None:
    with Path(order.complaints).open("a") as complaints:
        complaints.write(f"{order.role} {order.name}: {traceback.format_exc()}\n")


# --- roles --------------------------------------------------------------------------------------


def _speak(
    tracker: Tracker,
    order: Order,
    name: str,
    sizes: Sequence[int] = (0, 200, 2_000),
    pause: float = 0,
) -> None:
    """Say something over and over, until killed."""
    writer = oracle.Writer(tracker, f"{order.name}-{name}", Path(order.notes))
    for size in itertools.cycle(sizes):
        writer.say(size)
        if pause:
            time.sleep(pause)  # leaves the others a share of the disk


def _speak_from_threads(tracker: Tracker, order: Order, name: str, threads: int) -> None:
    for number in range(threads):
        threading.Thread(target=_speak, args=(tracker, order, f"{name}{number}")).start()


def _speak_from_another_process(order: Order) -> None:
    if os.fork() == 0:
        _speak(Tracker(order.config), order, "other", pause=0.002)


def in_threads(order: Order, ready: Callable[[], object]) -> None:
    """Open the outbox and log from four threads."""
    _speak_from_threads(Tracker(order.config), order, "thread", 4)
    ready()


def in_processes(order: Order, ready: Callable[[], object]) -> None:
    """Log from four processes, which wait for each other and commit each other's events."""
    name = "parent"
    for number in range(3):
        if os.fork() == 0:
            name = f"process{number}-"
            break
    tracker = Tracker(order.config)
    ready()
    _speak_from_threads(tracker, order, name, 1)


def in_forks(order: Order, ready: Callable[[], object]) -> None:
    """Log, fork two children that go on with the tracker, and log on."""
    tracker = Tracker(order.config)
    oracle.Writer(tracker, f"{order.name}-before", Path(order.notes)).say()
    ready()
    for number in range(2):
        if os.fork() == 0:
            return _speak_from_threads(tracker, order, f"child{number}-", 2)
    return _speak_from_threads(tracker, order, "parent", 2)


def spawned(order: Order, _: Callable[[], object]) -> None:
    """Become a fresh interpreter that logs from threads."""
    again = json.dumps({**asdict(order), "role": "in_threads"})
    command = [sys.executable, "-m", "tests.faults.victim", again]
    os.execv(sys.executable, command)  # noqa: S606 - our own program


def at_checkpoints(order: Order, ready: Callable[[], object]) -> None:
    """Log so much that every few dozen calls write the log back into the file."""
    tracker = Tracker(order.config)
    threading.Thread(target=_speak, args=(tracker, order, "small")).start()
    ready()
    _speak(tracker, order, "large", sizes=(100_000, 300_000))


def at_ease(order: Order, ready: Callable[[], object]) -> None:
    """Log from one thread, with pauses: so that the uploader keeps up, and prune as well."""
    tracker, outbox = Tracker(order.config), Outbox(order.config)
    threading.Thread(target=_speak, args=(tracker, order, "slow"), kwargs={"pause": 0.005}).start()
    ready()
    while True:
        outbox.prune(0)
        time.sleep(0.05)


def at_prunes(order: Order, ready: Callable[[], object]) -> None:
    """Remove delivered events over and over, while another process logs."""
    _speak_from_another_process(order)
    outbox = Outbox(order.config)
    ready()
    while True:
        outbox.prune(0)


def at_erasures(order: Order, ready: Callable[[], object]) -> None:
    """Log about a user and erase that user over and over, while another process logs."""
    _speak_from_another_process(order)
    tracker = Tracker(order.config)
    for number in itertools.count():
        writer = oracle.Writer(tracker, f"{order.name}-forgotten{number}", Path(order.notes))
        for size in (0, 200, 3_000):
            writer.say(size)
        if number == 0:
            ready()
        tracker.compliance.erase_subject(writer.name, reason="asked to")


def at_commands(order: Order, ready: Callable[[], object]) -> None:
    """Run a command of tracker-sync, while another process logs."""
    _speak_from_another_process(order)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    for name in ("api_key", "client_id", "base_url"):
        os.environ[f"SDK_{name.upper()}"] = order.settings[name]
    ready()
    cli(["--outbox", order.settings["outbox_path"], *order.arguments], prog_name="tracker-sync")


def at_exit(order: Order, ready: Callable[[], object]) -> None:
    """Log, and end as programs do, with what runs at exit."""
    writer = oracle.Writer(Tracker(order.config), f"{order.name}-ending", Path(order.notes))
    for _ in range(20):
        writer.say()
    ready()


def at_migration(order: Order, ready: Callable[[], object]) -> None:
    """Open an outbox of an older version, and log once it is carried over."""
    ready()
    _speak(Tracker(order.config), order, "migrated")


def a_story(order: Order, _: Callable[[], object]) -> None:
    """Log, upload, checkpoint, prune, erase and close, twice; the receiver notes what it gets.

    Meanwhile three more processes log.
    """
    notes = os.open(order.arguments[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def receive(upload: Upload) -> Delivery:
        os.write(notes, b"".join(event + b"\n" for event in upload.events))
        return Delivery(Outcome.DELIVERED)

    def accompany(name: str) -> None:
        with Tracker(order.config, destination=lambda: RecordingDestination(receive)) as tracker:
            writer = oracle.Writer(tracker, f"{order.name}-{name}", Path(order.notes))
            for size in [200] * 40:
                writer.say(size)

    for chapter in range(2):  # the second is on the files that the first one closed
        others = [_run_in_a_fork(accompany, f"{chapter}-{number}") for number in range(3)]
        tracker = Tracker(order.config, destination=lambda: RecordingDestination(receive))
        writer = oracle.Writer(tracker, f"{order.name}-{chapter}", Path(order.notes))
        for size in (*[200] * 40, *[150_000] * int(order.arguments[1 + chapter]), *[200] * 40):
            writer.say(size)
        tracker.flush()
        outbox = Outbox(order.config)
        outbox.prune(0)
        outbox.close()
        forgotten = oracle.Writer(tracker, f"{order.name}-forgotten{chapter}", Path(order.notes))
        for size in (200, 2_000):
            forgotten.say(size)
        tracker.compliance.erase_subject(forgotten.name, reason="asked to")
        for size in (0, 200, 4_000):
            writer.say(size)
        tracker.close(timeout=0)
        for pid in others:
            assert os.waitpid(pid, 0)[1] == 0


def _run_in_a_fork(work: Callable[[str], None], name: str) -> int:
    """Run `work` in a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        work(name)
        os._exit(0)
    return pid


ROLES: dict[str, Callable[[Order, Callable[[], object]], None]] = {
    role.__name__: role
    for role in (
        in_threads,
        in_processes,
        in_forks,
        spawned,
        at_checkpoints,
        at_ease,
        at_prunes,
        at_erasures,
        at_commands,
        at_exit,
        at_migration,
        a_story,
    )
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(Order(**json.loads(sys.argv[1])))
    else:
        _tend()
