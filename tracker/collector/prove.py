"""``tracker-collector prove``: compare the account of each outbox with its events."""

from __future__ import annotations

import json
import random
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from sqlalchemy import select

from tracker.collector import accounts
from tracker.collector.batch import ReceivedEvent, is_as_digested
from tracker.collector.integrity import state
from tracker.collector.options import database_option, opened
from tracker.collector.retention.proving import prove_archive
from tracker.collector.tables import api_keys, events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.collector.store import Store

_SECONDS = 24 * 3_600.0
_MOST_GAPS = 10
"""Maximum number of gaps that are named as differing."""
_MOST_CHANGED = 10
"""Maximum number of events of an outbox that are named as changed."""
_FETCH_ROWS = 100


class Difference(NamedTuple):
    """What the account of an outbox and its events say, where that is not the same."""

    client_id: str
    outbox_id: str
    what: str
    account: str
    events: str


@click.command()
@click.option("--outbox", "outbox_id", help="Only the outbox of this id.")
@click.option("--all", "everything", is_flag=True, help="All outboxes.")
@click.option("--client", "client_id", help="Only outboxes of this client.")
@click.option("--sample", type=click.IntRange(1), help="Only so many of them, at random.")
@click.option(
    "--archive",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Instead, what `retain --archive` wrote to this folder: files, events, chains, and that "
    "they join what is in the database.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@database_option
def prove(
    outbox_id: str | None,
    client_id: str | None,
    sample: int | None,
    folder: Path | None,
    database: str,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Read all events again, and compare them with what is kept about each outbox.

    Numbers, gaps and the links of the chain are worked out from the events alone. Each difference
    is printed; the exit code is then 1. The collector may run meanwhile.
    """
    if (everything, outbox_id is not None, folder is not None).count(True) != 1:
        raise click.UsageError("give --outbox ID, --all or --archive DIR")
    if folder is not None:
        prove_archive(folder, database, as_json=as_json)
        return
    with opened(database, must_exist=True) as store:
        chosen = _chosen(store, client_id, outbox_id)
        named = " ".join(_of(client_id, outbox_id))
        if named and not chosen and not _has_key(store, client_id, outbox_id):
            raise click.ClickException(f"nothing {named} is stored")
        if sample is not None:
            chosen = random.SystemRandom().sample(chosen, min(sample, len(chosen)))
        found = [each for outbox in chosen for each in differences(store, *outbox)]
    if as_json:
        listed = [each._asdict() for each in found]
        click.echo(json.dumps({"outboxes": len(chosen), "differences": listed}, indent=2))
    else:
        for each in found:
            click.echo(
                f"outbox {each.outbox_id} of client {each.client_id}: {each.what} is"
                f" {each.account} in the account, {each.events} by the events"
            )
        click.echo(f"{len(chosen):,} outboxes proved, {len(found):,} differences")
    if found:
        raise SystemExit(1)


def differences(store: Store, client_id: str, outbox_id: str) -> list[Difference]:
    """Return where an outbox's account is not what its events say.

    What was stored by somebody who keeps no accounts is counted first.

    Raises:
        StorageError: if the database failed.
    """
    store.count_on(client_id, outbox_id)
    with store.reading(_SECONDS) as connection:
        account = accounts.read(connection, client_id, outbox_id)
        if not account.is_complete:
            return []  # a former version stores events of it right now
        found = [*_compared(connection, account), *_changed(connection, client_id, outbox_id)]
    return [Difference(client_id, outbox_id, *each) for each in found]


def _compared(connection: Connection, account: accounts.Account) -> Iterator[tuple[str, str, str]]:
    walk, gaps = accounts.recounted(connection, account)
    kept = accounts.gaps_of(connection, account.client_id, account.outbox_id)
    odd = [pair for pair in zip_longest(kept, gaps) if pair[0] != pair[1]]
    here = account.walk
    facts = (
        ("the number of events", here.events, walk.events),
        ("the highest number", here.seq, walk.seq),
        ("the chain", state(here), state(walk)),
        ("the first broken link", here.breaks_at, walk.breaks_at),
        ("the numbers used twice", here.reused, walk.reused),
    )
    for what, told, found in facts:
        if told != found:
            yield what, _text(told), _text(found)
    for kept_gap, found_gap in islice(odd, _MOST_GAPS):
        yield "a gap", _text(kept_gap), _text(found_gap)


def _changed(
    connection: Connection, client_id: str, outbox_id: str
) -> Iterator[tuple[str, str, str]]:
    """Find events whose digest is not that of what they say now."""
    query = (
        select(*(events.c[name] for name in ReceivedEvent._fields))
        .where(events.c.client_id == client_id, events.c.outbox_id == outbox_id)
        .order_by(events.c.seq)
        .execution_options(yield_per=_FETCH_ROWS)
    )
    with connection.execute(query) as rows:
        stored = (ReceivedEvent(*row) for row in rows)
        odd = (event for event in stored if not is_as_digested(event))
        for event in islice(odd, _MOST_CHANGED):
            yield f"the digest of number {event.seq}", event.digest, "another"


def _of(client_id: str | None, outbox_id: str | None) -> Iterator[str]:
    if outbox_id is not None:
        yield f"of an outbox {outbox_id}"
    if client_id is not None:
        yield f"of a client {client_id}"


def _has_key(store: Store, client_id: str | None, outbox_id: str | None) -> bool:
    """Return True for a client that may have sent nothing yet."""
    query = select(api_keys.c.id).where(api_keys.c.client_id == client_id).limit(1)
    with store.reading() as connection:
        return outbox_id is None and connection.execute(query).first() is not None


def _text(value: object) -> str:
    return "none" if value is None or value == [] else str(value)


def _chosen(store: Store, client_id: str | None, outbox_id: str | None) -> list[tuple[str, str]]:
    with store.reading() as connection:
        return accounts.known(connection, client_id, outbox_id)
