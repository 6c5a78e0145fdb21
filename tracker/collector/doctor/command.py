"""``tracker-collector doctor``: check a collector's database and say what to do."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tracker.collector.doctor.examine import examine
from tracker.collector.options import database_option
from tracker.errors import ConfigurationError, readable

if TYPE_CHECKING:
    from tracker.collector.doctor.finding import Finding
    from tracker.collector.replication import Durability

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option(
    "--durability",
    type=click.Choice(["local", "replicated"]),
    help="What the collectors serve with.  [default: as `serve` chooses]",
)
@click.option(
    "--direct-database",
    "direct",
    metavar="URL",
    envvar="COLLECTOR_DIRECT_DATABASE_URL",
    show_envvar=True,
    help="What the collectors serve with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def doctor(
    database: str, durability: Durability | None, direct: str | None, *, as_json: bool
) -> None:
    """Check the database, and what stands between it and this machine.

    Prints a line for each check, with what to do. Ends with 1 if there is a problem; warnings end
    with 0. Changes nothing, and runs beside collectors.
    """
    try:
        found = examine(database, durability, direct)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
    sound = all(finding.status != "problem" for finding in found)
    if as_json:
        checks = [finding._asdict() for finding in found]
        click.echo(json.dumps({"ok": sound, "checks": checks}))
    else:
        _print(found)
    sys.exit(0 if sound else 1)


def _print(found: list[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        status = click.style(f"{finding.status:7}", fg=_COLOURS[finding.status])
        action = "" if finding.action is None else f"; {finding.action}"
        click.echo(f"{finding.check:{width}}  {status}  {readable(finding.message + action)}")
