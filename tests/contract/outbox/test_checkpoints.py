"""Signed heads of the tree: when they are logged, what they cover, and that nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conversations import ROOT
from tracker import ConfigurationError, Tracker
from tracker.events import make_event
from tracker.evidence import keys, note
from tracker.evidence.tree import Frontier, Tree
from tracker.evidence.verifier import Checkpoint, is_extension, parse_checkpoint, signers
from tracker.outbox.integrity import checkpoint, tree, verify
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.sync.destination import Delivery, Outcome, SignedHead
from tracker.sync.flush import FlushResult
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

HOUR = 3_600.0


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    opened = Outbox(config(on_error="raise"))
    yield opened
    opened.close()


def fill(outbox: Outbox, count: int) -> None:
    def store(transaction: Any) -> None:
        for number in range(count):
            transaction.append(make_event("test.noted", {"n": number}, user_id="u"))

    outbox.run(store)


def checkpoints(path: Path) -> list[dict[str, Any]]:
    query = "SELECT data FROM events WHERE type = 'integrity.checkpoint' ORDER BY seq"
    with closing(sqlite3.connect(path)) as connection:
        return [json.loads(data) for (data,) in connection.execute(query)]


def digests(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT digest FROM events ORDER BY seq").fetchall()
    return [bytes.fromhex(digest) for (digest,) in rows]


def root_of(leaves: list[bytes]) -> bytes:
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def deliver(outbox: Outbox) -> None:
    while True:
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 500, 1 << 22)
        if not batch.rows:
            return
        outbox.run(settlement.settle(batch))


def test_a_head_covers_all_events_before_it(outbox: Outbox) -> None:
    """It is signed with the key beside the outbox, and extends what the receiver has signed."""
    heads: list[Checkpoint] = []
    for count in (1, 254, 1, 700, 3_000):
        fill(outbox, count)
        stored = digests(outbox.path)
        assert outbox.checkpoint(0)
        data = checkpoints(outbox.path)[-1]
        head = parse_checkpoint(data["note"].encode())
        assert (head.size, head.root) == (len(stored), root_of(stored))
        owner, public = outbox.owner.outbox_id, keys.load(key_of(outbox)).public_key
        device = note.device_key(owner, public)
        assert list(signers(head.note, [device])) == [device]
        if heads:
            proof = [bytes.fromhex(each) for each in data["consistency"]]
            old = heads[-1]
            assert data["old_size"] == old.size
            assert is_extension(old.size, old.root, head.size, head.root, proof)
        heads.append(head)
        assert outbox.note_witness(head.size, head.root.hex(), "the receiver's note")
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()


def key_of(outbox: Outbox) -> Path:
    return outbox.path.with_name(outbox.path.name + ".signing-key")


def test_an_idle_outbox_comes_to_rest(outbox: Outbox) -> None:
    """A checkpoint is nothing new; nor is one due before its time."""
    assert not outbox.checkpoint(0)
    fill(outbox, 2)
    assert not outbox.checkpoint(HOUR)
    assert outbox.checkpoint(0)
    assert [outbox.checkpoint(0) for _ in range(3)] == [False] * 3
    fill(outbox, 999)
    assert not outbox.checkpoint(HOUR)
    fill(outbox, 1)
    assert outbox.checkpoint(HOUR)
    assert len(checkpoints(outbox.path)) == 2


def test_what_was_removed_stays_in_the_tree(outbox: Outbox) -> None:
    """In any order of removing and hashing; whole tiles keep only their hash."""
    draw = random.Random(5)  # noqa: S311 - not secrets
    every: list[bytes] = []
    for _ in range(6):
        fill(outbox, draw.randrange(100, 600))
        with outbox.reading() as connection:
            before = connection.exec_driver_sql("SELECT seq, digest FROM events").all()
        every += [bytes.fromhex(digest) for seq, digest in before if seq > len(every)]
        deliver(outbox)
        if draw.random() < 0.5:
            outbox.run(retention.free_delivered(draw.randrange(0, len(every))))
        assert outbox.checkpoint(0)
        head = parse_checkpoint(checkpoints(outbox.path)[-1]["note"].encode())
        assert (head.size, head.root) == (len(every), root_of(every))
    with outbox.snapshot() as connection:
        source = tree.StoredTree(connection)
        size = tree.frontier(connection).size
        for (seq,) in connection.exec_driver_sql("SELECT seq FROM events").all():
            if seq <= size:
                assert Tree(source, size).inclusion(seq)
    deliver(outbox)
    after = 0
    while after >= 0:
        _, after = outbox.run(retention.free_delivered(after))
    with outbox.reading() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM removed_digests").scalar_one()
    assert kept < 256


def test_the_tile_of_the_signed_head_stays(outbox: Outbox) -> None:
    """Until the receiver has signed a later head, the next one is proved to extend it."""

    def remove_all_delivered() -> None:
        deliver(outbox)
        after = 0
        while after >= 0:
            _, after = outbox.run(retention.free_delivered(after))

    fill(outbox, 300)
    leaves = digests(outbox.path)
    assert outbox.checkpoint(0)
    assert outbox.note_witness(300, root_of(leaves).hex(), "the receiver's note")
    for _ in range(3):
        fill(outbox, 900)
        remove_all_delivered()
        assert outbox.checkpoint(0)
    data = checkpoints(outbox.path)[-1]
    head = parse_checkpoint(data["note"].encode())
    proof = [bytes.fromhex(each) for each in data["consistency"]]
    assert data["old_size"] == 300
    assert is_extension(300, root_of(leaves), head.size, head.root, proof)
    assert outbox.note_witness(head.size, head.root.hex(), "the receiver's note")
    with outbox.reading() as connection:
        kept = connection.exec_driver_sql("SELECT min(seq) FROM removed_digests").scalar_one()
    assert kept > 512


def test_a_backlog_is_hashed_in_parts(outbox: Outbox) -> None:
    """Uploads need not wait for all of it: each call goes on where the last one ended."""
    fill(outbox, 5_000)
    assert [outbox.checkpoint(0, within=0.0) for _ in range(3)] == [False, False, True]
    head = parse_checkpoint(checkpoints(outbox.path)[0]["note"].encode())
    assert head.size == 5_000


def test_logging_calls_get_their_turn_while_a_backlog_is_hashed(outbox: Outbox) -> None:
    """A call waits for one job, not for all of them."""
    fill(outbox, 40_000)
    done, calls = threading.Event(), 0

    def call() -> None:
        nonlocal calls
        while not done.wait(0.002):
            outbox.append(make_event("test.noted", {}))
            calls += 1

    thread = threading.Thread(target=call)
    thread.start()
    assert outbox.checkpoint(0)
    done.set()
    thread.join()
    assert calls > 10


@pytest.mark.parametrize("stored", ["x", "5", "[1]", '[10, 5, "6"]', '{"a": 1}'])
def test_bookkeeping_written_by_hand_raises_nothing(outbox: Outbox, stored: str) -> None:
    """Without the last signed head there is none; without the list of unknown, no checkpoint."""
    fill(outbox, 2)
    assert outbox.checkpoint(0)
    for column, logged in (("witness", True), ("unknown", False)):
        fill(outbox, 600)
        with closing(sqlite3.connect(outbox.path)) as connection, connection:
            connection.execute(f"UPDATE tree SET {column} = ?", (stored,))  # noqa: S608 - constants
        assert outbox.checkpoint(0) is logged


BROKEN = {
    "no library": "raise ImportError('libssl.so.3: cannot open shared object file')",
    "another package of the name": "",
    "a bug": "raise RuntimeError('bug')",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=list(BROKEN))
def test_uploads_go_on_where_nothing_can_sign(tmp_path: Path, content: str) -> None:
    """The package that signs may be installed and not work; events are delivered as ever."""
    package = tmp_path / "path" / "cryptography"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(content)
    program = (
        "import os, queue, sys\n"
        "sys.path.insert(0, os.path.join(sys.argv[1], 'path'))\n"
        "from tracker import APIConfig, Tracker\n"
        "from tracker.testing import RecordingDestination\n"
        "types = queue.SimpleQueue()\n"
        "class Destination(RecordingDestination):\n"
        "    def send(self, upload):\n"
        "        delivery, count = super().send(upload), len(upload.events)\n"
        "        for event in self.events[-count:]: types.put(event['type'])\n"
        "        return delivery\n"
        "config = APIConfig(api_key='k', outbox_path=os.path.join(sys.argv[1], 'o.sqlite3'))\n"
        "with Tracker(config, destination=Destination) as tracker:\n"
        "    for _ in range(1_000): tracker.track('thing.happened')\n"
        "    tracker.flush(20)\n"
        "    for n in range(3):\n"
        "        tracker.track('thing.happened.%d' % n)\n"
        "        while types.get(timeout=10) != 'thing.happened.%d' % n: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_digest_that_is_gone_is_named(outbox: Outbox) -> None:
    """Cut out by hand, or removed before there was a tree."""
    fill(outbox, 9)
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE seq IN (3, 4, 7)")
    assert outbox.checkpoint(0)
    fill(outbox, 1)
    assert outbox.checkpoint(0)
    first, second = checkpoints(outbox.path)
    assert first["unknown"] == [[3, 4], [7, 7]]
    assert "unknown" not in second


def test_a_digest_changed_by_hand_does_not_fit_the_head(outbox: Outbox) -> None:
    """Who has no signing key cannot make the head again."""
    fill(outbox, 5)
    assert outbox.checkpoint(0)
    head = parse_checkpoint(checkpoints(outbox.path)[0]["note"].encode())
    forged = hashlib.sha256(b"forged").hexdigest()
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.execute("UPDATE events SET digest = ? WHERE seq = 2", (forged,))
    with outbox.snapshot() as connection_:
        assert Tree(tree.StoredTree(connection_), head.size).root() != head.root


def test_the_configured_key_signs(config: MakeConfig) -> None:
    """No file is made then; a text that is no key is refused at construction, and not shown."""
    generated = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, text=True, check=True
    )
    settings = config(signing_key=generated.stdout)
    assert "PRIVATE" not in repr(settings)
    outbox = Outbox(settings)
    fill(outbox, 1)
    assert outbox.checkpoint(0)
    assert not key_of(outbox).exists()
    device = note.device_key(outbox.owner.outbox_id, keys.from_text(generated.stdout).public_key)
    head = parse_checkpoint(checkpoints(outbox.path)[0]["note"].encode())
    assert list(signers(head.note, [device])) == [device]
    outbox.close()
    with pytest.raises(ConfigurationError, match="signing_key is not a private key") as caught:
        config(signing_key="s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_a_damaged_key_file_signs_nothing_and_stays(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The head is logged without a signature, the log names the file, and nothing replaces it."""
    key_of(outbox).write_text("not a key")
    fill(outbox, 1)
    assert outbox.checkpoint(0)
    assert checkpoints(outbox.path)[0]["note"].endswith("\n\n")
    assert key_of(outbox).read_text() == "not a key"
    assert "are not signed" in caplog.text


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_key_file_is_not_waited_for_nor_followed(
    outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A link may lead to somebody else's key, and a pipe has no end."""
    if kind == "pipe":
        os.mkfifo(key_of(outbox))
    else:
        keys.load_or_create(tmp_path / "another.key")
        key_of(outbox).symlink_to(tmp_path / "another.key")
    fill(outbox, 1)
    assert outbox.checkpoint(0)
    assert checkpoints(outbox.path)[0]["note"].endswith("\n\n")
    assert str(key_of(outbox)) in caplog.text


def test_a_key_that_can_be_read_again_signs_again(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, or wrong rights, for a while: later heads are signed without a restart."""
    key_of(outbox).write_text("not a key")
    for _ in range(2):
        fill(outbox, 1)
        assert outbox.checkpoint(0)
    assert caplog.text.count("are not signed") == 1
    key_of(outbox).unlink()
    fill(outbox, 1)
    assert outbox.checkpoint(0)
    notes = [each["note"] for each in checkpoints(outbox.path)]
    assert [text.endswith("\n\n") for text in notes] == [True, True, False]


def signed_head(text: str, size: int, root: str) -> Callable[[Any], Delivery]:
    head = SignedHead(size, root, text)
    return lambda _: Delivery(Outcome.DELIVERED, witness=head)


@pytest.mark.parametrize(("size", "root"), [(9, "0" * 64), (1, "0" * 64)])
def test_a_signed_head_that_is_not_its_own_begins_a_new_id(
    config: MakeConfig, size: int, root: str
) -> None:
    """It was set back or copied: it loses nothing, and goes on under a new outbox id, once."""
    destination = RecordingDestination(signed_head("note", size, root))
    with Tracker(config(), destination=lambda: destination) as tracker:
        for _ in range(3):
            tracker.track("thing.happened")
            assert tracker.flush(10).pending == 0
        assert tracker.health().warning is None or tracker.health().warning == "rolled_back"
    outbox = Outbox(config())
    reports = [event for event in destination.events if event["type"] == "security.reported"]
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()
        pending = connection.exec_driver_sql("SELECT type FROM pending").scalars().all()
    assert len(reports) + pending.count("security.reported") == 1
    assert sum(event["type"] == "thing.happened" for event in destination.events) == 3
    outbox.close()


def test_of_those_who_find_one_due_at_the_same_moment_one_logs_it(outbox: Outbox) -> None:
    """As `flush` and the sync thread do: what is covered needs no second head."""
    together = threading.Barrier(4)

    def log() -> None:
        together.wait(30)
        outbox.checkpoint(0)

    for number in range(1, 11):
        fill(outbox, 3)
        threads = [threading.Thread(target=log) for _ in range(together.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(checkpoints(outbox.path)) == number


def test_a_kill_between_hashing_and_logging_loses_nothing(config: MakeConfig) -> None:
    """One transaction: after any kill, the next head covers all."""
    settings = config()
    program = (
        "import os, sys\n"
        "from tracker import APIConfig\n"
        "from tracker.events import make_event\n"
        "from tracker.outbox.integrity import checkpoint\n"
        "from tracker.outbox.outbox import Outbox\n"
        "outbox = Outbox(APIConfig(api_key='k', client_id='c', base_url='http://127.0.0.1:9',\n"
        "                          outbox_path=sys.argv[1]))\n"
        "for n in range(300): outbox.append(make_event('test.noted', {'n': n}))\n"
        "def job(transaction):\n"
        "    checkpoint.write(None, 0)(transaction)\n"
        "    os._exit(9)\n"
        "outbox.run(job)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, settings.outbox_path], cwd=ROOT, check=False
    )
    assert done.returncode == 9
    outbox = Outbox(config(client_id="c", base_url="http://127.0.0.1:9"))
    stored = digests(outbox.path)
    assert len(stored) == 300
    assert outbox.checkpoint(0)
    head = parse_checkpoint(checkpoints(outbox.path)[0]["note"].encode())
    assert (head.size, head.root) == (300, root_of(stored))
    outbox.close()


def test_a_head_the_receiver_signed_is_kept(outbox: Outbox) -> None:
    """The next one is proved to extend it."""
    fill(outbox, 3)
    assert outbox.checkpoint(0)
    root = root_of(digests(outbox.path)[:3])
    assert outbox.note_witness(3, root.hex(), "n")
    with outbox.reading() as connection:
        assert checkpoint.witness(connection) == (3, root.hex(), "n")


def test_flush_leaves_no_checkpoint_behind(config: MakeConfig) -> None:
    """One that is due is logged before the others are sent, and goes with them."""
    settings = config()
    outbox = Outbox(settings)
    fill(outbox, 1_000)
    outbox.close()
    destination = RecordingDestination()
    with Tracker(settings, destination=lambda: destination) as tracker:
        assert tracker.flush(20).delivered == 1_001
        assert [event["type"] for event in destination.events].count("integrity.checkpoint") == 1
        assert tracker.flush(20) == FlushResult()
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert connection.execute("SELECT count(*) FROM pending").fetchone() == (0,)
