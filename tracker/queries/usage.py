"""What the models cost: tokens and dollars of the stored ``llm.used`` events."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class LLMUsage:
    """What a model, an agent, a session or a day used.

    Attributes:
        key: The model's name, the agent's or session's id, or the UTC day as ``"2026-11-23"``;
            None for the calls that named none.
        calls: Number of calls to a model.
        prompt_tokens: Tokens sent, those from the provider's cache included.
        completion_tokens: Tokens received.
        total_tokens: Both.
        cached_tokens: Of the prompt tokens, those from the provider's cache, as far as reported.
        cost_usd: US dollars of the calls whose cost is known; None if none is.
        unpriced: Number of calls whose cost is not known, and so not in `cost_usd`.
    """

    key: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    cost_usd: float | None
    unpriced: int


_KEYS = {
    "model": "json_extract(data, '$.model')",
    "agent": "agent_id",
    "session": "session_id",
    "day": "date(timestamp_ms / 1000, 'unixepoch')",
}
BY = tuple(_KEYS)
"""What usage can be summed by."""

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
_FIELDS = ", ".join(f"json_extract(data, '$.{name}') AS {name}" for name in ("cost_usd", *_COUNTS))

# SQLite gives up on a sum beyond 64 bits; its halves cannot get there.
_SUMS = ", ".join(f"sum({name} >> 32), sum({name} & 4294967295)" for name in _COUNTS)

# An erased event has no figures left, and a damaged one none to trust. The LIMIT keeps SQLite from
# moving the inner query into the outer one, where each use of a field would search the JSON again:
# that takes twice as long.
_USAGE = f"""
SELECT key, count(*), sum(cost_usd), sum(cost_usd IS NULL), {_SUMS}
FROM (SELECT {{key}} AS key, {_FIELDS} FROM events
      WHERE type = 'llm.used' AND timestamp_ms >= ? AND json_valid(data) LIMIT -1)
WHERE total_tokens IS NOT NULL
GROUP BY key
"""


def usage(connection: Connection, by: str, since_ms: int | None) -> list[LLMUsage]:
    """Return the usage by one of `BY`: days in order, anything else by most tokens first."""
    rows = connection.exec_driver_sql(_USAGE.format(key=_KEYS[by]), (since_ms or 0,)).all()
    found = [_usage(*row) for row in rows]
    if by == "day":
        return sorted(found, key=lambda one: one.key or "")
    return sorted(found, key=lambda one: (-one.total_tokens, one.key or ""))


def _usage(
    key: str | None, calls: int, cost_usd: float | None, unpriced: int, *halves: int | None
) -> LLMUsage:
    prompt, completion, total, cached = (
        ((high or 0) << 32) + (low or 0)
        for high, low in zip(halves[::2], halves[1::2], strict=True)
    )
    return LLMUsage(key, calls, prompt, completion, total, cached, cost_usd, unpriced)
