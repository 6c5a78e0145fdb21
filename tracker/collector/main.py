"""``tracker-collector``: run the server and manage API keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker import program, validation
from tracker._version import __version__
from tracker.collector.dates import date_text
from tracker.collector.doctor.command import doctor
from tracker.collector.engine import files_of
from tracker.collector.forwarding.command import forward
from tracker.collector.key_commands import keys
from tracker.collector.keys import check_client_id
from tracker.collector.options import (
    database_option,
    opened,
    witness_given,
    witness_options,
)
from tracker.collector.partitioning.command import migrate, show_partitions
from tracker.collector.prove import prove
from tracker.collector.retention.command import retain_events
from tracker.collector.rollups.command import roll
from tracker.collector.serving.command import serve
from tracker.collector.settings import Settings
from tracker.collector.unpack import Bundle, Unpacked
from tracker.errors import ConfigurationError, ValidationError, readable
from tracker.sealed import reader
from tracker.sealed.form import SealError
from tracker.whole_file import is_database, whole_file

if TYPE_CHECKING:
    import uuid

    from tracker.collector.store import Store

_EXTRA_MISSING = "tracker-collector needs the extra: pip install 'agent-tracking-sdk[collector]'"


def main() -> None:
    """Run the command line and exit: 0 success, 1 failure, 2 wrong use or a missing extra."""
    program.run(_main)


def _main() -> None:
    try:
        import fastapi  # noqa: F401 - an optional extra; a message says if it is missing
        import uvicorn  # noqa: F401
    except ImportError:
        click.echo(_EXTRA_MISSING, err=True)
        sys.exit(2)
    cli(prog_name="tracker-collector")


class _ServeByDefault(click.Group):
    """A group that runs `serve` if the first argument is not a subcommand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "--version"}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ServeByDefault)
@click.version_option(__version__, prog_name="tracker-collector")
def cli() -> None:
    """Receive events from trackers over HTTP and store them.

    Without a command: serve.
    """


_COMMANDS = (serve, doctor, forward, keys, migrate, prove, retain_events, roll, show_partitions)
for _command in _COMMANDS:
    cli.add_command(_command)


@cli.command("witness-key")
@database_option
@witness_options
def show_witness_key(database: str, key_file: Path | None, witness_name: str) -> None:
    """Print the public key that cosigns heads, for those who check evidence."""
    witness = witness_given(database, key_file, witness_name)
    if witness is None:
        sys.exit(2)
    click.echo(str(witness.key))


@cli.command("outbox-key")
@click.option("--client", "client_id", required=True, help="The client that the outbox is of.")
@click.option("--outbox", "outbox", required=True, type=click.UUID, help="The outbox id.")
@click.option(
    "--replace",
    metavar="KEY",
    help="Bind this public key instead, after the device has lost its own: name+id+base64, or 64 "
    "hex digits.",
)
@database_option
def outbox_key(client_id: str, outbox: uuid.UUID, replace: str | None, database: str) -> None:
    """Show the keys by which a device signed an outbox's heads, the present one last."""
    try:
        check_client_id(client_id)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--client") from error
    outbox_id = str(outbox)
    with opened(database) as store:
        if replace is not None:
            try:
                store.replace_outbox_key(client_id, outbox_id, replace)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--replace") from error
        found = store.outbox_keys(client_id, outbox_id)
    for each in found:
        click.echo(f"{each.key}  {each.reason}  {date_text(each.bound_at_ms)}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The new file with the receipts; it appears when everything is stored.",
)
@click.option("--force", is_flag=True, help="Replace the file of receipts if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
@witness_options
def unpack(
    file: Path,
    receipts: Path,
    database: str,
    key_file: Path | None,
    witness_name: str,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Store a file that `tracker-sync pack` has written, as if it had been sent.

    This works beside a running server. Give the file of receipts to `tracker-sync receipts` on the
    device. A file can be unpacked again: what is stored already is a duplicate.
    """
    _spare(receipts, database, key_file)
    with opened(database) as store:
        store.witness = witness_given(database, key_file, witness_name)
        done = _unpack(store, file, receipts, replace=force)
    if as_json:
        click.echo(json.dumps(vars(done)))
    else:
        click.echo(
            f"{done.client_id}: {done.accepted:,} stored, {done.duplicates:,} were stored before, "
            f"{done.rejected:,} rejected; receipts in {receipts}"
        )
    for why in dict.fromkeys(done.refused):
        click.echo(f"a body was refused: {why}", err=True)
    sys.exit(1 if done.refused else 0)


def _spare(receipts: Path, database: str, key_file: Path | None) -> None:
    """Refuse to write receipts over the collector's own files, or over any other database."""
    try:
        own = files_of(database) if key_file is None else [*files_of(database), key_file]
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
    if receipts.resolve() in [file.resolve() for file in own]:
        raise click.UsageError(f"{receipts} is a file of the collector; give another name")
    try:
        other = is_database(receipts)
    except OSError as error:
        raise click.ClickException(f"{receipts}: {error.strerror}") from error
    if other:
        raise click.UsageError(
            f"{receipts} is a database, which is not replaced; give another name"
        )


def _unpack(store: Store, file: Path, receipts: Path, *, replace: bool) -> Unpacked:
    """Store a bundle and write its receipts; convert what is wrong with files to one line."""
    try:
        with reader.opened(file) as content:
            if receipts.exists() and receipts.samefile(file):
                raise click.UsageError("--receipts is the file to unpack; give another name")
            bundle = Bundle(content, store, Settings())
            with whole_file(receipts, replace=replace) as written:
                return bundle.store(written)
    except SealError as error:
        raise click.ClickException(f"{file} is refused: {error}") from error
    except FileExistsError as error:
        raise click.ClickException(
            f"{error.filename} exists; give another name, or --force to replace it"
        ) from error
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(readable(f"{named}{error.strerror or error}")) from error


@cli.command()
@click.argument("user_id")
@click.option("--client", "client_id", required=True, help="The client whose events these are.")
@click.option("--reason", metavar="TEXT", help="The reason. Do not name the user in it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def erase(
    user_id: str, client_id: str, reason: str | None, database: str, *, yes: bool, as_json: bool
) -> None:
    """Erase all data about a user that this database has of a client, permanently.

    For what no outbox can erase: what arrived without one, over OpenTelemetry, and what was pruned
    from it. A compliance.erased event names the erased events. What a device still holds has to be
    erased there, with `tracker-sync erase`. This works beside a running server.

    Asks for confirmation; without a terminal, give --yes.
    """
    from tracker.collector.forgetting import erase_subject

    try:
        check_client_id(client_id)
        validation.check_id("USER_ID", user_id)
        if reason is not None:
            reason = validation.check_text("--reason", reason)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("erasing is permanent: give --yes if you mean it")
        click.confirm(f"Erase all data about user {user_id!r} permanently?", abort=True, err=True)
    with opened(database) as store:
        try:
            done = erase_subject(store, client_id, user_id, reason)
        except ValidationError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(done._asdict()))
    else:
        click.echo(f"{done.erased:,} events erased, named by {', '.join(done.event_ids)}")
        click.echo(f"salt of the user's hash there, stored nowhere: {done.salt}")


if __name__ == "__main__":
    main()
