"""Keys for many clients at once, written as CSV so that none is ever made and not known.

A key that is stored before it is written down may be lost, and one that is written down before it
is stored may not be valid. So all keys are written to a draft first, then stored, a thousand in a
transaction, and then the draft gets its name. Whatever stops this, the same command goes on with
the keys of the draft; those that are stored already are not stored again.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from typing import IO, TYPE_CHECKING

from tracker.collector.keys import check_client_id, new_key
from tracker.errors import TrackerError
from tracker.whole_file import publish, sync_folder, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tracker.collector.keys import Keys, Terms

FIELDS = ("client_id", "key_id", "key")
"""The first line, and what each line has; in a draft, no key has an id."""
_SLICE = 1_000


class KeyFileError(TrackerError):
    """A list of clients, or the draft of a file of keys, is not what it should be."""


def read_clients(lines: Iterable[str]) -> list[str]:
    """Return the client ids in a list, one a line; empty lines do not count.

    Raises:
        KeyFileError: if a line is not a client id, or one is named twice; or there is none.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        client_id = line.rstrip("\r\n")
        if not client_id.strip():
            continue
        try:
            check_client_id(client_id)
        except ValueError as error:
            raise KeyFileError(f"line {number}: {error}") from error
        if client_id in found:
            raise KeyFileError(f"line {number} names the client of line {found[client_id]} again")
        found[client_id] = number
    if not found:
        raise KeyFileError("it names no client")
    return list(found)


def draft_of(path: Path) -> Path:
    """Return where the keys are until all of them are stored."""
    return path.with_name(f"{path.name}.draft")


def make_file(keys: Keys, clients: Sequence[str], terms: Terms, path: Path) -> None:
    """Make a key for each client and write them to a new file, or go on where this was stopped.

    Args:
        keys: Where the keys are stored.
        clients: The clients.
        terms: What the keys are made for.
        path: The file, for this user alone; it appears when all keys are valid.

    Raises:
        FileExistsError: if the file is there already.
        KeyFileError: if there is a draft for other clients.
        StorageError: if the keys cannot be stored.
        OSError: if a file cannot be written.
    """
    draft = draft_of(path)
    if draft.exists() and path.exists() and draft.samefile(path):  # stopped at the very end
        _remove(draft)
        return
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    if os.path.lexists(draft):
        made = _read(draft)
        if set(made) != set(clients):
            raise KeyFileError(
                f"{draft} has keys for other clients: finish that with its own list, or delete it"
            )
    else:
        made = {client_id: new_key() for client_id in clients}
        with whole_file(draft) as file:
            _write(file, ((client_id, "", key) for client_id, key in made.items()))
    ids = {
        client_id: key_id
        for part in slices(clients)
        for client_id, key_id in keys.add({each: made[each] for each in part}, terms).items()
    }
    with whole_file(draft, replace=True) as file:
        _write(file, ((each, str(ids[each]), made[each]) for each in clients))
    publish(draft, path)
    _remove(draft)


def slices(clients: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the clients, as many at once as one transaction stores keys for."""
    for start in range(0, len(clients), _SLICE):
        yield clients[start : start + _SLICE]


def as_text(ids: Mapping[str, int], made: Mapping[str, str]) -> str:
    """Return lines of CSV for stored keys."""
    text = io.StringIO()
    rows = ((client_id, str(ids[client_id]), key) for client_id, key in made.items())
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(file: IO[bytes], rows: Iterable[tuple[str, str, str]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows)
    finally:
        text.detach()


def _read(draft: Path) -> dict[str, str]:
    with draft.open(encoding="utf-8", newline="") as file:
        head, *rows = [*csv.reader(file)] or [[]]
    if tuple(head) != FIELDS or any(len(row) != len(FIELDS) for row in rows):
        raise KeyFileError(f"{draft} is not a draft of this command: move it away")
    return {client_id: key for client_id, _, key in rows}


def _remove(draft: Path) -> None:
    draft.unlink(missing_ok=True)
    sync_folder(draft.parent)
