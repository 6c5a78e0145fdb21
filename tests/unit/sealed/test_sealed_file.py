"""A sealed file: what was not written with the key, or is not whole, is never believed."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.sealed.form import BUNDLE, MOST_CONTENT, RECEIPTS, SealError
from tracker.sealed.reader import Reader
from tracker.sealed.seal import Seal
from tracker.sealed.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

SEAL, OTHER = Seal.of("trk_one"), Seal.of("trk_other")
CONTENTS = (b"first", b"", b"two\nlines\n", bytes(range(256)))


def written(
    contents: Sequence[bytes] = CONTENTS, seals: Sequence[Seal] = (SEAL,), kind: str = BUNDLE
) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, kind, seals, {"client_id": "c"})
    for number, content in enumerate(contents):
        writer.add({"number": number}, content)
    writer.end({"said": "all"})
    return file.getvalue()


def read(content: bytes, seal: Seal = SEAL, kind: str = BUNDLE) -> list[bytes]:
    return [entry.content for entry in Reader(io.BytesIO(content), kind).entries(seal)]


WHOLE = written()


@given(contents=st.lists(st.binary(max_size=300), max_size=6))
def test_what_was_written_is_read(contents: list[bytes]) -> None:
    """Any content, whatever bytes are in it, and none; as often as it is asked for."""
    reader = Reader(io.BytesIO(written(contents)), BUNDLE)
    reader.check(SEAL)
    assert [entry.content for entry in reader.entries(SEAL)] == contents
    assert reader.header["client_id"] == "c"


def read_until_refused(content: bytes) -> list[bytes]:
    """Return the entries before the place at which the file is refused, as it must be."""
    found = []
    try:
        for entry in Reader(io.BytesIO(content), BUNDLE).entries(SEAL):
            found.append(entry.content)  # noqa: PERF401 - what comes before an error stays
    except SealError:
        return found
    raise AssertionError("the file is not refused")


def test_a_byte_that_changed_is_found() -> None:
    """Wherever it is. Entries before it may have been read: they are as they were."""
    for place in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[place] ^= 1
        found = read_until_refused(bytes(changed))
        assert found == list(CONTENTS[: len(found)]), place


def test_a_file_that_was_cut_is_found() -> None:
    """Wherever it was cut, between two entries too."""
    for whole in (WHOLE, written(seals=(SEAL, OTHER))):
        for length in range(len(whole)):
            found = read_until_refused(whole[:length])
            assert found == list(CONTENTS[: len(found)]), length


@pytest.mark.parametrize("more", [b"\n", b"x", WHOLE])
def test_nothing_comes_after_the_end(more: bytes) -> None:
    """Not even another whole file."""
    with pytest.raises(SealError):
        read(WHOLE + more)


def test_entries_cannot_be_left_out_swapped_or_taken_from_another_file() -> None:
    """Each seal is over everything before it."""
    lines = written([b"a", b"b"]).splitlines(keepends=True)
    head, first, second, end = lines[:3], lines[3:6], lines[6:9], lines[9:]
    other = written([b"c", b"b"]).splitlines(keepends=True)[3:6]
    assert read(b"".join([*head, *first, *second, *end])) == [b"a", b"b"]
    for entries in (first, second, second + first, first + first + second, other + second):
        with pytest.raises(SealError):
            read(b"".join([*head, *entries, *end]))


def test_another_key_opens_nothing() -> None:
    """Nor does the kind of another file: receipts are no bundle."""
    with pytest.raises(SealError, match="not sealed with this key"):
        read(WHOLE, OTHER)
    with pytest.raises(SealError, match="no file of the kind tracker-receipts"):
        read(WHOLE, kind=RECEIPTS)
    renamed = WHOLE.replace(BUNDLE.encode(), RECEIPTS.encode())
    with pytest.raises(SealError, match="changed, damaged or forged"):
        read(renamed, kind=RECEIPTS)


def test_each_of_several_keys_is_enough() -> None:
    """The file names them; whoever has one of them can check all."""
    both = written(seals=(SEAL, OTHER))
    assert read(both, SEAL) == read(both, OTHER) == list(CONTENTS)
    with pytest.raises(SealError):
        read(both.replace(OTHER.name.encode(), Seal.of("trk_third").name.encode()), SEAL)


def test_a_name_that_is_claimed_is_not_enough() -> None:
    """Somebody who knows the name of the key, and not the key, can seal nothing."""
    forged = written(seals=(OTHER,)).replace(OTHER.name.encode(), SEAL.name.encode())
    with pytest.raises(SealError, match="changed, damaged or forged"):
        read(forged)


def test_neither_the_key_nor_its_hash_is_in_the_file() -> None:
    """Not as text, not as bytes."""
    digest = hashlib.sha256(b"trk_one")
    for secret in (b"trk_one", digest.hexdigest().encode(), digest.digest()):
        assert secret not in WHOLE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"tracker-bundle 1",
        b"tracker-bundle 1\n",
        b"tracker-bundle 1\n[]\n",
        b'tracker-bundle 1\n{"keys":"all"}\n',
        b'tracker-bundle 1\n{"keys":[1]}\n',
        b"tracker-bundle 1\n" + b"[" * 100_000 + b"\n",
        b'tracker-bundle 1\n{"keys":[' + b"9" * 10_000 + b"]}\n",
        b"tracker-bundle 1\n" + b"x" * 3_000_000,
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    """Whatever it is: an error of one kind."""
    with pytest.raises(SealError):
        read(content)


def test_another_version_is_named() -> None:
    """A file of a newer program is not called damaged."""
    with pytest.raises(SealError, match="another version than 1"):
        read(WHOLE.replace(b" 1\n", b" 2\n", 1))


@pytest.mark.parametrize("size", [-1, MOST_CONTENT + 1, 10**30, 1.5, "7", None, True])
def test_no_more_is_read_than_an_entry_may_have(size: object) -> None:
    """A size is not believed before it is checked: no memory is taken for it."""
    head = WHOLE.splitlines(keepends=True)[:3]
    entry = json.dumps({"bytes": size}).encode() + b"\nabc\n"
    with pytest.raises(SealError, match="no size, or too large"):
        read(b"".join([*head, entry]))


@pytest.mark.parametrize("seals", [(SEAL,), (SEAL, OTHER)])
def test_the_room_that_is_asked_for_is_enough(seals: tuple[Seal, ...]) -> None:
    """So a part never gets larger than it may be, and wastes little."""
    file = io.BytesIO()
    writer = Writer(file, BUNDLE, seals, {})
    room = writer.room_for({"number": 1}, b"x" * 1_000)
    writer.add({"number": 1}, b"x" * 1_000)
    said = dict.fromkeys(("events", "first_seq", "last_seq"), 2**63)
    writer.end({**said, "chain": "f" * 64})
    assert room - 1_024 < len(file.getvalue()) == writer.size <= room
