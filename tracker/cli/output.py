"""What commands print: tables, figures and times for people, JSON for scripts."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console

_PIPE_WIDTH = 10_000
"""Columns of output that is no terminal's: nothing is cut off for the program that reads it."""

_DAY = 86_400


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flag ``--json``, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def echo_json(value: object) -> None:
    """Print `value` as indented JSON."""
    click.echo(to_json(value))


def to_json(value: object) -> str:
    """Return `value` as indented JSON; what JSON does not know, damaged bytes say, as text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=repr)


def printable(value: object) -> str:
    """Return `value` as one line that cannot steer the terminal: events hold anybody's text."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Return text of several lines in which nothing but the line ends is a control character."""
    return "\n".join(map(printable, text.split("\n")))


def moment(milliseconds: object) -> str:
    """Return Unix milliseconds as local time; what is no time, as it is."""
    if milliseconds is None:
        return "never"
    try:
        return f"{datetime.fromtimestamp(int(milliseconds) // 1000):%Y-%m-%d %H:%M:%S}"  # type: ignore[call-overload]  # a damaged row holds any type
    except (TypeError, ValueError, OverflowError, OSError):
        return printable(milliseconds)


def ago(milliseconds: int | None) -> str:
    """Return Unix milliseconds as local time and how long that is ago, or ahead."""
    if milliseconds is None:
        return "never"
    seconds = time.time() - milliseconds / 1000
    relation = "ago" if seconds >= 0 else "from now"
    return f"{moment(milliseconds)} ({duration(abs(seconds))} {relation})"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
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
    return f"{number:,} event{'' if number == 1 else 's'}"


def console() -> Console:
    """Return the console for stdout."""
    from rich.console import Console

    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = _PIPE_WIDTH
    return found


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:{width}}  {printable(value)}".rstrip())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], fixed: int) -> None:
    """Print a table; on a narrow terminal all but the first `fixed` columns are cut short."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        first = index < fixed
        table.add_column(heading, no_wrap=True, overflow="fold" if first else "ellipsis")
        if first:
            table.columns[-1].min_width = len(heading)
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row))
    console().print(table)
