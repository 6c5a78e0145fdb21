"""Events go to the collector and receipts come back by hand: `pack`, `unpack`, `receipts`."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.by_hand import NO_SERVER, Device, Shore
from tests.support.collector import ForkedCollector
from tests.support.conversations import ROOT
from tracker import AgentPerformanceTracker, Tracker
from tracker.collector.keys import Keys, Terms
from tracker.collector.settings import Settings
from tracker.collector.unpack import Bundle
from tracker.events import make_event
from tracker.outbox.queue import dead_letters, sync_state
from tracker.outbox.queue.settlement import DeadLetter, mark_dead
from tracker.outbox.read_only import ReadOnlyOutbox
from tracker.sealed.form import BUNDLE, RECEIPTS
from tracker.sealed.seal import Seal
from tracker.sealed.writer import Writer
from tracker.sync import bundle
from tracker.sync.returned import settle_returned

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from tests.support.postgresql import PostgresServer
    from tracker.outbox.outbox import Outbox

SYNC, COLLECTOR = "tracker.cli.main", "tracker.collector.main"


@pytest.fixture
def shore(tmp_path: Path) -> Shore:
    return Shore(tmp_path / "shore")


@pytest.fixture
def device(tmp_path: Path, shore: Shore, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path / "device", shore.new_key(), monkeypatch)


@pytest.fixture
def receipts(tmp_path: Path) -> Path:
    return tmp_path / "receipts"


def content_of(path: Path) -> list[str]:
    """Return an outbox's content as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


# --- the way there and back ---


