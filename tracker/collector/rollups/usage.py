"""Usage from roll-ups: the same figures as those of `queries.usage`."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sqlalchemy import collate, func, select

from tracker.collector.rollups.tables import TOKENS, rolled_sessions, rolled_usage
from tracker.queries.figures import DAY_MS, day_name
from tracker.queries.model_calls import model_calls
from tracker.queries.reads import Usages, part_of
from tracker.queries.usage import LLMUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, FromClause, Select

    from tracker.collector.rollups.coverage import Covered
    from tracker.queries.filters import Filters
    from tracker.queries.model_calls import ModelCall

_KEYS = {"model": "model", "agent": "agent_id", "session": "session_id", "day": "day"}
_SUMS = ("calls", *TOKENS, "cost_usd", "priced")


def usage(
    connection: Connection,
    covered: Covered,
    by: str,
    wanted: Filters,
    events: FromClause,
    offset: int,
    limit: int | None,
) -> Usages | None:
    """Return a part of a client's usage by one of `queries.usage.BY`.

    None if only the events tell: the days before 1970 are rolled up as one.
    """
    spans = list(model_calls(connection, events, wanted.conditions(events)))
    if by == "session" and not spans:  # there may be too many sessions for memory
        return _of_sessions(connection, covered, wanted, offset, limit)
    sums = defaultdict[Any, _Sums](_Sums)
    for key, *row in connection.execute(_query(covered, by, wanted)):
        if by == "day" and key < 0:
            return None
        sums[key].add(row)
    for call in spans:
        sums[_key_of(by, call)].add(_row_of(call))
    found = [each.usage(day_name(key) if by == "day" else key) for key, each in sums.items()]
    if by == "day":
        found.sort(key=lambda one: one.key or "")
    else:
        found.sort(key=lambda one: (-one.total_tokens, one.key or ""))
    return part_of(found, offset, limit)


def _of_sessions(
    connection: Connection, covered: Covered, wanted: Filters, offset: int, limit: int | None
) -> Usages:
    query = _query(covered, "session", wanted)
    key, total = query.selected_columns[0], query.selected_columns[1 + _SUMS.index("total_tokens")]
    ordered = query.add_columns(func.count().over()).order_by(
        total.desc(), collate(func.coalesce(key, ""), "C")
    )
    rows = connection.execute(ordered.offset(offset).limit(limit)).all()
    found = []
    for key, *row, _ in rows:
        sums = _Sums()
        sums.add(row)
        found.append(sums.usage(key))
    return Usages(found, rows[0][-1] if rows else 0)


def _query(covered: Covered, by: str, wanted: Filters) -> Select[Any]:
    rows = covered.rows(rolled_sessions if by == "session" else rolled_usage, wanted)
    counted = rows.c.calls > 0 if by == "session" else rows.c.counted
    key = rows.c[_KEYS[by]]
    sums = (func.sum(rows.c[name]) for name in _SUMS)
    return select(key, *sums).where(counted).group_by(key)


class _Sums:
    """The sums of calls with the same key."""

    def __init__(self) -> None:
        self._numbers = [0] * len(_SUMS)
        self._cost: Any = None

    def add(self, row: Iterable[Any]) -> None:
        """Add a row of `_SUMS`."""
        for place, (name, value) in enumerate(zip(_SUMS, row, strict=True)):
            if name != "cost_usd":
                self._numbers[place] += int(value or 0)
            elif value is not None:
                self._cost = (self._cost or 0) + Fraction(value)

    def usage(self, key: str | None) -> LLMUsage:
        """Return their usage."""
        calls, prompt, completion, total, cached, written, _, priced = self._numbers
        cost_usd = None if self._cost is None else float(self._cost)
        return LLMUsage(
            key, calls, prompt, completion, total, cached, cost_usd, calls - priced, written
        )


def _row_of(call: ModelCall) -> list[Any]:
    priced = call.cost_usd is not None
    return [1, *(getattr(call, name) for name in TOKENS), call.cost_usd, priced]


def _key_of(by: str, call: ModelCall) -> Any:
    return call.timestamp_ms // DAY_MS if by == "day" else getattr(call, _KEYS[by])
