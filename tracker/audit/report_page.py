"""A report as an HTML page for people, in a file."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.audit.frameworks import LIMITS
from tracker.audit.records import SIX_MONTHS_DAYS, USES
from tracker.audit.report import Report, make
from tracker.errors import ValidationError
from tracker.evidence import page
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from tracker.audit.tally import Record

_SHOWN = 20
"""Most problems, and ranges that are not proven, that are shown."""
_HEADINGS = ("what is asked", "events looked for", "status", "number", "seq", "values")


def write(
    report: Report, path: str | os.PathLike[str], *, replace: bool = False, like: Path | None = None
) -> None:
    """Write a report as one HTML page, which appears complete or not at all.

    Args:
        report: The report.
        path: Where.
        replace: Whether it may replace another file.
        like: The file whose owner and mode it gets; by default, only this user can read it.

    Raises:
        FileExistsError: if `path` exists, and `replace` is False.
        OSError: if the file cannot be written.
    """
    with whole_file(Path(path), replace=replace, like=like) as file:
        file.write(render(report).encode())


def export(
    connection: Connection,
    framework: str,
    path: str | os.PathLike[str],
    since_ms: int | None = None,
    until_ms: int | None = None,
    keys: Sequence[bytes] = (),
) -> Report:
    """Make a report, write it to a new file, and return it.

    Raises:
        ValidationError: if `path` exists, or the file cannot be written; then no file is created.
    """
    report = make(connection, framework, since_ms, until_ms, keys)
    try:
        write(report, path)
    except FileExistsError:
        raise ValidationError(
            "path", f"is {str(path)!r}, which exists; give the path of a new file"
        ) from None
    except OSError as error:
        raise ValidationError(
            "path", f"is {str(path)!r}, which cannot be written: {error.strerror}"
        ) from error
    return report


def render(report: Report) -> str:
    """Return the page: no scripts, nothing from outside, and every text in it escaped."""
    return page.document(
        f"What was recorded: {report.title}",
        (
            page.facts(_facts(report)),
            "<p>Each line names events that speak to what is asked, and says whether any are ",
            "stored. It does not say that what is asked is done.</p>",
            f"<p>{page.text(report.note)}</p>",
            page.table(_HEADINGS, _lines(report)),
            "<h2>Periods of use</h2>",
            _uses(report),
            "<h2>Retention</h2>",
            page.items(_retention(report)),
            "<h2>Integrity of the whole outbox</h2>",
            page.items(_integrity(report)),
            "<h2>What this page does not show</h2>",
            page.items(LIMITS),
        ),
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    account = report.account
    sums = (
        f"{account.accepted:,} accepted = {account.delivered:,} delivered + "
        f"{account.pending:,} pending + {account.dead:,} refused by the receiver + "
        f"{sum(account.discarded.values()):,} given up"
    )
    if account.skipped:
        sums += f" + {account.skipped:,} of types that a setting says not to send"
    return [
        ("Outbox", report.outbox_id),
        ("Client", report.client_id),
        ("Made", f"{page.time(report.made_at_ms)} UTC, by tracker {report.sdk_version}"),
        ("Period", _period(report)),
        ("First and last event", _span(report.first_at_ms, report.last_at_ms)),
        ("Account, of all times", sums),
    ]


def _period(report: Report) -> str:
    since, until = report.since_ms, report.until_ms
    if since is None and until is None:
        return "all that is stored"
    ends = (("from", since), ("to before", until))
    return " ".join(f"{word} {page.time(at)}" for word, at in ends if at is not None) + " UTC"


def _span(first_ms: int | None, last_ms: int | None) -> str:
    if first_ms is None:
        return "none"
    return f"{page.time(first_ms)} to {page.time(last_ms)} UTC, by the device's clock"


def _lines(report: Report) -> Iterable[tuple[str, ...]]:
    asked = ""
    for line in report.lines:
        said = f"{line.provision}: {line.asks}"
        record = line.record
        erased = f", {record.erased:,} of them erased" if record.erased else ""
        yield (
            said if said != asked else "",
            line.events,
            "recorded" if line.recorded else "not recorded",
            f"{record.count:,}{erased}",
            _seqs(record),
            _values(record),
        )
        asked = said


def _seqs(record: Record) -> str:
    said = ", ".join(_range(first, last) for first, last in record.ranges)
    if record.more_ranges:
        said += f", and {record.more_ranges:,} more ranges, up to {record.last_seq}"
    return said


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _values(record: Record) -> str:
    said = [f"{value}: {count:,}" for value, count in record.values.items()]
    if record.other_values:
        said.append(f"others: {record.other_values:,}")
    return "; ".join(said)


def _uses(report: Report) -> str:
    if not report.uses:
        return "<p>None began in this period.</p>"
    rows = (
        (
            f"{page.time(use.began_at_ms)} (seq {use.seq})",
            "no end is stored"
            if use.end_seq is None
            else f"{page.time(use.ended_at_ms)} (seq {use.end_seq})",
            use.session_id,
        )
        for use in report.uses
    )
    return f"<p>The newest, at most {USES}, in UTC.</p>" + page.table(
        ("began", "ended", "conversation"), rows
    )


def _retention(report: Report) -> Iterable[str]:
    found = report.retention
    if found is None:
        yield (
            "No stored event says how long delivered events stay in this outbox: none says that "
            "any was removed for its age."
        )
        return
    rules = ", ".join(f"{_type(name)}: {days:g} days" for name, days in found.days.items())
    yield f"Delivered events stay in this outbox as long as seq {found.seq} says: {rules}."
    if found.short:
        yield (
            f"For less than six months ({SIX_MONTHS_DAYS} days): "
            f"{', '.join(map(_type, found.short))}. Of these, what is older is only where it was "
            "delivered."
        )
    else:
        yield f"None of that is less than six months ({SIX_MONTHS_DAYS} days)."


def _type(pattern: str) -> str:
    return "every other type" if pattern == "*" else pattern


def _integrity(report: Report) -> Iterable[str]:
    found = report.integrity
    yield (
        f"{found.events:,} events checked, up to seq {found.last_seq}: digests, chain, gaps and "
        f"account; {found.removed:,} removed on purpose."
    )
    if found.problems:
        yield f"Not sound; problems found: {len(found.problems):,}."
    elif found.unproven:
        yield "No problem was found, but not everything could be checked."
    else:
        yield "No problem was found."
    for problem in islice(found.problems, _SHOWN):
        where = "outbox" if problem.seq is None else f"seq {problem.seq}"
        yield f"{where}: {problem.kind}: {problem.message}"
    for doubt in islice(found.unproven, _SHOWN):
        yield f"seq {_range(doubt.first_seq, doubt.last_seq)}: not proven: {doubt.reason}"
    more = max(len(found.problems) - _SHOWN, 0) + max(len(found.unproven) - _SHOWN, 0)
    if more:
        yield f"And {more:,} more: tracker-sync verify names them."
