"""``tracker-sync trace``: the spans of a trace, with a bar for the time that each took."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import existing, opened_to_read
from tracker.cli.output import (
    counted,
    duration,
    echo_json,
    json_option,
    moment,
    printable,
    printable_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker.queries.traces import Trace, TraceEvent, TraceSpan

_NARROWEST_BAR = 10
_TIME_WIDTH = 9
_MOST_TEXT = 200
_SECOND, _MINUTE = 1_000, 60_000


@dataclass(frozen=True)
class _Signs:
    """The characters of a drawing."""

    branch: str
    last: str
    line: str
    bar: str
    point: str


_DRAWN = _Signs("├─ ", "└─ ", "│  ", "█", "·")
_ASCII = _Signs("|- ", "`- ", "|  ", "#", ".")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "tracker-sync trace --last",
        "tracker-sync trace 4bf92f35 --no-content",
        "tracker-sync trace --last --json",
    ],
    exits={0: "shown", 1: "there is no such trace, or the outbox cannot be read"},
)
@click.argument("trace_id", required=False)
@click.option("--last", is_flag=True, help="The trace of the newest event that has one.")
@click.option("--no-content", is_flag=True, help="Leave out messages, errors and tracebacks.")
@json_option
@click.pass_obj
def trace(
    place: Place, trace_id: str | None, *, last: bool, no_content: bool, as_json: bool
) -> None:
    """Show the spans of a trace, and what was logged in them.

    Each has a bar for the time that it took. TRACE_ID is the trace's id, or a unique beginning
    of it. At most the newest 10,000 events of a trace are shown.
    """
    if last == (trace_id is not None):
        raise click.UsageError("give a TRACE_ID, or --last for the newest one")
    from tracker.outbox import browse
    from tracker.queries.traces import get_trace

    with opened_to_read(existing(place)) as outbox, outbox.snapshot() as connection:
        if trace_id is None:
            found = browse.newest_trace(connection)
        else:
            found = browse.complete_trace(connection, trace_id)
        whole = None if found is None else get_trace(connection, found)
        if whole is None:
            named = "no trace" if trace_id is None else f"no trace {printable(trace_id)}"
            raise click.ClickException(
                f"there is {named} in {outbox.path}; if it was delivered, it may have been pruned"
            )
    if as_json:
        echo_json(_as_dict(whole, content=not no_content))
    else:
        _print(whole, content=not no_content)


def _as_dict(whole: Trace, *, content: bool) -> dict[str, Any]:
    return {**vars(whole), "spans": [_span_as_dict(span, content) for span in whole.spans]}


def _span_as_dict(span: TraceSpan, content: bool) -> dict[str, Any]:
    left_out = {} if content else dict.fromkeys(("error", "traceback", "input", "output",
                                                 "attributes"))  # fmt: skip
    return {
        **vars(span),
        **left_out,
        "events": [{**vars(e), **({} if content else {"data": None})} for e in span.events],
        "children": [_span_as_dict(child, content) for child in span.children],
    }


def _print(whole: Trace, *, content: bool) -> None:
    lines = [line for span in whole.spans for line in _lines(span, "", "", _signs(), content)]
    spans = [line.span for line in lines if line.span is not None]
    said = [took(whole.duration_ms), counted(len(spans), "span")]
    said.append(counted(len(lines) - len(spans), "other event"))
    if not whole.complete:
        said.append("without its oldest events, which are too many")
    click.secho(f"trace {whole.trace_id}", bold=True)
    click.echo(f"{moment(whole.started_at_ms)}  {', '.join(said)}")
    click.echo()
    _print_lines(lines, whole)
    for span in spans:
        if content and _is_cause(span):
            _print_failure(span)


def _signs() -> _Signs:
    """Return the characters that stdout can show."""
    try:
        "".join(vars(_DRAWN).values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _DRAWN


@dataclass(frozen=True)
class _Line:
    """One line of the tree: a span, or an event inside one."""

    label: str
    start: float
    took: float | None
    span: TraceSpan | None = None

    @property
    def colour(self) -> str | None:
        """The colour of its label: red for a failure."""
        return "red" if self.span is not None and self.span.error is not None else None


def _lines(span: TraceSpan, lead: str, below: str, signs: _Signs, content: bool) -> Iterator[_Line]:
    """Yield the lines of a span and of all that is below it, in the order of time."""
    yield _Line(lead + _name(span), span.started_at_ms, span.duration_ms, span)
    items: list[tuple[float, int, TraceSpan | None, TraceEvent | None]] = [
        *((child.started_at_ms, child.seq or 0, child, None) for child in span.children),
        *((_began(event), event.seq, None, event) for event in span.events),
    ]
    items.sort(key=lambda each: each[:2])  # within a millisecond, by the order of the events
    for number, (start, _, child, event) in enumerate(items, 1):
        last = number == len(items)
        branch = below + (signs.last if last else signs.branch)
        if child is not None:
            deeper = below + ("   " if last else signs.line)
            yield from _lines(child, branch, deeper, signs, content)
        elif event is not None:
            label = branch + _describe(event, content=content)
            yield _Line(label, start, event.timestamp_ms - start or None)


def _name(span: TraceSpan) -> str:
    name = printable(span.name or "")
    if span.kind in ("span", "function", "otel"):
        return name or span.kind
    if span.kind == "unknown":
        return f"(span {span.span_id}, which is not recorded here)"
    return f"{span.kind} {name}".rstrip()


def _began(event: TraceEvent) -> float:
    name = "latency_ms" if event.type == "llm.used" else "duration_ms"
    found = (event.data or {}).get(name)
    ends_a_conversation = event.type == "conversation.ended"
    if ends_a_conversation or isinstance(found, bool) or not isinstance(found, (int, float)):
        return event.timestamp_ms
    return event.timestamp_ms - found


def _describe(event: TraceEvent, *, content: bool) -> str:
    """Return a line on an event: its type, and what tells most of it."""
    data = event.data
    if data is None:
        return f"{printable(event.type)} (erased)"
    if event.type == "message.logged":
        said = [data.get("role"), data.get("content") if content else None]
    elif event.type == "llm.used":
        said = [event.type, data.get("model")]
        if isinstance(tokens := data.get("total_tokens"), int):
            said.append(counted(tokens, "token"))
    else:
        said = [event.type]
    text = " ".join(str(part) for part in said if part is not None)
    return printable(" ".join(text[: 4 * _MOST_TEXT].split())[:_MOST_TEXT])


def _print_lines(lines: list[_Line], whole: Trace) -> None:
    from rich.cells import cell_len, set_cell_size

    room = shutil.get_terminal_size().columns - 1
    widest = max(cell_len(line.label) for line in lines)
    bars = max(room // 3, _NARROWEST_BAR)
    width = min(widest, max(room - _TIME_WIDTH - 2 * 2 - bars, _NARROWEST_BAR))
    for line in lines:
        label = line.label
        if cell_len(label) > width:
            dots = "..." if _signs() is _ASCII else "…"
            label = set_cell_size(label, width - cell_len(dots)) + dots
        label = set_cell_size(label, width)
        time = "" if line.took is None else took(line.took)
        bar = _bar(line, whole, room - width - _TIME_WIDTH - 2 * 2)
        click.secho(label, fg=line.colour, nl=False)
        click.secho(f"  {time:>{_TIME_WIDTH}}", dim=True, nl=False)
        click.secho(f"  {bar}".rstrip(), fg=line.colour or "cyan")


def _bar(line: _Line, whole: Trace, width: int) -> str:
    """Return a bar as long as the line's share of the trace, at the place of its start."""
    signs = _signs()
    width = max(width, _NARROWEST_BAR)
    each = whole.duration_ms / width or 1
    first = min(max(int((line.start - whole.started_at_ms) / each), 0), width - 1)
    if line.took is None:
        return " " * first + signs.point
    length = min(max(round(line.took / each), 1), width - first)
    return " " * first + signs.bar * length


def took(milliseconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if milliseconds < 10:
        return f"{milliseconds:.2g} ms" if milliseconds else "0 ms"
    if milliseconds < _SECOND:
        return f"{milliseconds:.0f} ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / 1000:.2f} s"
    return duration(milliseconds / 1000)


def _is_cause(span: TraceSpan) -> bool:
    """Return True if a span failed, and not because one inside it did so."""
    said = (span.error_type, span.error)
    return span.error is not None and said not in [(c.error_type, c.error) for c in span.children]


def _print_failure(span: TraceSpan) -> None:
    click.echo()
    what = ": ".join(part for part in (span.error_type, span.error) if part)
    if span.traceback:
        click.secho(f"{_name(span)} failed", fg="red", bold=True)
        click.echo(printable_lines(span.traceback))
    else:
        click.secho(printable_lines(f"{_name(span)} failed: {what}"), fg="red")
