"""What somebody without keys can do to an audit export, and to a collector's database."""

# ruff: noqa: S608 - the statements are made of constant text

from __future__ import annotations

import json
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.faults.forged import REMOVED
from tracker import canonical
from tracker.audit import lines as audit_lines
from tracker.audit.lines import Manifest, Seal

if TYPE_CHECKING:
    import random
    import sqlite3
    from collections.abc import Callable
    from typing import TypeAlias

    Lines: TypeAlias = list[bytes]
    OfExport: TypeAlias = Callable[[Lines, random.Random], Lines]
    OfCollector: TypeAlias = Callable[[sqlite3.Connection, random.Random], None]

OF_EXPORTS: dict[str, OfExport] = {}
OF_COLLECTORS: dict[str, OfCollector] = {}


def of_export(name: str) -> Callable[[OfExport], OfExport]:
    """Register a forgery of an export under the name of its row."""
    return lambda forgery: OF_EXPORTS.setdefault(name, forgery)


def of_collector(name: str) -> Callable[[OfCollector], OfCollector]:
    """Register a forgery of a collector's database under the name of its row."""
    return lambda forgery: OF_COLLECTORS.setdefault(name, forgery)


def sealed_again(objects: list[dict[str, Any]]) -> Lines:
    """Write an export's lines again, with a manifest that fits and a seal that takes no key."""
    *rest, last = objects
    events = [line for line in rest if "seq" in line]
    closing = {
        **last["manifest"],
        "events": sum("event_id" in line for line in events),
        "others": sum("event_id" not in line for line in events),
        "removed": sum(b - a + 1 for a, b in (x["removed"] for x in rest if "removed" in x)),
        "first_seq": events[0]["seq"],
        "last_seq": events[-1]["seq"],
        "first_chain": events[0]["chain"],
        "last_chain": events[-1]["chain"],
        "seal_key_check": 0,
    }
    del closing["seal"]
    seal = Seal(None)
    written = [audit_lines.encode(line) for line in rest]
    for line in written:
        seal.add(line)
    return [*written, audit_lines.encode_manifest(Manifest(**closing), seal)]


