"""``tracker-sync run``: a process that only uploads."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import SQLAlchemyError

from tracker.cli.beside import paths_in, to_upload
from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import Target, check_uploads, find, folder_of
from tracker.cli.output import events
from tracker.clock import monotonic
from tracker.errors import OutboxError, TrackerError

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.outbox import Account

_LOOK_SECONDS = 1.0
_REPORT_SECONDS = 60.0

_logger = logging.getLogger("tracker.cli")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync run",
        "tracker-sync run --all",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 run 2>> sync.log",
    ],
    exits={0: "ended by SIGTERM or Ctrl-C", 1: "an outbox cannot be opened"},
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Upload from all outboxes in the folder, each for its own client id and collector.",
)
@click.pass_obj
def run(place: Place, *, every: bool) -> None:
    """Upload in the foreground until stopped, as a sidecar.

    Creates the outbox if there is none yet, for the applications that will log to it. Logs to
    stderr. While another process uploads, it waits and takes over when that one ends. SIGTERM or
    Ctrl-C ends it in order, a second one at once.

    With --all, the outboxes are those of `tracker-sync outboxes`; within a minute, those that are
    new are among them. The API key is the same for all, and each collector gets it. An outbox that
    cannot be opened is named and tried again, and the others go on.
    """
    uploads = EveryOutbox(place) if every else OneOutbox(place)
    stop = _stop_on_signals()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    uploads.open()
    try:
        _watch(uploads, stop)
    finally:
        _logger.info("stopping")
        uploads.close()
    click.get_current_context().exit(FAILED if uploads.refused else OK)


def _stop_on_signals() -> threading.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


class _Watched:
    """An outbox that this process uploads from, or waits to.

    Args:
        target: The outbox.
        name: What its lines in the log begin with.

    Raises:
        OutboxError: if it cannot be opened.
    """

    def __init__(self, target: Target, name: str = "") -> None:
        from tracker.client import Client, connect

        client = connect(target.config, target)
        assert isinstance(client, Client)  # noqa: S101 - `find` refuses a disabled configuration
        self._client, self._target, self._name = client, target, name
        self._elected: bool | None = None
        self._reported: Account | None = None
        config = client.config
        _logger.info(
            "%suploading from %s to %s as client %s",
            *(name, config.outbox_path, config.base_url, config.client_id),
        )

    def look(self) -> None:
        """Log whether this process uploads, if that has changed."""
        elected = self._client.worker.elected
        if elected is not self._elected:
            self._elected = elected
            said = "this process uploads" if elected else "another process uploads; on standby"
            _logger.info("%s%s", self._name, said)

    def report(self) -> None:
        """Log the figures, if they have changed. The worker itself logs errors."""
        from tracker.outbox import ledger

        try:
            with self._client.outbox.reading() as connection:
                book = ledger.read(connection)
        except OutboxError as error:  # a sidecar continues when a disk is full or missing
            _logger.error("%s%s", self._name, error)
            return
        if book != self._reported:
            self._reported = book
            figures = (book.delivered, book.pending, book.dead)
            _logger.info("%s%s delivered, %s pending, %s dead", self._name, *figures)

    @property
    def exit_timeout(self) -> float:
        """How many seconds it may upload at the end."""
        return self._client.config.exit_timeout

    def close(self, end: float) -> None:
        """Upload until `end` at most, on the monotonic clock, and stop."""
        result = self._client.release(self._target, max(end - monotonic(), 0))
        _logger.info("%sstopped; %s pending in the outbox", self._name, events(result.pending))


class OneOutbox:
    """The outbox of `place`, which is created if need be."""

    def __init__(self, place: Place) -> None:
        self._target = find(place, uploads=True, create=True)
        self.watched: dict[Path, _Watched] = {}
        self.refused: dict[Path, str] = {}

    def open(self) -> None:
        """Open it, unless it is open.

        Raises:
            OutboxError: if it cannot be opened.
        """
        if not self.watched:
            self.watched[self._target.path] = _Watched(self._target)

    def close(self) -> None:
        """Stop uploading, and close what is open."""
        end = monotonic() + max((each.exit_timeout for each in self.watched.values()), default=0.0)
        for each in self.watched.values():
            each.close(end)


class EveryOutbox(OneOutbox):
    """All outboxes in the folder of `place`.

    Attributes:
        refused: Why an outbox cannot be opened, by its path.
    """

    def __init__(self, place: Place) -> None:
        check_uploads(place)
        self._place, self._folder = place, folder_of(place)
        next(paths_in(self._folder), None)  # if the folder is forbidden, that is said at once
        self.watched = {}
        self.refused = {}

    def open(self) -> None:
        """Open those that are not open, and log why one cannot be opened."""
        refused = {}
        for path in self._new():
            try:
                target = to_upload(path, self._place)
                if target is not None:
                    self.watched[path] = _Watched(target, f"{path.name}: ")
            except (TrackerError, SQLAlchemyError, OSError) as error:
                refused[path] = str(error)
                if self.refused.get(path) != str(error):
                    _logger.error("%s: %s", path.name, error)
        self.refused = refused

    def _new(self) -> list[Path]:
        try:
            return list(paths_in(self._folder, known=self.watched))
        except OutboxError as error:  # a sidecar continues when a disk is missing
            _logger.error("%s", error)
            return []


def _watch(uploads: OneOutbox, stop: threading.Event) -> None:
    """Log changes until `stop` is set."""
    report_at, wait = monotonic(), 0.0
    while not stop.wait(wait):
        wait = _LOOK_SECONDS
        due = monotonic() >= report_at
        if due:
            report_at = monotonic() + _REPORT_SECONDS
            uploads.open()
        for each in uploads.watched.values():
            each.look()
            if due:
                each.report()
