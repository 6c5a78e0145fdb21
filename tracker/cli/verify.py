"""``tracker-sync verify``: check that stored events are unchanged and none is missing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.chain_keys import chain_keys, key_files_option
from tracker.cli.command import Command, Place, WrongConfiguration
from tracker.cli.context import existing, find, opened_to_read
from tracker.cli.findings import NOT_PROVEN, as_dict, exit_code, print_findings
from tracker.cli.output import echo_json, events, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.audit.check import ExportReport
    from tracker.cli.context import Target
    from tracker.outbox import IntegrityReport, Outbox, Problem, ReadOnlyOutbox

_MOST_PROBLEMS = 1_000


@click.command(
    cls=Command,
    examples=[
        "tracker-sync verify",
        "tracker-sync verify --against-collector",
        "tracker-sync verify --export audit-2026.jsonl --chain-key-file audit.key",
        "tracker-sync --outbox /mnt/evidence/events.sqlite3 verify --json",
    ],
    exits={
        0: "sound",
        1: "not sound, missing, or not readable; or the collector did not answer",
        NOT_PROVEN: "no problem was found, but the chain or the removal of some events could not "
        "be checked: it has a key that is not given, or none",
    },
)
@click.option(
    "--against-collector",
    "against",
    is_flag=True,
    help="Also compare with the collector. Needs the API key.",
)
@click.option(
    "--export",
    "exported",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Check a file written by `export_audit` instead of an outbox.",
)
@key_files_option
@json_option
@click.pass_obj
def verify(
    place: Place,
    exported: Path | None,
    key_files: tuple[Path, ...],
    *,
    against: bool,
    as_json: bool,
) -> None:
    """Check digests, hash chain, gaps in seq and the loss account.

    Reads the whole outbox in one snapshot while the application continues. Needs no API key. A
    chain with a chain key is checked with the key in SDK_CHAIN_KEY, and so is who removed events;
    without it, everything but that is checked, and the output says so.
    """
    if exported is not None and against:
        raise click.UsageError("--export checks a file by itself; leave out --against-collector")
    keys = chain_keys(place, key_files)
    if exported is not None:
        code = _verify_export(exported, keys, as_json=as_json)
    else:
        code = _verify_outbox(place, keys, against=against, as_json=as_json)
    click.get_current_context().exit(code)


def _verify_export(path: Path, keys: Sequence[bytes], *, as_json: bool) -> int:
    from tracker.audit.check import check

    with path.open("rb") as file:
        report = check(file, keys)
    if as_json:
        manifest = report.manifest and vars(report.manifest)
        found = as_dict(report.problems, report.unproven)
        echo_json({"export": str(path), "events": report.events, "manifest": manifest, **found})
    else:
        _print_export(report)
    return exit_code(report.problems, report.unproven)


def _print_export(report: ExportReport) -> None:
    click.echo(f"checked {events(report.events)}: digests, chain, manifest, seal")
    if report.manifest is not None:
        click.echo(
            f"outbox {report.manifest.outbox_id}, seq {report.manifest.first_seq} to "
            f"{report.manifest.last_seq}; last chain value {report.manifest.last_chain}"
        )
    print_findings(report.problems, report.unproven, "file")


def _verify_outbox(place: Place, keys: Sequence[bytes], *, against: bool, as_json: bool) -> int:
    from tracker.outbox import paths
    from tracker.outbox import verify as verifying

    target = existing(place)
    copied = not paths.write_lock(target.path).exists()
    compared = None
    with opened_to_read(target) as outbox:
        with outbox.snapshot() as connection:
            report = verifying.verify(connection, keys)
        problems = report.problems
        if against:
            compared, differences = _compare(_collector(place), outbox)
            problems += differences
    if as_json:
        echo_json(_as_dict(target, report, problems, compared))
    else:
        _print_outbox(report, compared)
        if copied:
            click.echo(
                f"no application has used this file here. If it is a copy made without its -wal, "
                f"the events after seq {report.last_seq:,} are missing"
            )
        print_findings(problems, report.unproven, "outbox")
    return exit_code(problems, report.unproven)


def _collector(place: Place) -> Target:
    """Return the outbox with what is needed to ask its collector.

    Raises:
        WrongConfiguration: if the other side is no collector.
    """
    target = find(place, uploads=True)
    if target.config.protocol != "tracker":
        raise WrongConfiguration(
            f"{target.config.base_url} is an OTLP receiver: it keeps neither seqs nor digests, and "
            "has nothing to compare with. Compare by the attribute tracker.event.id there"
        )
    return target


def _compare(target: Target, outbox: Outbox | ReadOnlyOutbox) -> tuple[int, tuple[Problem, ...]]:
    """Return how many events the collector has of this outbox, and the differences."""
    from tracker.cli.held import Collector
    from tracker.outbox import Comparison
    from tracker.sync.http import HTTPDestination

    outbox_id = outbox.owner.outbox_id
    destination = HTTPDestination(target.config, outbox_id)
    try:
        with outbox.snapshot() as connection:
            comparison = Comparison(connection, Collector(destination, outbox_id))
            found = tuple(itertools.islice(comparison.problems(), _MOST_PROBLEMS))
    finally:
        destination.close()
    return comparison.events, found


def _as_dict(
    target: Target, report: IntegrityReport, problems: Sequence[Problem], compared: int | None
) -> dict[str, Any]:
    return {
        "outbox": str(target.path),
        "events": report.events,
        "first_seq": report.first_seq,
        "last_seq": report.last_seq,
        "removed": report.removed,
        "collector_events": compared,
        **as_dict(problems, report.unproven),
    }


def _print_outbox(report: IntegrityReport, compared: int | None) -> None:
    click.echo(
        f"checked {events(report.events)} up to seq {report.last_seq:,}: digests, chain, gaps, "
        f"loss account; {events(report.removed)} removed on purpose"
    )
    if compared is not None:
        click.echo(f"compared with {events(compared)} at the collector")
