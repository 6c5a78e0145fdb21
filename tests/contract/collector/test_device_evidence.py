"""A real device and its collector: what one logs, the other proves when the device is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.contract.evidence.bundles import members
from tests.support.cli import call, call_json
from tracker import Tracker
from tracker.evidence.verifier import Report, Trust, verify
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorClient
    from tracker import APIConfig

PIN = "My PIN is 407193"


@pytest.fixture
def settings(client: CollectorClient, config: MakeConfig) -> APIConfig:
    return config(base_url=client.url, api_key=client.api_key, client_id=client.client_id)


def send(settings: APIConfig, log: Callable[[Tracker], object]) -> None:
    """Log something, and upload it with a head over it, which would come by itself in a minute."""
    with Tracker(settings) as tracker:
        log(tracker)
        outbox = Outbox(settings)
        assert outbox.checkpoint(0)
        outbox.close()
        assert tracker.flush(10).pending == 0


def converse(settings: APIConfig, session_id: str) -> None:
    def log(tracker: Tracker) -> None:
        with tracker.performance.conversation("a", user_id="user_7", session_id=session_id) as c:
            c.user(PIN)
            c.agent("Noted.")

    send(settings, log)


def device_key(settings: APIConfig) -> str:
    return call("--outbox", settings.outbox_path, "evidence", "--public-key").stdout.strip()


def report_of(client: CollectorClient) -> tuple[str, int, int]:
    (outbox,) = client.outboxes()
    return outbox["chain"], outbox["contradicting_heads"], outbox["cosigned_size"]


def bundle(client: CollectorClient, to: Path, **wanted: Any) -> Path:
    (outbox,) = client.outboxes()
    parameters = {"outbox_id": outbox["outbox_id"], **wanted}
    url = f"{client.url}/v1/evidence"
    answer = requests.get(url, params=parameters, headers=client.headers, timeout=10)
    assert answer.status_code == 200, answer.text
    to.write_bytes(answer.content)
    return to


def checked(client: CollectorClient, file: Path, key: str) -> Report:
    witness = requests.get(f"{client.url}/v1/witness-key", timeout=10).text.strip()
    return verify(file, Trust((key,), (witness,)))


def test_the_collector_proves_what_a_device_logged(
    client: CollectorClient, settings: APIConfig, tmp_path: Path
) -> None:
    """By the key that it was bound to, in every process that uploads; the device has it too."""
    for number in range(3):
        converse(settings, f"order-{number}")
    key = device_key(settings)
    chain, contradicting, size = report_of(client)
    assert (chain, contradicting) == ("intact", 0)
    for number in range(3):
        made = tmp_path / f"device-{number}.zip"
        arguments = ("evidence", "--session", f"order-{number}", "--output", made)
        assert call_json("--outbox", settings.outbox_path, *arguments)["witnessed"]
        assert checked(client, made, key).verdict == "PROVEN"
    settings.outbox_path.unlink()
    for number in range(3):
        file = bundle(client, tmp_path / "collector.zip", session_id=f"order-{number}")
        report = checked(client, file, key)
        assert report.verdict == "PROVEN", report
        assert "4 events" in report.summary
    whole = bundle(client, tmp_path / "all.zip", first_seq=1, last_seq=size, complete=True)
    assert checked(client, whole, key).verdict == "PROVEN"


def test_an_erasure_reaches_the_collectors_evidence(
    client: CollectorClient, settings: APIConfig, tmp_path: Path
) -> None:
    """The user is gone from it, and what is left is proved by the heads before and after."""
    converse(settings, "order-7")
    before = bundle(client, tmp_path / "before.zip", session_id="order-7")
    assert PIN.encode() in members(before.read_bytes())["events.jsonl"]
    send(settings, lambda tracker: tracker.compliance.erase_subject("user_7"))
    after = bundle(client, tmp_path / "after.zip", session_id="order-7")
    report = checked(client, after, device_key(settings))
    assert report.verdict == "PROVEN", report
    found = members(after.read_bytes())
    assert found["events.jsonl"].count(b'"sealed"') == 4
    assert not [name for name, raw in found.items() if PIN.encode() in raw or b"user_7" in raw]
