"""Output of ``tracker-sync verify``, for outboxes and exports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import FAILED, OK
from tracker.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.outbox import Problem, Unproven

NOT_PROVEN = 3
"""Exit code: no problem was found, but not everything could be checked."""

_SHOWN = 100

_ADVICE = {
    "digest": "an event was changed after it was stored, by hand or by a failing disk. `tracker-"
    "sync show SEQ` shows it; if it was pending, it becomes a dead letter and is not sent",
    "erasure": "an event was changed to look erased: no stored compliance.erased event names it. "
    "Compare with the collector, and keep a copy of the file as evidence",
    "chain": "events were changed, removed or inserted here. Compare with the collector "
    "(tracker-sync verify --against-collector), and keep a copy of the file as evidence. If the "
    "chain key was changed, give the former one with --chain-key-file",
    "gap": "events were deleted by something other than the tracker, or by somebody without the "
    "chain key. If the collector has their seqs, nothing is lost; otherwise they are lost. If the "
    "chain key was changed, give the former one with --chain-key-file",
    "account": "the figures of the loss account do not match the rows, or the chain key does not "
    "vouch for them: something other than the tracker changed the file",
    "times": "somebody changed the table `time_ranges`: lists and figures of a period may leave "
    "events out; an audit export does not",
    "collector": "one of the two was changed. Somebody who can write files on this machine cannot "
    "change the collector's copy",
    "manifest": "the file was edited or truncated after it was exported: ask for it again",
}


def exit_code(problems: Sequence[Problem], unproven: Sequence[Unproven]) -> int:
    """Return 0, 1 or `NOT_PROVEN`."""
    if problems:
        return FAILED
    return NOT_PROVEN if unproven else OK


def as_dict(problems: Sequence[Problem], unproven: Sequence[Unproven]) -> dict[str, Any]:
    """Return the findings, for ``--json``."""
    return {
        "ok": not problems,
        "proven": not problems and not unproven,
        "problems": [asdict(problem) for problem in problems],
        "unproven": [asdict(events) for events in unproven],
    }


def print_findings(problems: Sequence[Problem], unproven: Sequence[Unproven], whole: str) -> None:
    """Print the findings and what to do; those without a seq concern the `whole`."""
    for problem in problems[:_SHOWN]:
        where = whole if problem.seq is None else f"seq {problem.seq}"
        click.echo(f"{where}: {problem.kind}: {printable(problem.message)}")
    if len(problems) > _SHOWN:
        click.echo(f"… and {len(problems) - _SHOWN} more: tracker-sync verify --json")
    for events in unproven[:_SHOWN]:
        alone = events.first_seq == events.last_seq
        where = f"seq {events.first_seq}" + ("" if alone else f" to {events.last_seq}")
        click.echo(f"{where}: not proven: {printable(events.reason)}")
    if problems:
        click.echo("\nnot sound. What to do:")
        for kind in dict.fromkeys(problem.kind for problem in problems):
            click.echo(f"  {kind}: {_ADVICE.get(kind, 'keep a copy of the file')}")
    elif unproven:
        click.echo(
            "\nsound as far as it could be checked: of the events above, nothing proves that they "
            "are as the tracker left them. Keys are read from SDK_CHAIN_KEY and --chain-key-file"
        )
    else:
        click.echo("sound")
