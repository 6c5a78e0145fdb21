"""``tracker-sync report``: what is recorded of what a text asks to be recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker.cli.chain_keys import chain_keys, key_files_option
from tracker.cli.command import Command, Place
from tracker.cli.context import existing, opened_to_read, spare
from tracker.cli.output import echo_json, json_option, printable
from tracker.since import Since
from tracker.trackers.audit import FRAMEWORKS

if TYPE_CHECKING:
    from tracker.audit.report import Report


@click.command(
    cls=Command,
    examples=[
        "tracker-sync report --framework eu-ai-act --output record.html",
        "tracker-sync report --framework soc2 --since 2026-10-01 --until 2027-01-01 -o q4.html",
        "tracker-sync report --framework iso-42001 --json",
    ],
    exits={
        0: "written or printed, whatever is or is not recorded",
        1: "no readable outbox, or the file exists or cannot be written",
    },
)
@click.option(
    "--framework", type=click.Choice(FRAMEWORKS), required=True, help="The text to hold against."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The new HTML file; it appears when it is complete, and only this user can read it.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--since", type=Since(), metavar="WHEN", help="Only events logged since: see `list`.")
@click.option("--until", type=Since(), metavar="WHEN", help="Only events logged before.")
@key_files_option
@json_option
@click.pass_obj
def report(
    place: Place,
    framework: str,
    output: Path | None,
    since: int | None,
    until: int | None,
    key_files: tuple[Path, ...],
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write what is recorded for the EU AI Act, ISO 42001 or SOC 2.

    For each thing that Article 12 of the EU AI Act, control A.6.2.8 of ISO/IEC 42001 or criteria
    CC7.2 and CC7.3 of SOC 2 ask to be recorded, the page says "recorded" or "not recorded", with
    the number of events and their seqs. It does not say that the text is met. The outbox is read in
    one snapshot and checked as by `verify`, while the application continues; only events that are
    still in it count. With --json, the report is printed for scripts, and --output may be left out.
    """
    from tracker.audit.report import make
    from tracker.audit.report_page import write

    if output is None and not as_json:
        raise click.UsageError("give --output FILE for the page, or --json")
    if since is not None and until is not None and since > until:
        raise click.UsageError("--until is before --since")
    keys = chain_keys(place, key_files)
    target = existing(place)
    spare(target, output)
    with opened_to_read(target) as outbox, outbox.snapshot() as connection:
        made = make(connection, framework, since, until, keys)
    if output is not None:
        try:
            write(made, output, replace=force, like=output if output.exists() else None)
        except FileExistsError:
            raise click.ClickException(
                f"{output} exists; give another name, or --force to replace it"
            ) from None
    if as_json:
        echo_json(made.as_dict())
    else:
        click.echo(f"{printable(output)}: {_summary(made)}")


def _summary(made: Report) -> str:
    there = sum(line.recorded for line in made.lines)
    sound = "no problem was found" if made.integrity.ok else "problems were found: see `verify`"
    return f"of {len(made.lines)} kinds of events, {there} are recorded; in the outbox, {sound}"
