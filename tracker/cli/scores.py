"""``tracker-sync scores``: what users, reviewers and programs thought."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    csv_option,
    echo_csv,
    echo_json,
    json_option,
    print_table,
)

if TYPE_CHECKING:
    from tracker.queries.scores import Score, ScoreSummary

_BY = ("name", "day", "release")
_HEADINGS = ("score", "count", "mean", "min", "max", "true", "categories")
_SPARE = ("min", "max", "true", "categories", "count")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync scores",
        "tracker-sync scores --by day --since 30d",
        "tracker-sync scores --by release --agent support-bot --json",
        "tracker-sync scores --csv > scores.csv",
    ],
    exits={0: "shown, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--by", type=click.Choice(_BY), default="name", show_default=True, help="What to sum up by."
)
@filter_options
@json_option
@csv_option
@click.pass_obj
def scores(place: Place, by: str, *, wanted: Given, as_json: bool, as_csv: bool) -> None:
    """Show scores by name, day or release.

    Numbers have mean, minimum and maximum, True and False the share of True, categories their
    counts. Feedback is the score "feedback". Days are UTC days. Only events that are still in the
    outbox count; see `tracker-sync prune`.
    """
    from tracker.queries import scores as queries

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found: list[ScoreSummary] = []
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = queries.get_scores(connection, by, wanted.whole(connection))
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    if as_json:
        echo_json([_as_dict(one, by) for one in found])
    elif as_csv:
        names = [item.name for item in fields(queries.ScoreSummary)]
        heading = [] if by == "name" else [by]
        echo_csv([*heading, *names[1:]], (_as_dict(one, by).values() for one in found))
    elif found:
        headings = _HEADINGS if by == "name" else (f"{by} (UTC)" if by == "day" else by, *_HEADINGS)
        rows = [_cells(one, by) for one in found]
        print_table(headings, rows, fixed=len(headings) - 1, spare=_SPARE)
    else:
        click.echo("no such scores")


def _as_dict(one: ScoreSummary, by: str) -> dict[str, object]:
    described: dict[str, object] = dict(vars(one))
    key = described.pop("key")
    return described if by == "name" else {by: key, **described}


def _cells(one: ScoreSummary, by: str) -> tuple[str, ...]:
    cells = (one.name, f"{one.count:,}", *figures(one))
    return cells if by == "name" else ("none" if one.key is None else one.key, *cells)


def figures(one: ScoreSummary) -> tuple[str, ...]:
    """Return mean, minimum, maximum, share of True and categories of a summary as texts."""
    numbers = (one.mean, one.min, one.max)
    return (
        *("-" if number is None else f"{number:,.4g}" for number in numbers),
        "-" if one.true_share is None else f"{one.true_share:.1%}",
        ", ".join(f"{category} {count:,}" for category, count in one.categories.items()) or "-",
    )


def told(one: ScoreSummary) -> str:
    """Return a summary as text, as in ``mean 4.2 (1 to 5)`` or ``75.0% true``."""
    mean, least, most, true, categories = figures(one)
    said = []
    if one.numbers:
        said.append(f"mean {mean} ({least} to {most})")
    if one.booleans:
        said.append(f"{true} true")
    if one.categories:
        said.append(categories)
    return "; ".join(said)


def line(score: Score) -> str:
    """Return a score as text, as in ``score helpful: 4 (reviewer), quite good``."""
    said = [f"score {score.name}"]
    if score.value is not None:
        value = score.value
        said.append(
            f": {str(value).lower() if isinstance(value, bool) else value}"
            if isinstance(value, (bool, str))
            else f": {value:g}"
        )
    if score.source is not None:
        said.append(f" ({score.source})")
    if score.comment is not None:
        said.append(f": {score.comment}" if score.value is None else f", {score.comment}")
    return "".join(said)
