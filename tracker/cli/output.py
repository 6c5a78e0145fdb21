"""Output of commands: tables, figures and times for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_DAY = 86_400
_GAP = 2
"""Number of characters between two columns of a table."""
_NARROWEST = 4
"""Minimum width of a useful column of a table."""


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flag ``--json`` to a command, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def echo_json(value: object) -> None:
    """Print `value` as indented JSON."""
    click.echo(to_json(value))


def to_json(value: object, indent: int | None = 2) -> str:
    """Return `value` as ASCII JSON, indented or in one line; bytes of a damaged row become text.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    return json.dumps(value, indent=indent, default=repr, allow_nan=False)


def printable(value: object) -> str:
    """Return `value` as one line without control characters, since events may contain any text."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Return text of several lines without control characters other than the line ends."""
    return "\n".join(map(printable, text.split("\n")))


def moment(milliseconds: object) -> str:
    """Return Unix milliseconds as local time; other values unchanged."""
    if milliseconds is None:
        return "never"
    try:
        return f"{datetime.fromtimestamp(int(milliseconds) // 1000):%Y-%m-%d %H:%M:%S}"  # type: ignore[call-overload]  # a damaged row may have any type
    except (TypeError, ValueError, OverflowError, OSError):
        return printable(milliseconds)


def ago(milliseconds: object) -> str:
    """Return Unix milliseconds as local time, and how long ago or ahead it is."""
    if not isinstance(milliseconds, int):  # a damaged row may have any type
        return moment(milliseconds)
    seconds = time.time() - milliseconds / 1000
    relation = "ago" if seconds >= 0 else "from now"
    return f"{moment(milliseconds)} ({duration(abs(seconds))} {relation})"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = int(seconds)
    parts = [
        (whole // _DAY, "d"),
        (whole % _DAY // 3600, "h"),
        (whole % 3600 // 60, "min"),
        (whole % 60, "s"),
    ]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])


def size(number: int) -> str:
    """Return a number of bytes in a readable unit."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def events(number: int) -> str:
    """Return "1 event" or "1,234 events"."""
    return counted(number, "event")


def counted(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair per line."""
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:{width}}  {printable(value)}".rstrip())


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    fixed: int,
    *,
    ids: int = 0,
    spare: Sequence[str] = (),
) -> None:
    """Print a table; on a narrow terminal, all but the first `fixed` columns are truncated.

    Args:
        headings: The names of the columns.
        rows: The cells.
        fixed: Number of columns, from the left, that are never truncated.
        ids: Number of columns, from the right, with ids, which are truncated only as far as they
            remain distinguishable.
        spare: Columns to leave out, in this order, before ids are truncated further.
    """
    cells = [[printable(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_on_terminal(headings, cells, fixed, ids, spare)
    else:
        _print_to_program(headings, cells)


def _print_on_terminal(
    headings: Sequence[str],
    cells: list[list[str]],
    fixed: int,
    ids: int,
    spare: Sequence[str],
) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    columns = list(zip(headings, *cells, strict=True))
    kept = _kept(columns, fixed, ids, spare, console.width)
    columns = [columns[place] for place in kept]
    fixed = sum(place < fixed for place in kept)
    headings, *cells = map(list, zip(*columns, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = [_NARROWEST] * len(columns)
    if ids:
        least[-ids:] = [telling(column) for column in columns[-ids:]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, width in zip(
        headings, fit(widths, fixed, console.width, least if ids else ()), strict=True
    ):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        table.add_row(*map(Text, row))  # as Text, so that brackets are not markup
    console.print(table)


def _kept(
    columns: Sequence[Sequence[str]], fixed: int, ids: int, spare: Sequence[str], room: int
) -> list[int]:
    """Return the indexes of the columns for which there is room."""
    from rich.cells import cell_len

    least = [max(map(cell_len, column)) for column in columns]
    least[fixed:] = [_NARROWEST] * (len(columns) - fixed)
    if ids:
        least[-ids:] = [telling(column) for column in columns[-ids:]]
    kept = list(range(len(columns)))
    for name in spare:
        if sum(least[place] for place in kept) + _GAP * (len(kept) - 1) <= room:
            break
        kept = [place for place in kept if columns[place][0] != name]
    return kept


def telling(column: Sequence[str]) -> int:
    """Return the width at which a column's ids differ, including the truncation sign."""
    ids = sorted(set(column[1:]))
    shared = [_shared(*pair) for pair in pairwise(ids)]
    longest = max(map(len, ids), default=0)
    return max(len(column[0]), min(longest, max(shared, default=0) + 2))


def _shared(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def fit(widths: Sequence[int], fixed: int, room: int, least: Sequence[int] = ()) -> list[int]:
    """Return the widths of columns, reduced to fit into `room` except for the first `fixed` ones.

    The widest is reduced first, down to its `least` width. If that is not enough, the ends of lines
    are truncated.
    """
    fitting = list(widths)
    while sum(fitting) + _GAP * (len(fitting) - 1) > room:
        giving = [
            (width, -place)
            for place, width in enumerate(fitting)
            if place >= fixed and width > (least[place] if least else _NARROWEST)
        ]
        if not giving:
            break
        fitting[-max(giving)[1]] -= 1
    return fitting


def _print_to_program(headings: Sequence[str], cells: list[list[str]]) -> None:
    """Print the complete table, a hundred times faster than rich does."""
    lines = [list(headings), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
