"""``tracker-sync metrics``: metrics of the conversations, in total and per day or hour."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.days import bar, calendar, sparkline
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    counted,
    csv_option,
    echo_csv,
    echo_json,
    json_option,
    print_facts,
    print_table,
)
from tracker.cli.scores import told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tracker.queries.metrics import Metrics

_HEADINGS = ("conversations", "success", "messages", "tokens", "p95", "cost", "")
_SPARE = ("", "p95", "tokens", "messages", "success")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync metrics",
        "tracker-sync metrics --agent support-bot --since 7d",
        "tracker-sync metrics --since 2026-11-01 --until 2026-12-01 --csv > november.csv",
        "tracker-sync metrics --since 1d --step hour",
        "tracker-sync metrics --since 1d --json",
    ],
    exits={0: "shown, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--step",
    type=click.Choice(["hour", "day"]),
    default="day",
    show_default=True,
    help="Whether to show days or hours (UTC).",
)
@filter_options
@json_option
@csv_option
@click.pass_obj
def metrics(place: Place, *, step: str, wanted: Given, as_json: bool, as_csv: bool) -> None:
    """Show success, response times, tokens and cost.

    Figures are in total and by day or hour. The success rate is the number of ended conversations
    divided by that of ended and failed ones; open conversations do not count. Percentiles are
    nearest-rank. The CSV has a line for each day or hour (UTC) with events. Only events that are
    still in the outbox count; see `tracker-sync prune`.
    """
    from tracker.queries.metrics import Metrics, get_metrics

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    given = wanted.filters
    found = Metrics(agent_id=given.agent_id, since_ms=given.since_ms, until_ms=given.until_ms)
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = get_metrics(connection, wanted.whole(connection), step=step)
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    if as_json:
        steps = [{step: _name(each, step), **_as_dict(each)} for each in found.steps]
        echo_json({**_as_dict(found), "days": [], "hours": [], f"{step}s": steps})
    elif as_csv:
        lines = [_flat(each, step) for each in found.steps]
        echo_csv(_flat(Metrics(), step), (line.values() for line in lines))
    else:
        _print(found, step)


def _name(metrics: Metrics, step: str) -> str | None:
    """Return the name of a day or of an hour; None of metrics that begin with neither."""
    if metrics.since_ms is None:
        return None
    if step == "day":
        return str(metrics.day)
    return datetime.fromtimestamp(metrics.since_ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:00")


def _as_dict(metrics: Metrics) -> dict[str, Any]:
    described = {
        **vars(metrics),
        "response_time": vars(metrics.response_time),
        "scores": [vars(score) for score in metrics.scores],
    }
    del described["days"], described["hours"]
    return described


def _flat(metrics: Metrics, step: str) -> dict[str, object]:
    """Return the figures of a day or an hour with names for a table."""
    described = _as_dict(metrics)
    times, scores = described.pop("response_time"), described.pop("quality_distribution")
    for name in ("agent_id", "since_ms", "until_ms", "outcomes", "scores"):
        del described[name]
    return {
        step: _name(metrics, step),
        **described,
        **{f"response_time_{name}": value for name, value in times.items()},
        **{f"quality_{score}": scores.get(score, 0) for score in range(1, 6)},
    }


def _print(found: Metrics, step: str) -> None:
    print_facts(_facts(found))
    steps = without_holes(found.days) if step == "day" else found.hours
    if steps:
        click.echo()
        most = max(each.conversations for each in steps)
        rows = [(_name(each, step), *_cells(each, most)) for each in steps]
        print_table((f"{step} (UTC)", *_HEADINGS), rows, fixed=7, spare=_SPARE)


def _facts(found: Metrics) -> list[tuple[str, str]]:
    times = found.response_time
    facts = [
        ("conversations", f"{found.conversations:,}, of them open {found.open:,}"),
        ("success", f"{_percent(found.success_rate)}: {found.ended:,} ended"),
        ("failed sessions", f"{found.failed:,}"),
        ("messages", f"{found.messages:,}, and {counted(found.tool_calls, 'tool call')}"),
        ("tokens", f"{found.tokens_used:,} of messages, {found.llm_tokens:,} of model calls"),
        ("cost", _cost_of_calls(found)),
    ]
    if times.count:
        measured = (times.mean_ms, times.p50_ms, times.p95_ms, times.p99_ms)
        mean, *percentiles = map(_milliseconds, measured)
        said = ", ".join(f"p{n} {p}" for n, p in zip((50, 95, 99), percentiles, strict=True))
        facts.append(("response time", f"mean {mean}, {said}, of {times.count:,}"))
    if found.quality_mean is not None:
        scores = found.quality_distribution
        said = "  ".join(f"{score}: {scores[score]:,}" for score in sorted(scores))
        shape = sparkline([scores[score] for score in sorted(scores)])
        facts.append(("quality", f"mean {found.quality_mean:.2f}  {shape}  {said}"))
    facts += [(f"score {one.name}", f"{told(one)}, of {one.count:,}") for one in found.scores]
    if found.outcomes:
        counts = ", ".join(f"{name} {count:,}" for name, count in found.outcomes.items())
        facts.append(("outcomes", counts))
    return facts


def _cells(day: Metrics, most: int) -> tuple[object, ...]:
    return (
        f"{day.conversations:,}",
        _percent(day.success_rate),
        f"{day.messages:,}",
        f"{day.tokens_used:,}",
        _milliseconds(day.response_time.p95_ms),
        cost(day.cost_usd, day.unpriced),
        bar(day.conversations, most),
    )


def without_holes(days: Sequence[Metrics]) -> list[Metrics]:
    """Return the days, including those without events, unless there are too many."""
    by_day = {day.day: day for day in days if day.day is not None}
    return [by_day.get(day) or _nothing_on(day) for day in calendar(by_day)]


def _nothing_on(day: date) -> Metrics:
    from tracker.queries.metrics import Metrics

    midnight = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
    return Metrics(since_ms=int(midnight.timestamp() * 1000))


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _cost_of_calls(found: Metrics) -> str:
    said = f"{cost(found.cost_usd, found.unpriced)} for {counted(found.llm_calls, 'model call')}"
    return said + (f"; {found.unpriced:,} of unknown cost" if found.unpriced else "")


def cost(dollars: float | None, unpriced: int) -> str:
    """Return a text for US dollars, with a plus sign if there are `unpriced` calls."""
    if dollars is None:
        return "-"
    return f"${dollars:,.4f}" + ("+" if unpriced else "")
