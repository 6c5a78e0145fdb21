"""Time stamps over the heads that the collector cosigned."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.contract.evidence.authority import OPENSSL, Authority
from tests.support.authority_server import AuthorityServer
from tests.support.collector import ForkedCollector
from tests.support.device_tree import DeviceTree, new_key
from tests.support.uploads import wait_until
from tracker.collector.batch import parse_batch
from tracker.collector.stamping import Stamping
from tracker.collector.store import Store
from tracker.collector.witness import Witness
from tracker.evidence.verifier import Trust, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3_600_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if OPENSSL is None:
        pytest.skip("openssl is not here")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority) -> Iterator[AuthorityServer]:
    with AuthorityServer(authority.reply) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite3", witness=Witness("w", new_key()))
    yield store
    store.close()


def send(store: Store, device: DeviceTree, events: list[dict[str, Any]]) -> None:
    store.store_batch(parse_batch(json.dumps(device.batch(events, "a")).encode(), "a"), 1)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_stamp_comes_along_with_the_evidence(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    authority: Authority,
    server: AuthorityServer,
    database: str,
) -> None:
    """By itself, soon after the head; the verifier finds it by openssl."""
    arguments, url = ["--tsa", server.url, "--witness-key", str(tmp_path / "key.pem")], None
    if database == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    with ForkedCollector(tmp_path, arguments=arguments, database_url=url) as collector:
        device, client = DeviceTree(new_key()), collector.client("kiosk-17")
        client.send(device, [device.event(), device.head()])
        path = f"/v1/outboxes/{device.outbox_id}/checkpoints"

        def stamped() -> bool:
            return client.get(path)["checkpoints"][0]["stamped_at_ms"] is not None

        wait_until(stamped, "the head has a time stamp")
        answer = requests.get(
            f"{collector.url}/v1/evidence",
            params={"outbox_id": device.outbox_id, "session_id": "session-1"},
            headers=client.headers,
            timeout=10,
        )
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(answer.content)
    report = verify(bundle, Trust((str(device.verifier_key),), (), (authority.root,)))
    assert report.verdict == "PROVEN", report
    assert "by a time stamp" in str(report)


def test_an_outbox_is_stamped_once_an_hour(store: Store) -> None:
    """Its newest head, each time; another outbox waits for nobody."""
    device, other = DeviceTree(), DeviceTree()
    send(store, device, [device.event(), device.head()])
    ((first, _),) = store.heads_to_stamp(0)
    store.add_timestamp(first, b"reply", HOUR)
    send(store, device, [device.head(1)])
    send(store, device, [device.head(2)])
    send(store, other, [other.event(), other.head()])
    ((of_other, note),) = store.heads_to_stamp(2 * HOUR - 1)
    assert other.outbox_id in note
    ((due, note), (same, _)) = store.heads_to_stamp(2 * HOUR)
    assert same == of_other
    assert note.startswith(f"tracker.outbox/{device.outbox_id}\n3\n")
    assert due != first


def test_an_authority_that_fails_holds_nothing_up(
    store: Store, server: AuthorityServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says instead of a stamp is logged and not kept; the next round asks again."""
    device = DeviceTree()
    send(store, device, [device.event(), device.head()])
    stamping = Stamping(store, server.url)
    replies = [b"", b"<html>", authority.reply(b"\x30\x00"), b"x" * 100_000]
    for reply in replies:
        server.answer = lambda _, reply=reply: reply  # type: ignore[misc] # bound in the loop
        with caplog.at_level(logging.WARNING):
            assert stamping.round() == 0
    assert caplog.text.count("no time stamp: ") == len(replies)
    away = Stamping(store, "http://127.0.0.1:1/")
    assert away.round() == 0
    server.answer = authority.reply
    assert (stamping.round(), stamping.round()) == (1, 0)
    assert server.asked == len(replies) + 1
