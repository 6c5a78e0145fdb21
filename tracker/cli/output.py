"""Output of commands: tables, figures and times for people, JSON for scripts."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from datetime import datetime
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_DAY = 86_400
_GAP = 2
"""Number of characters between two columns of a table."""
_FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet calculates."""
_NARROWEST = 4
"""Minimum width of a useful column of a table."""


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flag ``--json`` to a command, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def csv_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flag ``--csv`` to a command, as its argument `as_csv`."""
    return click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")(
        command
    )


def check_one_format(*, as_json: bool, as_csv: bool) -> None:
    """Refuse two formats at once.

    Raises:
        UsageError: if both are given.
    """
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")


def echo_csv(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print CSV, line by line. Missing values are empty; control characters are escaped.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    for row in chain([headings], rows):
        writer.writerow([_csv_cell(cell) for cell in row])
        click.echo(line.getvalue())
        line.seek(0)
        line.truncate()


def _csv_cell(value: object) -> str:
    text = printable(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


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
    pairs = [(printable(name), value) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:{width}}  {printable(value)}".rstrip())


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    fixed: int,
    *,
    ids: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table; on a narrow terminal, all but the first `fixed` columns are truncated.

    Args:
        headings: The names of the columns.
        rows: The cells.
        fixed: Number of columns, from the left, that are never truncated.
        ids: The columns with ids. Other columns are truncated and left out before an id is. Where
            there is no room for whole ids, they are truncated as far as they remain
            distinguishable.
        spare: Columns to leave out, in this order, if they do not fit.
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
    ids: Sequence[str],
    spare: Sequence[str],
) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    shown = layout(columns, widths, fixed, ids, spare, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, width in shown.items():
        table.add_column(headings[place], no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        # As Text, so that brackets are not markup.
        table.add_row(*(Text(row[place]) for place in shown))
    console.print(table)


def layout(
    columns: Sequence[Sequence[str]],
    widths: Sequence[int],
    fixed: int,
    ids: Sequence[str],
    spare: Sequence[str],
    room: int,
) -> dict[int, int]:
    """Return the columns for which there is room, by their place, with the width of each.

    Args:
        columns: The heading and the cells of each column.
        widths: The width that each would take.
        fixed: As in `print_table`.
        ids: As in `print_table`.
        spare: As in `print_table`.
        room: The width of the terminal.
    """
    with_ids = {place for place, column in enumerate(columns) if column[0] in ids}
    least = [
        width if place < fixed or place in with_ids else min(width, _NARROWEST)
        for place, width in enumerate(widths)
    ]
    kept = _kept(columns, least, spare, room)
    if not _fits([least[place] for place in kept], room):
        for place in with_ids:
            least[place] = telling(columns[place])
        kept = _kept(columns, least, spare, room)
    fitted = fit([widths[place] for place in kept], [least[place] for place in kept], room)
    return dict(zip(kept, fitted, strict=True))


def _kept(
    columns: Sequence[Sequence[str]], least: Sequence[int], spare: Sequence[str], room: int
) -> list[int]:
    """Return the places of the columns for which there is room, if all are narrow."""
    kept = list(range(len(columns)))
    for name in spare:
        if _fits([least[place] for place in kept], room):
            break
        kept = [place for place in kept if columns[place][0] != name]
    return kept


def _fits(widths: Sequence[int], room: int) -> bool:
    return sum(widths) + _GAP * (len(widths) - 1) <= room


def telling(column: Sequence[str]) -> int:
    """Return the width at which a column's ids differ, including the truncation sign."""
    from rich.cells import cell_len

    ids = sorted(set(column[1:]))
    shared = [0, *(_shared(*pair) for pair in pairwise(ids))]
    needed = max((cell_len(each[: max(shared) + 1]) for each in ids), default=0) + 1
    return max(len(column[0]), min(max(map(cell_len, ids), default=0), needed))


def _shared(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def fit(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return the widths of columns, reduced to fit into `room`.

    The widest of those that may give way is reduced first, down to its `least` width. If that is
    not enough, the ends of lines are truncated.
    """
    fitting = list(widths)
    while not _fits(fitting, room):
        giving = [(width, -place) for place, width in enumerate(fitting) if width > least[place]]
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