def opened(lines: Lines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def living(objects: list[dict[str, Any]]) -> list[int]:
    """Return the places of events that an application logged, and that were not erased."""
    return [
        n for n, line in enumerate(objects) if line.get("salt") and line["type"] == "test.noted"
    ]


@of_export("a line changed, added, deleted or moved")
def _(lines: Lines, chance: random.Random) -> Lines:
    place = chance.randrange(1, len(lines) - 2)
    how = chance.choice(["change", "add", "delete", "move"])
    if how == "change":
        line = bytearray(lines[place])
        at = chance.randrange(len(line) - 1)
        line[at] ^= 1
        lines[place] = bytes(line)
    elif how == "add":
        lines.insert(place, lines[place])
    elif how == "delete":
        del lines[place]
    else:
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return lines


@of_export("an event changed; digest, chain and seal computed again")
def _(lines: Lines, chance: random.Random) -> Lines:
    objects = opened(lines)
    place = chance.choice(living(objects))
    objects[place]["data"] = {"n": chance.randrange(10**6)}
    rechain(objects, place)
    return sealed_again(objects)


def rechain(objects: list[dict[str, Any]], place: int) -> None:
    """Give an event its right digest, and it and what follows right links, up to a removal."""
    objects[place]["digest"] = digest_of(objects[place])
    before = objects[place - 1]
    link = before["chain"] if "chain" in before else before["chain_before"]
    for line in objects[place:-1]:
        if "seq" not in line:
            break
        link = line["chain"] = canonical.chain(link, line["digest"])


@of_export("events cut out and recorded as removed, sealed again")
def _(lines: Lines, chance: random.Random) -> Lines:
    objects = opened(lines)
    inner = [n for n in living(objects) if objects[n - 1].get("seq") and objects[n + 1].get("seq")]
    place = chance.choice(inner[1:-1])
    seq, chain = objects[place]["seq"], objects[place]["chain"]
    objects[place] = {"removed": [seq, seq], "chain": chain}
    return sealed_again(objects)


@of_export("the beginning or the end cut off, sealed again")
def _(lines: Lines, chance: random.Random) -> Lines:
    head, *rest, last = opened(lines)
    count = chance.randrange(1, 4)
    if chance.random() < 0.5:
        return sealed_again([head, *rest[:-count], last])
    head["chain_before"] = rest[count - 1]["chain"]
    return sealed_again([head, *rest[count:], last])


@of_export("another export in its place, made without the key")
def _(lines: Lines, chance: random.Random) -> Lines:
    objects = opened(lines)
    objects[0]["chain_key_check"], objects[0]["keyed_from_start"] = 0, False
    objects[living(objects)[0]]["data"] = {"n": chance.randrange(10**6)}
    link = None
    for before, line in pairwise(objects[:-1]):
        if "seq" not in line:
            line.pop("proof", None)
            link = line["chain"]
        else:
            if line.get("salt"):
                line["digest"] = digest_of(line)
            link = before["chain_before"] if link is None else link
            link = line["chain"] = canonical.chain(link, line["digest"])
    return sealed_again(objects)


def digest_of(event: dict[str, Any]) -> str:
    """Return the digest that an event's line has to have."""
    names = ("event_id", "type", "timestamp_ms", "agent_id", "session_id")
    data, salt = canonical.encode(event["data"]), bytes.fromhex(event["salt"])
    head = canonical.head(*(event[name] for name in names))
    return canonical.salted_digest(head, canonical.seal(event["user_id"], data, salt))


EVENTS = "SELECT id, seq, digest, chain FROM events ORDER BY seq"


@of_collector("an event's content changed")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    column = chance.choice(["type", "agent_id", "data", "timestamp_ms", "user_id"])
    value = {"data": '{"forged":1}', "timestamp_ms": 5}.get(column, "x")
    row, *_ = chance.choice(database.execute(EVENTS).fetchall())
    database.execute(f"UPDATE events SET {column} = ? WHERE id = ?", (value, row))


@of_collector("an event's digest or chain value changed")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    change_place(database, chance, database.execute(EVENTS).fetchall()[REMOVED:])


@of_collector("the same, of an event that is pruned here")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    change_place(database, chance, database.execute(EVENTS).fetchall()[: REMOVED - 1])


def change_place(database: sqlite3.Connection, chance: random.Random, rows: list[Any]) -> None:
    """Change the digest or the chain value of one of some events."""
    row, *_ = chance.choice(rows)
    column = chance.choice(["digest", "chain"])
    value = f"{chance.getrandbits(256):064x}"
    database.execute(f"UPDATE events SET {column} = ? WHERE id = ?", (value, row))


@of_collector("events deleted")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    row, *_ = chance.choice(database.execute(EVENTS).fetchall()[:-1])
    database.execute("DELETE FROM events WHERE id = ?", (row,))


@of_collector("the newest events deleted")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    rows = database.execute(EVENTS).fetchall()
    _, seq, *_ = rows[-chance.randrange(1, 4)]
    database.execute("DELETE FROM events WHERE seq >= ?", (seq,))


@of_collector("an event added at the end")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    row, seq, _, chain = database.execute(EVENTS).fetchall()[-1]
    digest = f"{chance.getrandbits(256):064x}"
    copy(database, row, seq + 1, digest, canonical.chain(chain, digest))


@of_collector("an event given a number that another one has")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    row, seq, digest, chain = chance.choice(database.execute(EVENTS).fetchall()[REMOVED:])
    copy(database, row, seq, digest, chain)


def copy(database: sqlite3.Connection, row: int, seq: int, digest: str, chain: str) -> None:
    """Add an event that is like another one but for these."""
    database.execute(
        "INSERT INTO events (client_id, outbox_id, seq, event_id, type, timestamp_ms, data, "
        "digest, chain, received_at_ms, sent_at_ms) SELECT client_id, outbox_id, ?, ?, type, "
        "timestamp_ms, data, ?, ?, received_at_ms, sent_at_ms FROM events WHERE id = ?",
        (seq, str(uuid.uuid4()), digest, chain, row),
    )


@of_collector("an event changed; its digest and the chain computed again")
def _(database: sqlite3.Connection, chance: random.Random) -> None:
    rows = database.execute(EVENTS).fetchall()
    place = chance.randrange(1, len(rows))
    link = None
    for (_, before_seq, _, before), (row, seq, digest, chain) in pairwise(rows):
        changed = seq == rows[place][1]
        if changed:
            digest = f"{chance.getrandbits(256):064x}"
        if changed or link is not None:
            if seq != before_seq + 1:
                if not changed:
                    return
                chain = f"{chance.getrandbits(256):064x}"
            else:
                chain = canonical.chain(link or before, digest)
            link = chain
            database.execute(
                "UPDATE events SET digest = ?, chain = ? WHERE id = ?", (digest, chain, row)
            )