def test_each_event_is_stored_once_and_then_marked(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """In order, under its seq; the account adds up, and nothing is found by `verify`."""
    ids = device.log(1_200)
    packed = device.pack("bundle")
    assert shore.unpacked(packed, receipts)["accepted"] == 1_200
    assert shore.ids() == ids
    assert device.settle(receipts) == (1_200, 0)
    assert device.delivered() == set(ids)
    account = device.account()
    assert (account.accepted, account.delivered, account.pending) == (1_200, 1_200, 0)
    report = shore.report(device.outbox_id())
    assert (report.highest_seq, list(report.missing), report.chain) == (1_200, [], "intact")
    assert device.call("verify").exit_code == 0
    assert device.called("status")["last_success_ms"] is not None


def read_as_described(content: bytes, api_key: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Read a sealed file by the protocol's page alone; return its contents and its lines."""
    key = hashlib.sha256(api_key.encode()).digest()
    name = hmac.new(key, b"tracker key name", "sha256").hexdigest()[:16]
    place, said, contents = content.index(b"\n") + 1, [], []

    def line() -> bytes:
        nonlocal place
        begun, place = place, content.index(b"\n", place) + 1
        return content[begun : place - 1]

    while place < len(content):
        said.append(json.loads(line()))
        if "bytes" in said[-1]:
            contents.append(content[place : place + said[-1]["bytes"]])
            place += said[-1]["bytes"] + 1
        seal = hmac.new(key, hashlib.sha256(content[:place]).digest(), "sha256").hexdigest()
        assert line().decode().split(" ")[said[0]["keys"].index(name)] == seal
    return contents, said


def test_the_files_are_as_the_protocol_says(device: Device, shore: Shore, receipts: Path) -> None:
    """Anybody can write the other side: bodies as they are posted, and answers as they come."""
    ids = device.log(700)
    packed = device.pack("bundle")
    shore.new_key()
    shore.unpacked(packed, receipts)
    assert packed.read_bytes().startswith(b"tracker-bundle 1\n")
    bodies, (header, *entries, end) = read_as_described(packed.read_bytes(), device.api_key)
    assert (header["client_id"], header["outbox_id"]) == ("test-client", device.outbox_id())
    sent = [json.loads(gzip.decompress(body)) for body in bodies]
    assert [event["event_id"] for body in sent for event in body["events"]] == ids
    assert [entry["events"] for entry in entries] == [500, 200]
    assert entries[0]["last_event_id"] == ids[499]
    assert (end["end"], end["entries"], end["events"]) == (True, 2, 700)
    assert (end["first_seq"], end["last_seq"]) == (1, 700)
    assert end["chain"] == sent[-1]["events"][-1]["chain"]
    before_end = packed.read_bytes().rpartition(b'{"end"')[0]
    assert end["sha256"] == hashlib.sha256(before_end).hexdigest()

    assert receipts.read_bytes().startswith(b"tracker-receipts 1\n")
    answers, (header, *entries, end) = read_as_described(receipts.read_bytes(), device.api_key)
    assert len(header["keys"]) == 2
    assert [entry["status"] for entry in entries] == [200, 200]
    assert entries[1]["event_ids"] == ids[500:]
    assert [json.loads(answer)["accepted"] for answer in answers] == [500, 200]
    assert (end["accepted"], end["duplicates"], end["rejected"]) == (700, 0, 0)


def test_pack_changes_nothing(device: Device) -> None:
    """Events stay pending, in the outbox and for the next bundle."""
    device.log(700)
    assert device.account().pending == 700
    before = content_of(device.outbox_path)
    first = device.called("pack", "--output", device.folder / "a")
    assert content_of(device.outbox_path) == before
    assert first == device.called("pack", "--output", device.folder / "b") | {
        "files": [str(device.folder / "a")]
    }
    assert (first["events"], first["first_seq"], first["last_seq"]) == (700, 1, 700)


def test_an_outbox_that_can_only_be_read_is_packed(device: Device, tmp_path: Path) -> None:
    """As on a read-only mount; no file beside it is made or changed."""
    device.log(600)
    before = {file: file.read_bytes() for file in device.folder.iterdir()}
    done = bundle.pack(
        ReadOnlyOutbox(device.outbox_path), device.config, lambda _: tmp_path / "bundle"
    )
    assert done.events == 600
    assert {file: file.read_bytes() for file in device.folder.iterdir()} == before


def test_the_files_are_this_users_alone_and_hold_no_key(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """Neither the key nor its hash, as text or as bytes: whoever finds them can send nothing."""
    device.log(10)
    packed = device.pack("bundle")
    shore.unpacked(packed, receipts)
    digest = hashlib.sha256(device.api_key.encode())
    for file in (packed, receipts):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for secret in (device.api_key.encode(), digest.hexdigest().encode(), digest.digest()):
            assert secret not in file.read_bytes()


def test_nothing_pending_is_a_bundle_too(device: Device, shore: Shore, receipts: Path) -> None:
    """So a script need not ask first."""
    device.log(1)
    shore.unpacked(device.pack("a"), receipts)
    device.settle(receipts)
    done = device.call("pack", "--output", device.folder / "b")
    assert "nothing is pending" in done.stdout
    assert shore.unpacked(device.folder / "b", receipts)["accepted"] == 0
    assert device.settle(receipts) == (0, 0)


def test_a_file_that_exists_is_kept(device: Device, shore: Shore, receipts: Path) -> None:
    """Unless --force is given; nothing is stored before."""
    device.log(1)
    packed = device.pack("bundle")
    done = device.call("pack", "--output", packed)
    assert (done.exit_code, "--force" in done.stderr) == (1, True)
    receipts.write_text("mine")
    refused = shore.unpack(packed, receipts)
    assert (refused.exit_code, "--force" in refused.output) == (1, True)
    assert (receipts.read_text(), shore.ids()) == ("mine", [])


@pytest.mark.slow
def test_postgresql_is_unpacked_into_as_well(
    device: Device, shore: Shore, receipts: Path, postgres_server: PostgresServer
) -> None:
    """With the same checks, receipts and duplicates."""
    shore.database = postgres_server.new_database()
    device.api_key = shore.new_key()
    ids = device.log(600)
    packed = device.pack("bundle")
    assert shore.unpacked(packed, receipts)["accepted"] == 600
    assert shore.unpacked(packed, receipts)["duplicates"] == 600
    assert shore.ids() == ids
    assert device.settle(receipts) == (600, 0)
    shore.revoke(1)
    assert "which is revoked" in shore.unpack(packed, receipts, "--force").output


# --- parts, in any order, with the network between ---


def test_parts_stand_alone_in_any_order(
    device: Device, shore: Shore, receipts: Path, tmp_path: Path
) -> None:
    """Each is as small as asked for; what came twice is a duplicate."""
    ids = device.log(100, size=3_000)
    small = device.called("pack", "--output", device.folder / "part", "--max-bytes", "4500")
    parts = [device.folder / os.path.basename(name) for name in small["files"]]  # noqa: PTH119
    assert len(parts) > 3
    assert parts[0].name == "part.1"
    assert all(part.stat().st_size <= 4_500 for part in parts)
    some = random.Random(3).sample(parts, len(parts))  # noqa: S311 - repeatable
    stored = 0
    for part in [*some, *some[:2]]:
        stored += shore.unpacked(part, tmp_path / f"{part.name}.receipts")["accepted"]
    assert stored == 100
    assert sorted(shore.ids()) == sorted(ids)
    for part in reversed(some):
        held = set(shore.ids())
        device.settle(tmp_path / f"{part.name}.receipts")
        assert device.delivered() <= held
    assert device.account().pending == 0
    with Tracker(device.config) as tracker:  # it need not wait for what is settled
        assert tracker.flush(5).pending == 0


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_later_flush_finds_nothing_left_whatever_the_order(
    device: Device, shore: Shore, tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Receipts that come in another order than the events leave no gap behind."""
    device.settings["batch_max_events"] = 2
    with device.outbox() as outbox:
        for _ in range(6):
            outbox.append(make_event("test.noted", {"content": os.urandom(500).hex()}))
        done = bundle.pack(outbox, device.config, lambda n: tmp_path / f"b{n}", max_bytes=4_096)
    assert len(done.files) == 3
    for number, path in enumerate(done.files):
        shore.unpacked(path, tmp_path / f"r{number}")
    for number in order:
        device.settle(tmp_path / f"r{number}")
    ((settled,),) = device.rows("SELECT settled_through FROM sync_state")
    assert settled == 6


def test_an_event_that_fits_into_no_part_is_named(device: Device) -> None:
    """With the size that is needed; no file is left, and that size is enough."""
    fill_with = os.urandom(6_000).hex()
    with device.outbox() as outbox:
        outbox.append(make_event("test.noted", {"content": "small"}))
        outbox.append(make_event("test.noted", {"content": fill_with}))
    output = device.folder / "part"
    done = device.call("pack", "--output", output, "--max-bytes", 5_000)
    assert done.exit_code == 1
    assert "the event with seq 2 needs a part of" in done.stderr
    left = [path.name for path in device.folder.iterdir() if "part" in path.name]
    assert left == ["part.1"]  # which is whole
    needed = done.stderr.partition("a part of ")[2].split()[0].replace(",", "")
    enough = device.called("pack", "--output", output, "--max-bytes", needed, "--force")
    assert enough["events"] == 2


def test_mixed_with_the_network_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles, receipts and uploads as they come: nothing is marked that is not there."""
    with ForkedCollector(tmp_path) as collector:
        shore = Shore(tmp_path / "unused")
        shore.database = collector.database
        device = Device(tmp_path / "device", collector.api_key, monkeypatch)
        device.settings["base_url"] = collector.url
        rng = random.Random(12)  # noqa: S311 - repeatable
        ids: list[str] = []
        bundles: list[Path] = []
        returned: list[Path] = []

        def upload() -> None:
            with Tracker(device.config) as tracker:
                tracker.flush(10)

        def unpack() -> None:
            returned.append(tmp_path / f"receipts-{len(returned)}")
            shore.unpacked(rng.choice(bundles), returned[-1])

        for step in range(40):
            choice = rng.random()
            if choice < 0.3 or not bundles:
                ids += device.log(rng.randrange(1, 30))
                arguments = ("--max-bytes", 4_096) if rng.random() < 0.5 else ()
                found = device.called("pack", "--output", tmp_path / f"b{step}", *arguments)
                bundles += [tmp_path / name for name in found["files"]]
            elif choice < 0.6:
                unpack()
            elif choice < 0.9 and returned:
                device.settle(rng.choice(returned))
            elif choice >= 0.9:
                upload()
            assert device.delivered() <= set(shore.ids()), step
            account = device.account()
            assert account.accepted == account.delivered + account.pending + account.dead
        unpack_all = device.pack("last")
        shore.unpacked(unpack_all, tmp_path / "last")
        device.settle(tmp_path / "last")
        assert device.account().pending == 0
        stored = [each for each in shore.events() if each["type"] == "message.logged"]
        assert sorted(event["event_id"] for event in stored) == sorted(ids)
        assert list(shore.report(device.outbox_id()).missing) == []
        assert device.call("verify").exit_code == 0


def test_events_that_are_logged_and_uploaded_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pack` ends though an application goes on; each event is stored once, by one way or both."""
    with ForkedCollector(tmp_path) as collector:
        shore = Shore(tmp_path / "unused")
        shore.database = collector.database
        device = Device(tmp_path / "device", collector.api_key, monkeypatch)
        device.settings["base_url"] = collector.url
        stopping = threading.Event()
        ids: list[str] = []
        with AgentPerformanceTracker(device.config) as tracker:

            def log() -> None:
                while not stopping.is_set():
                    ids.append(tracker.log_user_message("s", "x" * 200))

            thread = threading.Thread(target=log)
            thread.start()
            try:
                for number in range(5):
                    packed = device.pack(f"b{number}")
                    shore.unpacked(packed, tmp_path / f"r{number}")
                    device.settle(tmp_path / f"r{number}")
            finally:
                stopping.set()
                thread.join()
            assert tracker.flush(20).pending == 0
        stored = [each for each in shore.events() if each["type"] == "message.logged"]
        assert sorted(each["event_id"] for each in stored) == sorted(ids)
        account = device.account()
        assert account.accepted == account.delivered == len(shore.ids())


class Busy:
    """An outbox to which more is logged than is packed, whenever it is read."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.owner = outbox.owner
        self.reads = 0

    def reading(self) -> AbstractContextManager[Connection]:
        self.reads += 1
        assert self.reads < 10, "it is packed for ever"
        self._outbox.append_all([make_event("test.noted", {}) for _ in range(600)])
        return self._outbox.reading()


def test_what_is_logged_meanwhile_waits_for_the_next_bundle(device: Device, tmp_path: Path) -> None:
    """An application that logs faster than it is packed does not keep the command for ever."""
    with device.outbox() as outbox:
        busy: Any = Busy(outbox)
        assert bundle.pack(busy, device.config, lambda _: tmp_path / "bundle").events == 600


# --- forged, cut, changed, another's ---


def test_a_bundle_that_was_changed_stores_nothing(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """Wherever a byte changed or the end is missing: a plain message, and no receipts."""
    device.log(60)
    packed = device.pack("bundle")
    whole = packed.read_bytes()
    rng = random.Random(5)  # noqa: S311 - repeatable
    for _ in range(25):
        place = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        for content in (bytes(changed), whole[:place]):
            packed.write_bytes(content)
            done = shore.unpack(packed, receipts)
            assert done.exit_code == 1, place
            assert "is refused: " in done.output
            assert "Traceback" not in done.output
            assert not receipts.exists()
    assert shore.ids() == []
    packed.write_bytes(whole)
    assert shore.unpacked(packed, receipts)["accepted"] == 60


def test_receipts_that_were_changed_mark_nothing(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """Not even the events of those entries that are whole."""
    device.log(1_100)
    shore.unpacked(device.pack("bundle"), receipts)
    whole = receipts.read_bytes()
    rng = random.Random(6)  # noqa: S311 - repeatable
    for _ in range(25):
        place = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        for content in (bytes(changed), whole[:place]):
            receipts.write_bytes(content)
            done = device.call("receipts", receipts)
            assert done.exit_code == 1, place
            assert "is not accepted: " in done.output
    assert device.account().pending == 1_100
    receipts.write_bytes(whole)
    assert device.settle(receipts) == (1_100, 0)


def test_receipts_without_the_key_mark_nothing(device: Device, receipts: Path) -> None:
    """Somebody who knows all ids, the client and the name of the key is not enough."""
    ids = device.log(2)
    forged = Seal.of("trk_guessed")
    answer = (
        b'{"protocol":1,"first_event_id":"%s","last_event_id":"%s","accepted":2,"duplicates":0,'
        b'"rejected":[]}' % (ids[0].encode(), ids[1].encode())
    )
    with receipts.open("wb") as file:
        writer = Writer(file, RECEIPTS, [forged], {"client_id": "test-client"})
        writer.add({"status": 200, "event_ids": ids}, answer)
        writer.end({})
    assert device.call("receipts", receipts).exit_code == 1
    name = Seal.of(device.api_key).name.encode()
    receipts.write_bytes(receipts.read_bytes().replace(forged.name.encode(), name))
    done = device.call("receipts", receipts)
    assert (done.exit_code, "a seal is not valid" in done.output) == (1, True)
    assert device.account().pending == 2


def test_a_bundle_is_no_file_of_receipts(device: Device, shore: Shore, receipts: Path) -> None:
    """Nor the other way round, though both have a valid seal."""
    device.log(2)
    packed = device.pack("bundle")
    shore.unpacked(packed, receipts)
    assert device.call("receipts", packed).exit_code == 1
    assert shore.unpack(receipts, packed.with_name("new")).exit_code == 1
    assert device.account().pending == 2


@pytest.mark.parametrize("whose", ["unknown", "revoked", "operator's", "another client's"])
def test_the_key_must_be_a_valid_one_of_the_client(
    device: Device, shore: Shore, receipts: Path, whose: str
) -> None:
    """The message says which is wrong; nothing is stored."""
    device.log(2)
    if whose == "unknown":
        device.api_key = "trk_nobody_made_this_one"
    elif whose == "revoked":
        shore.revoke(1)
    else:
        device.api_key = shore.new_key(None if whose == "operator's" else "somebody-else")
    done = shore.unpack(device.pack("bundle"), receipts)
    assert done.exit_code == 1
    assert ("key 1, which is revoked" if whose == "revoked" else "unknown here") in done.output
    assert not receipts.exists()
    assert shore.ids() == []


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        (Terms(expires_at_ms=1_790_000_000_000), "key 2, which expired at 2026-09-21T14:13:20Z"),
        (Terms(scopes=["read"]), "key 2, which does not have the scope send"),
    ],
)
def test_a_key_that_expired_or_does_not_send_seals_nothing(
    device: Device, shore: Shore, receipts: Path, terms: Terms, why: str
) -> None:
    """As over the network; and receipts are for keys that send."""
    device.log(2)
    sent = device.pack("sent")
    with shore.store() as store:
        device.api_key, _ = Keys(store).create("test-client", terms=terms)
    done = shore.unpack(device.pack("bundle"), receipts)
    assert done.exit_code == 1
    assert why in done.output
    assert shore.ids() == []
    assert shore.unpacked(sent, receipts)["accepted"] == 2
    assert device.call("receipts", receipts).exit_code == 1
    with shore.store() as store:
        used = [at is not None for _, at in Keys(store).each()]
    assert used == [True, False]


def test_a_body_of_another_client_is_refused(shore: Shore, tmp_path: Path) -> None:
    """A key seals for its own client only, whatever the bodies in the bundle say."""
    key = shore.new_key("mallory")
    with (tmp_path / "forged").open("wb") as file:
        writer = Writer(file, BUNDLE, [Seal.of(key)], {"client_id": "mallory"})
        body = b'{"protocol":1,"client_id":"test-client","outbox_id":"%s","sent_at_ms":1,' % (
            b"01990f5a-7c1e-4b0e-9f43-0d5a7a4b9d11"
        )
        writer.add({"events": 1, "first_event_id": "x"}, body + b'"events":[{}]}')
        writer.end({})
    done = shore.unpack(tmp_path / "forged", tmp_path / "receipts")
    assert done.exit_code == 1
    assert "a body was refused: 403 client_mismatch" in done.output
    assert shore.events() + shore.events("mallory") == []


def test_receipts_of_another_outbox_mark_nothing(
    device: Device, shore: Shore, receipts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same client, with the same key and the same seqs: its events have other ids."""
    other = Device(tmp_path / "other", device.api_key, monkeypatch)
    other.log(5)
    device.log(5)
    shore.unpacked(other.pack("bundle"), receipts)
    assert device.settle(receipts) == (0, 0)
    assert device.account().pending == 5
    assert other.settle(receipts) == (5, 0)


def test_receipts_of_another_client_are_refused(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """Even if both had the same key."""
    device.log(1)
    with receipts.open("wb") as file:
        writer = Writer(file, RECEIPTS, [Seal.of(device.api_key)], {"client_id": "another"})
        writer.end({})
    done = device.call("receipts", receipts)
    assert (done.exit_code, "another client" in done.output) == (1, True)


def test_receipts_of_a_former_collector_mark_nothing(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """After `rebind`, though the key is the same: the new collector has none of the events."""
    device.log(2)
    shore.unpacked(device.pack("bundle"), receipts)
    new = "http://127.0.0.1:10"
    assert device.call("rebind", "--base-url", new).exit_code == 0
    device.settings["base_url"] = new
    done = device.call("receipts", receipts)
    assert (done.exit_code, f"not packed for {new}" in done.output) == (1, True)
    assert (device.account().delivered, device.account().pending) == (0, 2)
    shore.unpacked(device.pack("again"), receipts)  # the same collector under another name
    assert device.call("receipts", receipts).exit_code == 0
    assert (device.account().delivered, len(shore.ids())) == (2, 2)


def test_several_events_that_were_refused_together_stay_pending(
    device: Device, receipts: Path
) -> None:
    """Even if the receipts name them: which of them is bad is not known."""
    ids = device.log(2)
    with receipts.open("wb") as file:
        header = {"client_id": "test-client", "base_url": NO_SERVER}
        writer = Writer(file, RECEIPTS, [Seal.of(device.api_key)], header)
        error = b'{"error":{"code":"too_large","message":"no"}}'
        writer.add({"status": 413, "event_ids": ids}, error)
        writer.end({})
    done = device.call("receipts", receipts)
    assert (done.exit_code, "1 body not accepted" in done.stderr) == (1, True)
    assert device.account().pending == 2


def test_another_clients_outbox_is_neither_packed_nor_marked(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """As it would not be uploaded: its events are not this client's."""
    device.log(1)
    shore.unpacked(device.pack("bundle"), receipts)
    device.api_key = shore.new_key("another")
    for command in (["pack", "--output", device.folder / "new"], ["receipts", receipts]):
        done = device.call("--client-id", "another", *command)
        assert (done.exit_code, "belongs to client 'test-client'" in done.stderr) == (2, True)
    assert device.account().pending == 1


# --- the rotation of keys ---


def test_the_key_may_change_between_pack_and_receipts(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """The new one exists when the receipts are written, and the former one is revoked after."""
    device.log(3)
    packed = device.pack("bundle")
    new = shore.new_key()
    shore.unpacked(packed, receipts)
    shore.revoke(1)
    device.api_key = new
    assert device.settle(receipts) == (3, 0)


def test_receipts_of_before_the_new_key_name_the_one_they_need(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """With that one they are accepted; or what is pending is packed again with the new one."""
    device.log(3)
    shore.unpacked(device.pack("bundle"), receipts)
    former, device.api_key = device.api_key, shore.new_key()
    done = device.call("receipts", receipts)
    assert done.exit_code == 1
    assert f"the API key named {Seal.of(former).name}" in done.output
    assert device.account().pending == 3
    again = receipts.with_name("again")
    assert shore.unpacked(device.pack("again"), again)["duplicates"] == 3
    device.api_key, new = former, device.api_key
    assert device.settle(receipts) == (3, 0)
    device.api_key = new
    assert device.settle(again) == (0, 0)


# --- what happened meanwhile ---


@pytest.mark.parametrize("erasure_first", [True, False])
def test_what_was_erased_meanwhile_is_erased_at_the_collector(
    device: Device, shore: Shore, receipts: Path, *, erasure_first: bool
) -> None:
    """Whether the erasure comes after the bundle or before it, and without what it erased."""
    device.settings["batch_max_events"] = 1
    with device.outbox() as outbox:
        agent, session = os.urandom(128).hex(), os.urandom(128).hex()  # so that it stays large
        outbox.append(
            make_event("test.noted", {}, user_id="user", agent_id=agent, session_id=session)
        )
        packed = device.pack("clear")
        assert outbox.erase("user", {}).erased == 1
        parts = bundle.pack(
            outbox, device.config, lambda number: device.folder / f"part.{number}", max_bytes=2_450
        )
    assert len(parts.files) == 2
    files = [parts.files[1], packed] if erasure_first else [packed, parts.files[1]]
    for file in files:
        assert shore.unpacked(file, receipts)["accepted"] == 1
        device.settle(receipts)
    assert device.account().pending == 0
    (noted,) = [event for event in shore.events() if event["type"] == "test.noted"]
    assert (noted["data"], noted["user_id"]) == ({"erased": True}, None)
    assert device.call("verify").exit_code == 0


def test_what_was_pruned_or_given_up_meanwhile_is_not_counted_twice(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """Delivered and pruned, or discarded by an operator: the account adds up as it was."""
    ids = device.log(6)
    packed = device.pack("bundle")
    shore.unpacked(packed, receipts)
    device.settle(receipts)
    device.call("prune", "--days", "0")
    before = device.account()
    shore.unpacked(packed, receipts)
    assert device.settle(receipts) == (0, 0)
    assert device.account() == before

    more = device.log(4)
    packed = device.pack("more")
    with device.outbox() as outbox:
        seqs = [seq for (seq,) in device.rows("SELECT seq FROM pending")][:2]
        letters = [DeadLetter(seq, "no", "no") for seq in seqs]
        outbox.run(lambda each: mark_dead(each.connection, letters))
        outbox.run(dead_letters.discard())
    shore.unpacked(packed, receipts)
    device.settle(receipts)
    account = device.account()
    assert sum(account.discarded.values()) == 2
    parts = account.delivered + account.pending + account.dead + 2
    assert account.accepted == parts
    assert set(ids + more) <= set(shore.ids())


def test_what_the_collector_rejects_becomes_a_dead_letter(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """With its reason; the others are delivered. An operator's retry makes it pending again."""
    with device.outbox() as outbox:
        outbox.append(make_event("test.noted", {}, agent_id="good"))
        outbox.append(make_event("test.noted", {}, agent_id="a\0b"))
    shore.unpacked(device.pack("bundle"), receipts)
    assert device.settle(receipts) == (1, 1)
    ((code, message),) = device.rows("SELECT code, message FROM dead_letters")
    assert (code, message) == ("invalid_event", "agent_id: has a NUL character")
    assert device.settle(receipts) == (0, 0)
    device.call("dead", "retry", "--all")
    assert device.account().pending == 1
    assert device.settle(receipts) == (0, 1)


def test_a_body_beyond_the_collectors_limits_is_answered_as_over_http(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """An event that is too large by itself becomes a dead letter; several stay pending."""
    device.settings["batch_max_events"] = 2
    device.log(3, size=5_000)
    with device.outbox() as outbox:
        bundle.pack(outbox, device.config, lambda _: device.folder / "bundle")
        settings = Settings(max_decoded_bytes=4_000)
        with (
            (device.folder / "bundle").open("rb") as packed,
            shore.store() as store,
            receipts.open("xb") as written,
        ):
            done = Bundle(packed, store, settings).store(written)
        assert [why.split(":")[0] for why in done.refused] == ["413 too_large"] * 2
        with receipts.open("rb") as file:
            result = settle_returned(outbox, device.config, file)
    assert (result.delivered, result.dead, len(result.refused)) == (0, 1, 1)
    account = device.account()
    assert (account.pending, account.dead) == (2, 1)
    assert device.rows("SELECT seq, code FROM dead_letters") == [(3, "too_large")]
    assert device.call("receipts", receipts).exit_code == 1


def test_rows_that_changed_on_disk_are_left_out_and_named(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """They are not sent as if whole; nothing is done to them here."""
    ids = device.log(3)
    with closing(sqlite3.connect(device.outbox_path)) as connection, connection:
        connection.execute("UPDATE events SET data = '{}' WHERE seq = 2")
    done = device.call("pack", "--output", device.folder / "bundle")
    assert "1 event left out" in done.stderr
    shore.unpacked(device.folder / "bundle", receipts)
    assert shore.ids() == [ids[0], ids[2]]
    assert device.settle(receipts) == (2, 0)
    assert device.account().pending == 1


# --- copies ---


def test_an_older_copy_marks_only_what_it_has(
    device: Device, shore: Shore, receipts: Path, tmp_path: Path
) -> None:
    """By id, not by seq. The collector has more than it ever had, so it goes on under a new id."""
    old = device.log(3)
    former = device.outbox_id()
    shutil.copy(device.outbox_path, tmp_path / "older")
    device.log(3)
    shore.unpacked(device.pack("bundle"), receipts)
    for file in device.folder.glob("outbox.sqlite3*"):
        file.unlink()
    shutil.copy(tmp_path / "older", device.outbox_path)
    new = device.log(2)  # under seqs that the receipts know as others
    assert device.settle(receipts) == (3, 0)
    assert device.delivered() == set(old)
    assert device.outbox_id() != former
    again = tmp_path / "again"
    shore.unpacked(device.pack("again"), again)
    device.settle(again)
    assert device.account().pending == 0
    assert set(old + new) <= set(shore.ids())
    assert device.settle(receipts) == (0, 0)


def test_two_copies_that_pack_are_told(
    device: Device, shore: Shore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over the network: both go on under new ids, and nothing is lost."""
    device.log(2)
    other = Device(tmp_path / "copy", device.api_key, monkeypatch)
    shutil.copy(device.outbox_path, other.outbox_path)
    ids = device.log(2) + other.log(2)
    bundles = [each.pack("bundle") for each in (device, other)]
    shore.unpacked(bundles[0], tmp_path / "r0")
    shore.unpacked(bundles[1], tmp_path / "r1")
    before = device.outbox_id()
    assert device.settle(tmp_path / "r0") == (4, 0)
    assert device.outbox_id() == before
    done = other.call("receipts", tmp_path / "r1")
    assert done.exit_code == 0
    assert "two copies of this outbox have sent" in done.stderr
    assert other.outbox_id() != before
    assert set(ids) <= set(shore.ids())


def test_a_backup_is_not_packed(device: Device) -> None:
    """It would be sent under the id of the outbox that it is a backup of."""
    device.log(1)
    device.call("backup", device.folder / "copy.sqlite3")
    device.settings["outbox_path"] = device.folder / "copy.sqlite3"
    done = device.call("pack", "--output", device.folder / "bundle")
    assert done.exit_code == 2
    assert "backup" in done.stderr


def test_a_signed_head_comes_back(device: Device, shore: Shore, tmp_path: Path) -> None:
    """So a device that no network reaches has evidence too; older receipts put nothing back."""
    for number in range(2):
        with Tracker(device.config) as tracker:
            tracker.track("test.noted", {"number": number})
            tracker.flush(0)
        with device.outbox() as outbox:
            assert outbox.checkpoint(0)
        shore.unpacked(device.pack(f"b{number}"), tmp_path / f"r{number}")
        device.settle(tmp_path / f"r{number}")
    newest = device.rows("SELECT witness FROM tree")
    assert device.rows("SELECT json_extract(witness, '$[0]') FROM tree") == [(3,)]
    device.settle(tmp_path / "r0")
    assert device.rows("SELECT witness FROM tree") == newest
    made = device.called("evidence", "--seq", "1", "--output", tmp_path / "evidence.zip")
    assert made["witnessed"]


def test_a_pause_ends_only_if_nothing_is_pending(
    device: Device, shore: Shore, receipts: Path
) -> None:
    """`status` goes on saying why uploads wait, as long as there is something to upload."""
    device.log(2)
    packed = device.pack("bundle")
    shore.unpacked(packed, receipts)
    device.log(1)
    assert device.call("flush", "--timeout", "0.5").exit_code == 1
    assert device.called("status")["paused_because"] is not None
    device.settle(receipts)
    assert device.called("status")["paused_because"] is not None
    shore.unpacked(device.pack("rest"), receipts)
    device.settle(receipts)
    assert device.called("status")["paused_because"] is None


def test_receipts_without_a_warning_end_none(device: Device, shore: Shore, receipts: Path) -> None:
    """A newer answer, which came over the network meanwhile, may have given it."""
    device.log(1)
    shore.unpacked(device.pack("bundle"), receipts)
    with device.outbox() as outbox:
        outbox.run(sync_state.write_state(warning="quota"))
    device.settle(receipts)
    assert device.rows("SELECT warning FROM sync_state") == [("quota",)]


# --- at once ---


def test_several_unpack_and_settle_at_once(device: Device, shore: Shore, tmp_path: Path) -> None:
    """Each event is stored once and counted once, by whichever process was first."""
    ids = device.log(2_000)
    packed = device.pack("bundle")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SDK_API_KEY": device.api_key}
    unpacking = [
        [COLLECTOR, "unpack", packed, "--receipts", tmp_path / f"r{number}", "--json",
         "--database", shore.database]
        for number in range(3)
    ]  # fmt: skip
    settling = [
        [SYNC, "--outbox", device.outbox_path, "receipts", tmp_path / f"r{number}", "--json"]
        for number in range(3)
    ]
    for lines, count in ((unpacking, "accepted"), (settling, "delivered")):
        started = [
            subprocess.Popen(
                [sys.executable, "-m", *map(str, line)], env=environment, stdout=subprocess.PIPE
            )
            for line in lines
        ]
        found = [json.loads(process.communicate(timeout=60)[0]) for process in started]
        assert sum(each[count] for each in found) == 2_000
    assert sorted(shore.ids()) == sorted(ids)
    account = device.account()
    assert (account.accepted, account.delivered, account.pending) == (2_000, 2_000, 0)


# --- odd files ---


@pytest.fixture
def odd(tmp_path: Path) -> list[Path]:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = ["pipe", "empty", "folder", "dangling", "loop", "missing", "x" * 300, "a\nb"]
    return [tmp_path / name for name in names]


def test_odd_files_are_refused_in_one_line(
    device: Device, shore: Shore, odd: list[Path], tmp_path: Path
) -> None:
    """As bundle, as receipts, and where nothing but a new file can be written."""
    device.log(1)
    for path in odd:
        for done in (
            shore.unpack(path, tmp_path / "new"),
            device.call("receipts", path),
        ):
            assert done.exit_code in (1, 2), path
            assert len(done.stderr.strip().splitlines()) <= 4
            assert isinstance(done.exception, SystemExit)
            assert path.name != "pipe" or "not a regular file" in done.output
    for path in odd[:5] + odd[6:7]:
        for force in ((), ("--force",)):
            if path.name == "empty" and force:
                continue
            if path.name in ("dangling", "loop") and force:
                continue  # a link is replaced, not what it leads to
            done = device.call("pack", "--output", path, *force)
            assert done.exit_code in (1, 2), (path, force, done.output)
            assert isinstance(done.exception, SystemExit)
    assert device.account().pending == 1


@pytest.mark.parametrize("client_id", ["\ud800", "a\0b", "", " a", "x" * 300, None, 7, ["a"]])
def test_a_header_that_nobody_sealed_is_not_trusted(
    shore: Shore, tmp_path: Path, client_id: object
) -> None:
    """It is read before any key is known, so whatever it says ends in one line."""
    shore.new_key()
    with (tmp_path / "odd").open("wb") as file:
        Writer(file, BUNDLE, [Seal.of("trk_x")], {"client_id": client_id}).end({})
    done = shore.unpack(tmp_path / "odd", tmp_path / "receipts")
    assert done.exit_code == 1
    assert "is refused: " in done.output
    assert isinstance(done.exception, SystemExit)


def test_no_name_is_no_file(device: Device) -> None:
    """An empty variable in a script, for instance."""
    device.log(1)
    for more in ((), ("--max-bytes", 10_000)):
        done = device.call("pack", "--output", "", *more)
        assert (done.exit_code, isinstance(done.exception, SystemExit)) == (2, True)


def test_no_file_of_the_outbox_is_replaced(device: Device) -> None:
    """Not by a part either, whatever --force says."""
    device.log(1)
    device.settings["outbox_path"] = device.folder / "events.1"
    shutil.copy(device.folder / "outbox.sqlite3", device.folder / "events.1")
    for output, more in (("events.1", ()), ("events", ("--max-bytes", 10_000))):
        done = device.call("pack", "--output", device.folder / output, "--force", *more)
        assert (done.exit_code, "a file of the outbox" in done.output) == (2, True)
    assert device.account().pending == 1


def test_no_other_database_is_replaced(device: Device, shore: Shore, receipts: Path) -> None:
    """Such as another client's outbox, whose pending events would be gone."""
    device.log(1)
    packed = device.pack("bundle")
    other = device.folder / "other.sqlite3"
    shutil.copy(device.folder / "outbox.sqlite3", other)
    before = content_of(other)
    for done in (
        device.call("pack", "--output", other, "--force"),
        device.call("export", "--output", other, "--force"),
        shore.unpack(packed, other, "--force"),
    ):
        assert (done.exit_code, "is a database, which is not replaced" in done.output) == (2, True)
    assert content_of(other) == before
    link = receipts.with_name("link")
    link.symlink_to(other)  # the link alone is replaced
    device.call("pack", "--output", link, "--force")
    assert (link.is_symlink(), content_of(other)) == (False, before)


def test_no_file_of_the_collector_is_replaced_by_receipts(device: Device, shore: Shore) -> None:
    """Whatever --force says, and under whatever name: the events would be at neither end."""
    device.log(1)
    packed = device.pack("bundle")
    database = Path(shore.database)
    link = packed.with_name("link")
    link.symlink_to(database)
    beside = [database.with_name(database.name + end) for end in ("-wal", ".lock", ".witness-key")]
    witness_key = database.with_name("key")
    for receipts in (database, link, *beside, witness_key):
        done = shore.unpack(packed, receipts, "--force", "--witness-key", str(witness_key))
        assert (done.exit_code, "a file of the collector" in done.output) == (2, True)
    assert shore.ids() == []
    shore.unpacked(packed, packed.with_name("receipts"))
    assert len(shore.ids()) == 1


def test_the_bundle_is_not_replaced_by_its_receipts(device: Device, shore: Shore) -> None:
    """Under whatever name."""
    device.log(1)
    packed = device.pack("bundle")
    link = packed.with_name("link")
    link.symlink_to(packed)
    for receipts in (packed, link):
        assert shore.unpack(packed, receipts, "--force").exit_code == 2
    assert shore.ids() == []
