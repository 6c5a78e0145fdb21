"""``tracker-sync usage``: tokens and cost of model calls."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.days import bar, calendar
from tracker.cli.filters import Given, filter_options
from tracker.cli.metrics import cost
from tracker.cli.output import (
    check_one_format,
    csv_option,
    echo_csv,
    echo_json,
    json_option,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.queries.usage import LLMUsage

_BY = ("model", "agent", "session", "day")
_FIGURES = (
    *("calls", "unpriced"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"),
    "cache_write_tokens",
)
_WHY = "the price list did not know the model, or the extra [cost] was not installed; give cost_usd"
_HEADINGS = ("calls", "prompt", "cached", "written", "completion", "total", "cost", "")
_SPARE = ("", "written", "cached", "completion", "prompt", "calls", "cost", "total")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync usage",
        "tracker-sync usage --by day --since 30d",
        "tracker-sync usage --by agent --csv > usage.csv",
        "tracker-sync usage --by session --since 2026-11-01 --json",
    ],
    exits={0: "shown, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--by", type=click.Choice(_BY), default="model", show_default=True, help="What to sum by."
)
@filter_options
@json_option
@csv_option
@click.pass_obj
def usage(place: Place, by: str, *, wanted: Given, as_json: bool, as_csv: bool) -> None:
    """Show tokens and cost of model calls, by model, agent or day.

    Days are UTC days in order; other groups are sorted by tokens, the most first. A cost with a
    plus sign covers only some of the calls: that of the others is unknown. Only events that are
    still in the outbox count; see `tracker-sync prune`.
    """
    from tracker.queries import usage as queries

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found: list[LLMUsage] = []
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = queries.usage(connection, by, wanted.whole(connection))
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    if as_json:
        echo_json([_as_dict(one, by) for one in found])
    elif as_csv:
        names = [item.name for item in fields(queries.LLMUsage)]
        echo_csv([by, *names[1:]], (_as_dict(one, by).values() for one in found))
    elif found:
        _print(found, by)
    else:
        click.echo("no such model calls")


def _as_dict(one: LLMUsage, by: str) -> dict[str, object]:
    described: dict[str, object] = dict(vars(one))
    return {by: described.pop("key"), **described}


def _print(found: Sequence[LLMUsage], by: str) -> None:
    shown = _with_every_day(found) if by == "day" else list(found)
    most = max(one.total_tokens for one in shown)
    rows = [(*_cells(one), bar(one.total_tokens, most)) for one in shown]
    if len(found) > 1:
        rows.append((*_cells(_sum(found)), ""))
    headings = (by + " (UTC)" if by == "day" else by, *_HEADINGS)
    print_table(headings, rows, fixed=8, ids=(by,), spare=_SPARE)
    unpriced = sum(one.unpriced for one in found)
    if unpriced:
        click.echo(
            f"\nno cost is known for {unpriced:,} call{'' if unpriced == 1 else 's'}: {_WHY}"
        )


def _cells(one: LLMUsage) -> tuple[str, ...]:
    return (
        "unknown" if one.key is None else one.key,
        f"{one.calls:,}",
        f"{one.prompt_tokens:,}",
        f"{one.cached_tokens:,}",
        f"{one.cache_write_tokens:,}",
        f"{one.completion_tokens:,}",
        f"{one.total_tokens:,}",
        cost(one.cost_usd, one.unpriced),
    )


def _with_every_day(found: Sequence[LLMUsage]) -> list[LLMUsage]:
    by_day = {date.fromisoformat(one.key): one for one in found if one.key is not None}
    return [by_day.get(day) or _nothing(str(day)) for day in calendar(by_day)]


def _sum(found: Sequence[LLMUsage]) -> LLMUsage:
    from tracker.queries.figures import known_sum
    from tracker.queries.usage import LLMUsage

    cost_usd, _ = known_sum(one.cost_usd for one in found)
    figures = {name: sum(getattr(one, name) for one in found) for name in _FIGURES}
    return LLMUsage("all", **figures, cost_usd=cost_usd)


def _nothing(key: str) -> LLMUsage:
    from tracker.queries.usage import LLMUsage

    return LLMUsage(key, **dict.fromkeys(_FIGURES, 0), cost_usd=None)
