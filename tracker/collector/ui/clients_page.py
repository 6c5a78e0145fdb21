"""The clients and their outboxes, those first that need a look: an operator's first page."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tracker.collector import counts
from tracker.collector.key_tables import are_valid
from tracker.collector.tables import api_keys
from tracker.collector.ui.client_source import MOST_HOLES, EveryClient
from tracker.collector.ui.sentences import COUNTING, sentence_of_all
from tracker.pages.view import Page

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.ui.completeness import Completeness
    from tracker.collector.ui.standing import Standing
    from tracker.pages.view import View

_PAGE = 50
_MOST_CHECKED = 50
_MOST_OUTBOXES = 10


@dataclass(frozen=True)
class Client:
    """A client of the list.

    Attributes:
        client_id: Its id.
        standings: What is known of its outboxes, the worst first.
    """

    client_id: str
    standings: list[Standing]


def clients(view: View) -> Page:
    """Return the page."""
    completeness = _completeness(view)
    counted = completeness.counts(None, view.stamp)
    known = completeness.standings(counted or (), _MOST_CHECKED)
    by_client = _by_client(view.connection, known)
    listed = [Client(name, found) for name, found in by_client.items()]
    first = view.position("before") or 0
    return Page("clients.html", "Clients", {
        "sentence": COUNTING if counted is None else sentence_of_all(by_client),
        "clients": listed[first : first + _PAGE],
        "most": _MOST_OUTBOXES,
        "most_holes": MOST_HOLES,
        "next": first + _PAGE if len(listed) > first + _PAGE else None,
        "is_first": first == 0,
    })  # fmt: skip


def as_json(view: View) -> dict[str, Any]:
    """Return what the page says as JSON: every outbox, the worst first."""
    completeness = _completeness(view)
    # As far as they are counted, while that is not done.
    found = completeness.counts(None, view.stamp) or counts.counts(view.connection, None)
    known = completeness.standings(found, _MOST_CHECKED)
    return {
        "sentence": sentence_of_all(_by_client(view.connection, known)).text,
        "outboxes": [_as_json(each) for each in known],
    }


def _as_json(standing: Standing) -> dict[str, Any]:
    report = standing.report
    return {
        **asdict(standing.count),
        "state": standing.state,
        "missing": standing.lost,
        "chain": None if report is None else report.chain,
        "checked_at_ms": None if report is None else report.checked_at_ms,
        "gaps": None if report is None else [each._asdict() for each in standing.holes],
    }


def _completeness(view: View) -> Completeness:
    source = view.source
    if not isinstance(source, EveryClient):
        raise TypeError("this page is about all clients")
    return source.completeness


def _by_client(connection: Connection, known: list[Standing]) -> dict[str, list[Standing]]:
    """Return the outboxes of each client, in the order of the worst of each."""
    found: dict[str, list[Standing]] = {}
    for each in known:
        found.setdefault(each.count.client_id, []).append(each)
    query = select(api_keys.c.client_id).where(
        api_keys.c.operator.is_(False), are_valid(time.time_ns() // 1_000_000)
    )
    for name in sorted(connection.execute(query.distinct()).scalars()):
        found.setdefault(name, [])
    return found
