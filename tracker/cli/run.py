"""``tracker-sync run``: a process that only uploads."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find
from tracker.cli.output import events
from tracker.clock import monotonic
from tracker.errors import OutboxError

if TYPE_CHECKING:
    from tracker.client import Client
    from tracker.outbox import Account

_LOOK_SECONDS = 1.0
_REPORT_SECONDS = 60.0

_logger = logging.getLogger("tracker.cli")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync run",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 run 2>> sync.log",
    ],
    exits={0: "ended by SIGTERM or Ctrl-C", 1: "the outbox cannot be opened"},
)
@click.pass_obj
def run(place: Place) -> None:
    """Upload in the foreground until stopped, as a sidecar.

    Creates the outbox if there is none yet, for the applications that will log to it. Logs to
    stderr. While another process uploads, it waits and takes over when that one ends. SIGTERM or
    Ctrl-C ends it in order, a second one at once.
    """
    from tracker.client import Client, connect

    target = find(place, uploads=True, create=True)
    stop = _stop_on_signals()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    client = connect(target.config, target)
    assert isinstance(client, Client)  # noqa: S101 - `find` refuses a disabled configuration
    config = client.config
    _logger.info(
        "uploading from %s to %s as client %s",
        config.outbox_path,
        config.base_url,
        config.client_id,
    )
    try:
        _watch(client, stop)
    finally:
        _logger.info("stopping")
        result = client.release(target, config.exit_timeout)
    _logger.info("stopped; %s pending in the outbox", events(result.pending))


def _stop_on_signals() -> threading.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def _watch(client: Client, stop: threading.Event) -> None:
    """Log changes until `stop` is set. The worker itself logs errors."""
    from tracker.outbox import ledger

    elected: bool | None = None
    reported: Account | None = None
    report_at, wait = monotonic(), 0.0
    while not stop.wait(wait):
        wait = _LOOK_SECONDS
        if client.worker.elected is not elected:
            elected = client.worker.elected
            _logger.info(
                "this process uploads" if elected else "another process uploads; on standby"
            )
        if monotonic() < report_at:
            continue
        report_at = monotonic() + _REPORT_SECONDS
        try:
            with client.outbox.reading() as connection:
                book = ledger.read(connection)
        except OutboxError as error:  # a sidecar continues when a disk is full or missing
            _logger.error("%s", error)
            continue
        if book != reported:
            reported = book
            _logger.info(
                "%s delivered, %s pending, %s dead", book.delivered, book.pending, book.dead
            )
