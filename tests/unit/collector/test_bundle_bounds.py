"""How much goes into one bundle of the collector's, without HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.device_tree import DeviceTree, new_key
from tracker.collector.batch import parse_batch
from tracker.collector.evidence import Outbox, Selection
from tracker.collector.refusal import RefusedError
from tracker.collector.settings import Settings
from tracker.collector.store import Store
from tracker.collector.stored_tree import StoredTree
from tracker.collector.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.evidence.contents import Contents

MOST = Settings(max_evidence_events=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite3", witness=Witness("w", new_key()))
    yield store
    store.close()


def contents(
    store: Store,
    device: DeviceTree,
    first: int | None = None,
    last: int | None = None,
    **wanted: Any,
) -> Contents:
    selection = Selection.of(wanted.get("session_id"), (first, last), (None, None))
    with store.reading() as connection:
        tree = StoredTree(connection, "a", device.outbox_id, store.tiles)
        outbox = Outbox(connection, "a", device.outbox_id, store.witness)
        return outbox.contents(
            selection, tree, MOST, complete=wanted.get("complete", False), withhold=None
        )


def send(store: Store, device: DeviceTree, events: list[dict[str, Any]]) -> None:
    store.store_batch(parse_batch(json.dumps(device.batch(events, "a")).encode(), "a"), 1)


def test_events_digests_and_what_explains_them_count(store: Store) -> None:
    """Together: no request makes the collector hold more than its settings say."""
    device = DeviceTree()
    sent = [device.event(session_id=each) for each in ("x", *"yyyy", "x")]
    named = {"event_ids": [sent[0]["event_id"]]}
    erasures = [device.event(named, type="compliance.erased", session_id=None) for _ in range(4)]
    send(store, device, [*sent, device.head()])
    assert len(contents(store, device, 1, 5).events) == 5
    assert contents(store, device, 1, 5, complete=True).complete
    assert len(contents(store, device, session_id="x").events) == 2
    with pytest.raises(RefusedError, match="more than 5 events"):
        contents(store, device, 1, 6)
    with pytest.raises(RefusedError, match="more than 5 events"):
        contents(store, device, session_id="x", complete=True)
    send(store, device, [*erasures, device.head(6)])
    with pytest.raises(RefusedError, match="more than 5 events"):
        contents(store, device, session_id="x")
    assert len(contents(store, device, session_id="y").removals) == 0
