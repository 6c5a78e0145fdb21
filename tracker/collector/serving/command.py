"""``tracker-collector serve``: receive events over HTTP until SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

import click

from tracker.collector.descriptors import allow_all_files
from tracker.collector.occasionally import Occasionally
from tracker.collector.options import database_option, witness_options
from tracker.collector.serving.listening import address_of, listen, ui_hosts
from tracker.collector.serving.process import Serving, run
from tracker.collector.settings import Settings
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.collector.replication import Durability


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 uses a free one.",
)
@database_option
@click.option(
    "--direct-database",
    "direct",
    metavar="URL",
    envvar="COLLECTOR_DIRECT_DATABASE_URL",
    show_envvar=True,
    show_default="the database",
    help="URL of the same PostgreSQL database without PgBouncer between: by LISTEN there, changes "
    "of API keys are heard, and keys need not be looked up for each request.",
)
@witness_options
@click.option(
    "--tsa",
    metavar="URL",
    envvar="COLLECTOR_TSA",
    show_envvar=True,
    help="Address of a time stamp authority (RFC 3161), which stamps an outbox's newest cosigned "
    "head once an hour.",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    default=Settings.requests_per_minute,
    show_default=True,
    help="Maximum number of batches per minute and API key.",
)
@click.option(
    "--durability",
    type=click.Choice(["local", "replicated"]),
    default=None,
    show_default="replicated where synchronous_standby_names is set, otherwise local",
    help="What a receipt guarantees: stored on this server, or on a synchronous standby as well.",
)
@click.option(
    "--ui/--no-ui", "ui", default=True, show_default=True, help="Serve pages for people at /ui/."
)
@click.option(
    "--ui-host",
    "ui_names",
    multiple=True,
    metavar="NAME",
    envvar="COLLECTOR_UI_HOSTS",
    show_envvar=True,
    help="A name, with its port if that is not the usual one, by which browsers reach the pages, "
    "as in tracker.example.com; repeatable. Without it: only from this machine.",
)
def serve(
    host: str,
    port: int,
    database: str,
    direct: str | None,
    key_file: Path | None,
    witness_name: str,
    tsa: str | None,
    rate: int,
    durability: Durability | None,
    *,
    ui: bool,
    ui_names: tuple[str, ...],
) -> None:
    """Listen for batches until SIGTERM or Ctrl+C."""
    handler = logging.StreamHandler()
    handler.addFilter(Occasionally())
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[handler],
    )
    allow_all_files()
    # uvicorn shuts down in order after these signals and then raises them again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with listen(host, port) as listener:
        names = ui_hosts(listener, ui_names) if ui and _has_templates() else None
        settings = Settings(requests_per_minute=rate)
        serving = Serving(
            database, direct, durability, key_file, witness_name, tsa, settings, names
        )
        _check(serving)
        where = address_of(host, listener)
        run(serving, listener, lambda: click.echo(f"listening on {where}", err=True))


def _check(serving: Serving) -> None:
    """Refuse options that do not fit the database."""
    try:
        is_sqlite = serving.is_sqlite
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
    if is_sqlite and serving.direct is not None:
        raise click.UsageError("--direct-database is only for PostgreSQL")


def _has_templates() -> bool:
    try:
        import tracker.collector.ui.app  # noqa: F401 - it needs what is in the extra since it is
    except ImportError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        click.echo(
            f"warning: there are no pages at /ui/ (the library {error.name} is missing: pip "
            "install 'agent-tracking-sdk[collector]')",
            err=True,
        )
        return False
    return True
