"""``tracker-sync verify``: is everything as it was stored, and nothing missing?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import existing, opened
from tracker.cli.output import echo_json, events, json_option, printable

if TYPE_CHECKING:
    from tracker.outbox.integrity import IntegrityReport

_SHOWN = 100

_ADVICE = {
    "digest": "an event was changed after it was stored, by hand or by a failing disk. `tracker-"
    "sync show SEQ` shows it; if it was pending, it is set aside as a dead letter, not sent",
    "erasure": "an event was changed to look erased: no stored compliance.erased event names it. "
    "Compare with what the collector has, and keep a copy of the file as evidence",
    "chain": "events were changed, cut out or put in here. Compare with what the collector has "
    "(GET /v1/events), and keep a copy of the file as evidence",
    "gap": "events were deleted by something else than the tracker. If the collector has their "
    "seqs, nothing is lost; if not, they are",
    "account": "the figures of the loss account do not fit the rows: something else than the "
    "tracker changed the file",
}


@click.command(
    cls=Command,
    examples=[
        "tracker-sync verify",
        "tracker-sync --outbox /mnt/evidence/events.sqlite3 verify --json",
    ],
    exits={0: "sound", 1: "not sound, not there, or not readable"},
)
@json_option
@click.pass_obj
def verify(place: Place, *, as_json: bool) -> None:
    """Check digests, hash chain, gaps in seq and the loss account.

    Reads the whole outbox, in one snapshot, while the application goes on. Needs no API key.
    """
    from tracker.outbox import integrity

    with opened(existing(place)) as outbox, outbox.snapshot() as connection:
        report = integrity.verify(connection)
    if as_json:
        echo_json(
            {
                "outbox": str(outbox.path),
                "ok": report.ok,
                "events": report.events,
                "first_seq": report.first_seq,
                "last_seq": report.last_seq,
                "removed": report.removed,
                "problems": [vars(problem) for problem in report.problems],
            }
        )
    else:
        _print(report)
    click.get_current_context().exit(OK if report.ok else FAILED)


def _print(report: IntegrityReport) -> None:
    click.echo(
        f"checked {events(report.events)} up to seq {report.last_seq:,}: digests, chain, gaps, "
        f"loss account; {events(report.removed)} removed on purpose"
    )
    if report.ok:
        click.echo("sound")
        return
    for problem in report.problems[:_SHOWN]:
        where = "outbox" if problem.seq is None else f"seq {problem.seq}"
        click.echo(f"{where}: {problem.kind}: {printable(problem.message)}")
    if len(report.problems) > _SHOWN:
        click.echo(f"… and {len(report.problems) - _SHOWN} more: tracker-sync verify --json")
    click.echo("\nnot sound. What to do:")
    for kind in dict.fromkeys(problem.kind for problem in report.problems):
        click.echo(f"  {kind}: {_ADVICE.get(kind, 'keep a copy of the file')}")
