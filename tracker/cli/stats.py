"""``tracker-sync stats``: an outbox's figures, for monitoring."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place, extra
from tracker.cli.context import find, opened_to_read, uploader_runs
from tracker.cli.output import ago, duration, echo_json, json_option, print_facts, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracker.outbox import OutboxStatus

_REASONS = ("memory_buffer", "operator", "size_policy")
"""Why events may have been discarded: named with 0 too, so that an alert can watch each."""


@dataclass(frozen=True)
class Stats:
    """An outbox's figures at one moment. Counters only ever grow in one outbox.

    Attributes:
        client_id: Whose it is; empty if there is none.
        accepted: Events that logging calls handed over. A counter, as the next two are.
        delivered: Events that a receipt says are stored.
        discarded: Events that were given up on purpose, by reason.
        pending: Events that wait to be sent.
        dead: Events that the server refused for good, and that are kept.
        oldest_pending_age_seconds: Since the oldest of the pending was logged; 0 without any.
        size_bytes: Bytes of the outbox's files.
        used_bytes: Bytes of the pages in use.
        last_success_timestamp_seconds: When a receipt last came, Unix seconds; 0 if never.
        backoff_seconds: Until the next attempt to upload; 0 when there is no pause.
        uploader_running: Whether a process uploads from it.
    """

    client_id: str
    accepted: int
    delivered: int
    discarded: Mapping[str, int]
    pending: int
    dead: int
    oldest_pending_age_seconds: float
    size_bytes: int
    used_bytes: int
    last_success_timestamp_seconds: float
    backoff_seconds: float
    uploader_running: bool


@click.command(
    cls=Command,
    examples=[
        "tracker-sync stats",
        "tracker-sync stats --prometheus",
        "tracker-sync stats --json | jq .pending",
    ],
    exits={0: "shown, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--prometheus",
    "as_metrics",
    is_flag=True,
    help="Print OpenMetrics text; needs the extra [prometheus].",
)
@json_option
@click.pass_obj
def stats(place: Place, *, as_metrics: bool, as_json: bool) -> None:
    """Show an outbox's figures, for monitoring.

    Cheap in an outbox of any size. Needs no API key and asks no server. An outbox that is not there
    yet has 0 for everything.
    """
    from tracker.outbox import status

    if as_metrics and as_json:
        raise click.UsageError("give --prometheus or --json, not both")
    target = find(place)
    found, files, running = status.OutboxStatus(), {}, False
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = status.read(connection)
        files, running = status.file_sizes(target.path), uploader_runs(target.path)
    figures = figures_of(found, sum(files.values()), time.time(), running=running)
    if as_metrics:
        click.echo(openmetrics(figures), nl=False)
    elif as_json:
        echo_json(vars(figures))
    elif not target.exists:
        click.echo(target.absence)
    else:
        print_facts(_facts(figures))


def figures_of(found: OutboxStatus, size_bytes: int, now: float, *, running: bool) -> Stats:
    """Return the figures of an outbox that stood so at `now`, Unix seconds."""
    book, sync = found.account, found.sync
    age = backoff = 0.0
    if isinstance(found.oldest_pending_ms, int):  # a damaged row holds any type
        age = max(now - found.oldest_pending_ms / 1000, 0.0)
    if book.pending and sync.next_attempt_ms is not None:
        backoff = max(sync.next_attempt_ms / 1000 - now, 0.0)
    return Stats(
        client_id=found.owner.client_id if found.owner else "",
        accepted=book.accepted,
        delivered=book.delivered,
        discarded={**dict.fromkeys(_REASONS, 0), **book.discarded},
        pending=book.pending,
        dead=book.dead,
        oldest_pending_age_seconds=round(age, 3),
        size_bytes=size_bytes,
        used_bytes=found.used_bytes,
        last_success_timestamp_seconds=(sync.last_success_ms or 0) / 1000,
        backoff_seconds=round(backoff, 3),
        uploader_running=running,
    )


def openmetrics(figures: Stats) -> str:
    """Return the figures as OpenMetrics text, by Prometheus' naming conventions.

    See https://prometheus.io/docs/practices/naming/ for these.
    """
    with extra("prometheus"):
        from prometheus_client import CollectorRegistry
        from prometheus_client.openmetrics.exposition import generate_latest

    class Collector:
        def collect(self) -> Iterator[Any]:
            return _families(figures)

    registry = CollectorRegistry()
    registry.register(Collector())
    text: bytes = generate_latest(registry)
    return text.decode()


def _families(figures: Stats) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = [figures.client_id]
    for name, text, value in (
        ("accepted", "Events that logging calls handed over.", figures.accepted),
        ("delivered", "Events that a receipt says are stored.", figures.delivered),
    ):
        counter = CounterMetricFamily(f"tracker_outbox_{name}_events", text, labels=["client_id"])
        counter.add_metric(labels, value)
        yield counter
    discarded = CounterMetricFamily(
        "tracker_outbox_discarded_events",
        "Events that were given up on purpose.",
        labels=["client_id", "reason"],
    )
    for reason, events in sorted(figures.discarded.items()):
        discarded.add_metric([*labels, reason], events)
    yield discarded
    for name, text in _GAUGES.items():
        gauge = GaugeMetricFamily(f"tracker_outbox_{name}", text, labels=["client_id"])
        gauge.add_metric(labels, float(getattr(figures, name.removesuffix("_events"))))
        yield gauge


_GAUGES = {
    "pending_events": "Events that wait to be sent.",
    "dead_events": "Events that the server refused for good, and that are kept.",
    "oldest_pending_age_seconds": "Since the oldest pending event was logged; 0 without any.",
    "size_bytes": "Size of the outbox's files.",
    "used_bytes": "Size of the pages in use.",
    "last_success_timestamp_seconds": "When a receipt last came, Unix time; 0 if never.",
    "backoff_seconds": "Until the next attempt to upload; 0 when there is no pause.",
    "uploader_running": "Whether a process uploads from the outbox.",
}


def _facts(figures: Stats) -> list[tuple[str, str]]:
    last = figures.last_success_timestamp_seconds
    return [
        ("client", figures.client_id),
        ("accepted", f"{figures.accepted:,}"),
        ("delivered", f"{figures.delivered:,}"),
        ("pending", f"{figures.pending:,}"),
        ("oldest pending", duration(figures.oldest_pending_age_seconds)),
        ("dead", f"{figures.dead:,}"),
        *((f"discarded, {reason}", f"{n:,}") for reason, n in sorted(figures.discarded.items())),
        ("on disk", f"{size(figures.size_bytes)}, of it in use {size(figures.used_bytes)}"),
        ("last success", ago(int(last * 1000) or None)),
        ("next attempt in", duration(figures.backoff_seconds)),
        ("uploader", "running" if figures.uploader_running else "not running"),
    ]
