"""``tracker-sync evidence``: a file that proves to a third party what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place, WrongConfiguration
from tracker.cli.context import existing, opened_to_change, spare
from tracker.cli.output import echo_json, events, json_option
from tracker.errors import ValidationError
from tracker.since import Since

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from tracker.audit.evidence import Evidence, Selection


class Seqs(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A seq, or the first and last one: ``7`` or ``5-17``."""

    name = "seqs"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the text."""
        first, dash, last = str(value).partition("-")
        try:
            found = int(first), int(last if dash else first)
        except ValueError:
            found = 0, 0
        if not 1 <= found[0] <= found[1] < 2**63:
            self.fail(f"{value!r} is no seq and no range of seqs; give 7 or 5-17", param, ctx)
        return found


@click.command(
    cls=Command,
    examples=[
        "tracker-sync evidence --session 0199c0de --output evidence.zip",
        "tracker-sync evidence --seq 5-17 --withhold user --output evidence.zip",
        "tracker-sync evidence --public-key",
    ],
    exits={0: "the bundle is complete", 1: "no bundle: nothing is selected, or a file exists"},
)
@click.option(
    "--session",
    metavar="ID",
    help="The events of this conversation; a beginning of its id is enough.",
)
@click.option("--last", is_flag=True, help="The events of the conversation that started last.")
@click.option("--seq", "seqs", type=Seqs(), metavar="N[-M]", help="The events with these seqs.")
@click.option("--since", type=Since(), metavar="WHEN", help="Events logged since, as in `list`.")
@click.option("--until", type=Since(), metavar="WHEN", help="Events logged before.")
@click.option(
    "--withhold",
    type=click.Choice(["user", "data"]),
    multiple=True,
    help="Leave out the user id, or the data, which can still be shown later. Can be repeated.",
)
@click.option(
    "--complete", is_flag=True, help="Show that no event in between is left out, as digests."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The new file.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--public-key", is_flag=True, help="Only print the device's public key.")
@json_option
@click.pass_obj
def evidence(place: Place, /, *, as_json: bool, **options: Any) -> None:
    """Write a bundle that proves what was recorded.

    It can be checked without the outbox, and without this program: `python verifier.py FILE --key
    KEY`, with the one file verifier.py of tracker/evidence. If anything is new, a checkpoint over
    it is logged first. What the collector has signed is in it too: upload before (`tracker-sync
    flush`). Print the device's public key when it is set up (--public-key), and note it elsewhere:
    a key out of the bundle would prove nothing.
    """
    from tracker.audit import evidence as bundles

    target = existing(place)
    spare(target, options["output"])
    with opened_to_change(target) as outbox:
        if options["public_key"]:
            key = bundles.device_key(outbox)
            if key is None:
                raise WrongConfiguration(
                    "there is no key that could sign: the extra [evidence] is not installed (pip "
                    "install 'agent-tracking-sdk[evidence]'), or a warning above says why"
                )
            click.echo(key)
            return
        with outbox.reading() as connection:
            selection = _selection(connection, options)
        if options["output"] is None:
            raise click.UsageError("give --output FILE")
        try:
            made = bundles.write(
                outbox,
                options["output"],
                selection,
                withhold=frozenset(options["withhold"]),
                complete=options["complete"],
                replace=options["force"],
            )
        except ValidationError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        echo_json(asdict(made))
    else:
        _print(options["output"], made)


def _selection(connection: Connection, options: Mapping[str, Any]) -> Selection:
    from tracker.audit.evidence import Selection
    from tracker.outbox import browse
    from tracker.queries.conversations import newest_id

    session, seqs, since, until = (options[name] for name in ("session", "seqs", "since", "until"))
    in_period = since is not None or until is not None
    if sum([session is not None, options["last"], seqs is not None, in_period]) != 1:
        raise click.UsageError("give one of --session, --last, --seq, or --since and --until")
    if options["last"]:
        session = newest_id(connection) or ""
    elif session is not None:
        session = browse.complete(connection, "session_id", session)
    return Selection(session, seqs, since, until)


def _print(path: Path, made: Evidence) -> None:
    signed = "and signed by the collector" if made.witnessed else "not signed by a collector yet"
    click.echo(f"{path}: {events(made.events)}, under a head over {made.size:,}, {signed}")
    click.echo(f"root {made.root}")
    click.echo(f"check it: python verifier.py {path} --key {made.key}")
