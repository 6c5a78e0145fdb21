"""``tracker-sync erase``: erase the data of a user, here and at the collector."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tracker import validation
from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import existing, opened_to_change
from tracker.cli.output import echo_json, events, json_option, printable
from tracker.errors import ValidationError

if TYPE_CHECKING:
    from tracker.erasure import ErasureResult


@click.command(
    cls=Command,
    examples=[
        "tracker-sync erase user_7",
        'tracker-sync erase user_7 --yes --reason "request of 2 March"',
        "tracker-sync erase user_7 --yes --json && tracker-sync flush",
    ],
    exits={
        0: "erased",
        1: "nothing is stored about the user, you answered no, the outbox cannot be written, or "
        "its files may still contain old data",
    },
)
@click.argument("user_id")
@click.option("--reason", metavar="TEXT", help="The reason. Do not name the user in it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
@click.pass_obj
def erase(place: Place, user_id: str, reason: str | None, *, yes: bool, as_json: bool) -> None:
    """Erase all data about a user from the outbox permanently.

    The data of the user's events is replaced by {"erased": true}, whether they were delivered or
    not, and the user's id goes as well. Times, types, agents and sessions stay, so the outbox still
    verifies. A compliance.erased event names the erased events; after the next flush the collector
    erases them too. Events that were pruned here have to be erased at the collector.

    Asks for confirmation; without a terminal, give --yes.
    """
    from tracker.outbox import erase as erasing
    from tracker.redaction.redactor import Redactor

    target = existing(place)
    said: dict[str, Any] = {}
    try:
        validation.check_id("USER_ID", user_id)
        if reason is not None:
            said = {"reason": validation.check_text("--reason", reason)}
    except ValidationError as error:
        raise click.UsageError(str(error)) from error
    _confirm(
        f"Erase all data about user {printable(user_id)} in {target.path} permanently?", yes=yes
    )
    said, _ = Redactor(target.config).apply("compliance.erased", said)
    with opened_to_change(target) as outbox:
        with outbox.reading() as connection:
            known = erasing.is_known(connection, user_id)
        if not known:
            raise click.ClickException(
                f"nothing is stored about the user {printable(user_id)} in {target.path}"
            )
        result = outbox.erase(user_id, said)
    if as_json:
        echo_json(vars(result))
    else:
        _print(result)
    click.get_current_context().exit(OK if result.scrubbed else FAILED)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            "erasing deletes data permanently, and there is no terminal for a confirmation: "
            "give --yes if you mean it"
        )
    click.confirm(question, abort=True, err=True)


def _print(result: ErasureResult) -> None:
    click.echo(f"{events(result.erased)} erased, named by {', '.join(result.event_ids)}")
    click.echo(f"salt of the user's hash there, stored nowhere: {result.salt}")
    if result.guessable:
        click.echo(
            f"{events(result.guessable)} from before digests had a salt: user id and digest stay, "
            "and a guess at the content can be held against the digest",
            err=True,
        )
    if result.scrubbed:
        click.echo("no trace of the old data is left in the outbox's files")
    else:
        click.echo(
            "traces of the old data are left in the outbox's files: another program reads an old "
            "state, the disk is full, or there are damaged files, which you have to delete (see "
            "`tracker-sync doctor`). `tracker-sync prune` retries",
            err=True,
        )
