"""``tracker-sync stats``: figures of an outbox for monitoring."""

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

_REASONS = ("hook", "memory_buffer", "operator", "size_policy")
"""Reasons for discarding events: reported even if 0, so that alerts can use each of them."""


@dataclass(frozen=True)
class Stats:
    """Figures of an outbox at one moment.

    Counters never decrease in an outbox, except for `delivered` when `tracker-sync resend` makes
    delivered events pending again.

    Attributes:
        client_id: The client id; empty if there is no outbox.
        accepted: Number of events accepted from logging calls. A counter, like the next two.
        delivered: Number of events that a receipt says are stored.
        discarded: Number of discarded events by reason.
        skipped: Number of events of types that are not sent. A counter.
        pending: Number of pending events.
        dead: Number of dead letters.
        oldest_pending_age_seconds: Age of the oldest pending event; 0 if there is none.
        size_bytes: Size of the outbox's files in bytes.
        used_bytes: Size of the pages in use in bytes.
        last_success_timestamp_seconds: Time of the last receipt in Unix seconds; 0 if never.
        backoff_seconds: Time until the next upload attempt; 0 if there is no pause.
        uploader_running: Whether a process uploads from it.
    """

    client_id: str
    accepted: int
    delivered: int
    discarded: Mapping[str, int]
    skipped: int
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
    """Show figures of an outbox for monitoring.

    This is cheap for an outbox of any size, and needs neither an API key nor a server. If there is
    no outbox yet, all figures are 0.
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
    """Return the figures of an outbox with this status at `now`, Unix seconds."""
    book, sync = found.account, found.sync
    age = backoff = 0.0
    if isinstance(found.oldest_pending_ms, int):  # a damaged row may have any type
        age = max(now - found.oldest_pending_ms / 1000, 0.0)
    if book.pending and sync.next_attempt_ms is not None:
        backoff = max(sync.next_attempt_ms / 1000 - now, 0.0)
    return Stats(
        client_id=found.owner.client_id if found.owner else "",
        accepted=book.accepted,
        delivered=book.delivered,
        discarded={**dict.fromkeys(_REASONS, 0), **book.discarded},
        skipped=book.skipped,
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
    """Return the figures as OpenMetrics text, following Prometheus' naming conventions.

    See https://prometheus.io/docs/practices/naming/.
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
        ("accepted", "Events accepted from logging calls.", figures.accepted),
        ("delivered", "Events that a receipt says are stored.", figures.delivered),
        ("skipped", "Events of types that are not sent.", figures.skipped),
    ):
        counter = CounterMetricFamily(f"tracker_outbox_{name}_events", text, labels=["client_id"])
        counter.add_metric(labels, value)
        yield counter
    discarded = CounterMetricFamily(
        "tracker_outbox_discarded_events",
        "Events that were discarded.",
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
    "pending_events": "Pending events.",
    "dead_events": "Dead letters: events that the server permanently rejected.",
    "oldest_pending_age_seconds": "Age of the oldest pending event; 0 if there is none.",
    "size_bytes": "Size of the outbox's files.",
    "used_bytes": "Size of the pages in use.",
    "last_success_timestamp_seconds": "Time of the last receipt, Unix time; 0 if never.",
    "backoff_seconds": "Time until the next upload attempt; 0 if there is no pause.",
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
        ("skipped", f"{figures.skipped:,}"),
        ("on disk", f"{size(figures.size_bytes)}, {size(figures.used_bytes)} of it in use"),
        ("last success", ago(int(last * 1000) or None)),
        ("next attempt in", duration(figures.backoff_seconds)),
        ("uploader", "running" if figures.uploader_running else "not running"),
    ]
