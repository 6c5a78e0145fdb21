"""Time stamps of RFC 3161: asked for, kept in a bundle, and checked by openssl."""

from __future__ import annotations

from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

import pytest

from tests.contract.evidence.authority import OPENSSL, Authority
from tests.contract.evidence.bundles import Device, an_event, check, members, with_manifest
from tracker.evidence.timestamp import TimestampError, look_at, request
from tracker.evidence.verifier import NotProvenError, stamped_at

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.evidence.contents import Head

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not here")
QUESTION = "when did they exist at the latest?"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def device() -> Device:
    return Device(an_event(seq) for seq in range(1, 10))


def stamped(head: Head, authority: Authority) -> Head:
    data = head.note.encode()
    reply = authority.reply(request(data))
    look_at(reply, data)
    return replace(head, timestamp=reply)


def test_a_time_stamp_tells_by_when_the_events_existed(
    authority: Authority, device: Device, tmp_path: Path
) -> None:
    """Without a witness, too; one that is not looked at is named."""
    head = stamped(device.head(witnessed=False), authority)
    content = device.bundle(head=head)
    trust = device.trust._replace(witnesses=())
    report = check(content, tmp_path, trust._replace(tsa_roots=(authority.root,)))
    answer = next(each for each in report.answers if each.question == QUESTION)
    assert (report.verdict, answer.state) == ("PROVEN", "yes")
    assert answer.text.endswith("by a time stamp")
    report = check(content, tmp_path, trust)
    assert report.verdict == "PROVEN"
    assert "timestamps/9.tsr (give --tsa-root)" in str(report)


def test_the_time_is_the_authoritys(authority: Authority) -> None:
    """In seconds, as the reply says it."""
    reply = authority.reply(request(b"data"))
    found = stamped_at(reply, b"data", [authority.root])
    assert found is not None
    assert abs(found - time()) < 60


def test_any_root_that_was_given_may_vouch(authority: Authority, stranger: Authority) -> None:
    """And no other."""
    reply = authority.reply(request(b"data"))
    assert stamped_at(reply, b"data", [stranger.root, authority.root]) is not None
    for data, root in ((b"data", stranger.root), (b"other data", authority.root)):
        with pytest.raises(NotProvenError, match="vouches"):
            stamped_at(reply, data, [root])


def test_a_time_stamp_over_another_head_proves_nothing(
    authority: Authority, device: Device, tmp_path: Path
) -> None:
    """The report names it."""
    other = stamped(device.head(5), authority)
    head = replace(device.head(), timestamp=other.timestamp)
    trust = device.trust._replace(tsa_roots=(authority.root,))
    report = check(device.bundle(head=head), tmp_path, trust)
    assert report.exit_code == 1
    assert "timestamps/9.tsr: no --tsa-root vouches" in report.summary


@pytest.mark.parametrize("name", ["timestamps/8.tsr", "timestamps/9.tsr"])
def test_a_damaged_time_stamp_is_named(
    name: str, authority: Authority, device: Device, tmp_path: Path
) -> None:
    """Also one of a head that is not there."""
    content = {**members(device.bundle()), name: b"damaged"}
    trust = device.trust._replace(tsa_roots=(authority.root,))
    report = check(with_manifest(content), tmp_path, trust)
    assert report.exit_code == 1
    assert f"{name}: " in report.summary


def test_without_openssl_the_command_is_shown(
    authority: Authority, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For somebody who has it to run; the check is incomplete."""
    content = device.bundle(head=stamped(device.head(), authority))
    monkeypatch.setenv("PATH", str(tmp_path))
    report = check(content, tmp_path, device.trust._replace(tsa_roots=(authority.root,)))
    assert (report.verdict, report.exit_code) == ("INCOMPLETE", 3)
    assert (
        "run openssl ts -verify -in timestamps/9.tsr -data checkpoint.txt -CAfile "
        f"{authority.root}" in report.summary
    )


def test_a_reply_that_is_no_time_stamp_over_the_data_is_refused(authority: Authority) -> None:
    """An error page, an error of the authority, a reply cut off, and one about other data."""
    reply = authority.reply(request(b"data"))
    refused = bytes.fromhex("30053003020102")
    for wrong in (b"", b"\x30", b"<html>", reply[:-1], reply + b"\0", refused):
        with pytest.raises(TimestampError):
            look_at(wrong, b"data")
    with pytest.raises(TimestampError, match="other data"):
        look_at(reply, b"other data")
    with pytest.raises(TimestampError, match=r"refused the request \(status 2\)"):
        look_at(refused, b"data")


def test_each_request_has_a_nonce_of_its_own() -> None:
    """So no old reply can be passed off as a new one."""
    assert request(b"data") != request(b"data")
