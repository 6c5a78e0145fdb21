"""``tracker-collector prove --archive``: check what was archived before it was deleted."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tracker.collector.options import opened
from tracker.collector.retention import archived
from tracker.errors import readable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

_READ_SECONDS = 24 * 3_600.0


def prove_archive(folder: Path, database: str, *, as_json: bool) -> None:
    """Check archives: files, events, chains, and that they join what is in the database.

    Prints what was found, and exits with 1 if anything is wrong.
    """
    with opened(database, schema="ignore") as store, store.reading(_READ_SECONDS) as connection:
        proved = _checked(folder, connection)
    if as_json:
        click.echo(json.dumps(asdict(proved)))
    else:
        click.echo(
            f"{proved.archives:,} archives with {proved.events:,} events, {proved.links:,} links,"
            f" {proved.joins:,} joins"
        )
        for problem in proved.problems:
            click.echo(f"problem: {problem}")
    if proved.problems:
        sys.exit(1)


def _checked(folder: Path, connection: Connection) -> archived.Proved:
    try:
        return archived.check(folder, connection)
    except ImportError as error:
        click.echo(
            "archives need the extra: pip install 'agent-tracking-sdk[collector,parquet]'", err=True
        )
        raise SystemExit(2) from error
    except (OSError, ValueError) as error:  # pyarrow's errors are some of these
        raise click.ClickException(f"{folder}: {readable(str(error))}") from error
