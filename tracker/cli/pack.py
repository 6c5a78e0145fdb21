"""``tracker-sync pack``: pending events as a file, for a collector that no network leads to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import existing, opened_to_read, spare
from tracker.cli.output import echo_json, events, json_option, printable

if TYPE_CHECKING:
    from tracker.cli.context import Target
    from tracker.sync.bundle import Packed

_SMALLEST = 4096


@click.command(
    cls=Command,
    examples=[
        "tracker-sync pack --output events.bundle",
        "tracker-sync pack --output /media/usb/kiosk-17.bundle --max-bytes 100000000",
        "tracker-sync pack --output events.bundle --force --json",
    ],
    exits={0: "packed", 1: "a file exists or cannot be written"},
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The new file; it appears when it is complete, and only this user can read it.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=_SMALLEST),
    metavar="N",
    help="Write parts of at most N bytes: FILE.1, FILE.2 and so on. Each can be unpacked alone.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@json_option
@click.pass_obj
def pack(
    place: Place, /, output: Path, max_bytes: int | None, *, force: bool, as_json: bool
) -> None:
    """Write pending events to a file, for a collector by hand.

    There, `tracker-collector unpack FILE --receipts RECEIPTS` stores them as if they had been sent,
    and `tracker-sync receipts RECEIPTS` marks them here. Until then they stay pending: they may be
    uploaded or packed once more, and count once. The file is sealed with the API key, so that
    nobody can change it unnoticed, but it is not encrypted.
    """
    if not output.name:
        raise click.UsageError("--output is no name of a file")
    target = existing(place, keyed=True)
    from tracker.outbox import backup
    from tracker.sync import bundle

    place_of = partial(_path, target, output, split=max_bytes is not None)
    try:
        with opened_to_read(target) as outbox:
            with outbox.reading() as connection:
                backup.refuse(connection, target.path)
            packed = bundle.pack(
                outbox, target.config, place_of, max_bytes=max_bytes, replace=force
            )
    except FileExistsError as error:
        raise click.ClickException(
            f"{error.filename} exists; give another name, or --force to replace it"
        ) from None
    except bundle.TooSmallError as error:
        raise click.ClickException(f"{error}: give a larger --max-bytes") from error
    if as_json:
        echo_json({**vars(packed), "files": [str(file) for file in packed.files]})
    else:
        _print(packed)


def _path(target: Target, output: Path, number: int, *, split: bool) -> Path:
    path = output.with_name(f"{output.name}.{number}") if split else output
    spare(target, path)
    return path


def _print(packed: Packed) -> None:
    names = printable(packed.files[0])
    if len(packed.files) > 1:
        names += f" to {printable(packed.files[-1])}"
    if packed.events:
        seqs = f"seq {packed.first_seq} to {packed.last_seq}"
        click.echo(f"{events(packed.events)} ({seqs}) in {names}; they stay pending")
    else:
        click.echo(f"nothing is pending: {names} has no events")
    if packed.damaged:
        click.echo(
            f"{events(packed.damaged)} left out, changed on disk: see tracker-sync verify", err=True
        )
