"""Whatever is sent, in whatever order: all heads that a witness cosigns are of one tree."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.device_tree import DeviceTree, new_key
from tracker.collector.batch import parse_batch
from tracker.collector.store import Store
from tracker.collector.witness import Witness
from tracker.evidence.tree import Tree

if TYPE_CHECKING:
    import pytest

    from tracker.collector.cosigning import Cosigned

CLIENTS = ("a", "b")
KEYS = [new_key(), new_key()]
WITNESS = Witness("w", new_key())

actions = st.fixed_dictionaries(
    {
        "by": st.integers(0, 3),
        "client": st.sampled_from(CLIENTS),
        "events": st.integers(0, 3),
        "heads": st.integers(1, 2),
        "old": st.one_of(st.just("seen"), st.integers(0, 6)),
        "size": st.integers(0, 4),
        "copied": st.booleans(),
        "another_key": st.booleans(),
        "proof": st.sampled_from(["right", "none", "of another"]),
    }
)


def head(device: DeviceTree, action: dict[str, Any], seen: int) -> dict[str, Any]:
    """Return the next head of a device that does as it is told, be that honest or not."""
    size = max(1, device.seq - action["size"])
    old = seen if action["old"] == "seen" else action["old"]
    changes: dict[str, Any] = {}
    if action["proof"] == "none":
        changes["consistency"] = []
    elif action["proof"] == "of another":
        changes["consistency"] = ["0" * 64] * 2
    made = device.head(min(old, size), size, **changes)
    if old > size:
        made = device.event({**made["data"], "old_size": old}, type=made["type"])
    return made


def all_of_one_tree(cosigned: set[tuple[int, str]], devices: list[DeviceTree]) -> bool:
    """Return True if one of the devices has, at every size, the root that was cosigned."""
    return any(
        all(
            size <= len(device.kept.of) and Tree(device.kept, size).root().hex() == root
            for size, root in cosigned
        )
        for device in devices
    )


@settings(max_examples=25)
@given(told=st.lists(actions, min_size=1, max_size=14))
def test_no_two_heads_that_contradict_are_cosigned(
    tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, Any]]
) -> None:
    """Of copies of one outbox, sent by two clients, under two keys, honestly or not."""
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        store = Store(Path(folder, "c.sqlite3"), witness=WITNESS)
        devices = [DeviceTree()]
        cosigned: set[tuple[int, str]] = set()
        seen: dict[str, Cosigned] = {}
        for action in told:
            device = devices[action["by"] % len(devices)]
            if action["copied"] and len(devices) < 4:
                device = device.copy()
                devices.append(device)
            device.key = KEYS[0] if action["another_key"] else KEYS[1]
            client = action["client"]
            size = seen[client].size if client in seen else 0
            sent = device.events(max(1, action["events"]))
            sent += [head(device, action, size) for _ in range(action["heads"])]
            batch = parse_batch(json.dumps(device.batch(sent, client)).encode(), client)
            stored = store.store_batch(batch, 1)
            assert stored.accepted == len(sent)
            if stored.cosigned is not None:
                assert client not in seen or stored.cosigned.size >= seen[client].size
                seen[client] = stored.cosigned
                cosigned.add((stored.cosigned.size, stored.cosigned.root))
        store.close()
        assert all_of_one_tree(cosigned, devices)
