"""A bundle: what it proves to somebody who has nothing but the verifier and the keys."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.evidence.bundles import (
    NOON,
    OUTBOX_ID,
    Device,
    an_event,
    check,
    erased,
    members,
    private_key,
    stored,
    with_manifest,
)
from tracker.evidence import bundle, note
from tracker.evidence.bundle import BundleError
from tracker.evidence.contents import DATA, USER, Contents, Head, period, seqs, session
from tracker.evidence.tree import TreeError
from tracker.evidence.verifier import Report, Trust, canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Change = Callable[[dict[str, bytes]], None]

MAKER = "who made these records?"
TIME = "when did they exist at the latest?"
CHANGE = "were they left unchanged?"
WHOLE = "are they complete?"
ERASURE = "is what had to go gone?"


@pytest.fixture
def device() -> Device:
    return Device(an_event(seq) for seq in range(1, 31))


def answer(report: Report, question: str) -> tuple[str, str]:
    return next((each.state, each.text) for each in report.answers if each.question == question)


def events_of(content: dict[str, bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content["events.jsonl"].splitlines()]


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(canonical(event) + b"\n" for event in events)


# --- what is proven -----------------------------------------------------------------------------


def test_a_session_is_proven_to_somebody_with_the_keys(device: Device, tmp_path: Path) -> None:
    """By device and witness: who, when, unchanged; what is not claimed is said."""
    report = check(device.bundle(), tmp_path, device.trust)
    assert (report.verdict, report.exit_code) == ("PROVEN", 0)
    assert report.summary.endswith(f"10 events of outbox {OUTBOX_ID}")
    assert answer(report, MAKER) == ("yes", f"signed by the device key {device.trust.keys[0]}")
    assert answer(report, TIME)[0] == "yes"
    assert answer(report, TIME)[1].startswith("at 2026-09-21 14:13:50 UTC, by the witness")
    assert answer(report, CHANGE)[0] == "yes"
    assert answer(report, WHOLE) == (
        "no",
        "not claimed: 18 between seq 1 and 28 are not in here",
    )
    assert answer(report, ERASURE) == ("yes", "nothing in here was erased")


def test_without_a_key_nothing_but_integrity_is_claimed(device: Device, tmp_path: Path) -> None:
    """The keys in the bundle are never used."""
    keys = [note.device_key(OUTBOX_ID, device.key.public_key)]
    report = check(device.bundle(keys=keys), tmp_path, Trust())
    assert (report.verdict, report.exit_code) == ("INTEGRITY ONLY", 3)
    assert "anybody may have made this" in report.summary
    assert answer(report, MAKER)[0] == answer(report, TIME)[0] == "no"


def test_one_party_is_enough_and_says_only_what_it_knows(device: Device, tmp_path: Path) -> None:
    """The device knows no time that others believe; the witness knows the API key's holder."""
    content = device.bundle()
    report = check(content, tmp_path, device.trust._replace(witnesses=()))
    assert report.verdict == "PROVEN"
    assert answer(report, TIME) == ("no", "only the device's own clock says so")
    report = check(content, tmp_path, device.trust._replace(keys=()))
    assert report.verdict == "PROVEN"
    assert answer(report, MAKER)[0] == "partly"


def test_a_key_may_be_given_as_its_hex_digits(device: Device, tmp_path: Path) -> None:
    """It signs whichever outbox the device has."""
    trust = Trust((device.key.public_key.hex(),))
    assert check(device.bundle(), tmp_path, trust).verdict == "PROVEN"


@pytest.mark.parametrize("who", ["device", "witness"])
def test_a_signature_that_is_missing_is_found(who: str, device: Device, tmp_path: Path) -> None:
    """One of the keys has to be the device's, and all of the witnesses have to have signed."""
    stranger = private_key("stranger").public_key
    key = str(note.device_key(OUTBOX_ID, stranger))
    witness = str(note.witness_key("other.example", stranger))
    both = device.trust._replace(keys=(key, *device.trust.keys))
    assert check(device.bundle(), tmp_path, both).verdict == "PROVEN"
    wrong = {
        "device": device.trust._replace(keys=(key,)),
        "witness": device.trust._replace(witnesses=(*device.trust.witnesses, witness)),
    }[who]
    report = check(device.bundle(), tmp_path, wrong)
    assert (report.verdict, report.exit_code, report.answers) == ("NOT PROVEN", 1, ())
    assert "checkpoint.txt: not signed by the " in report.summary


def test_an_earlier_head_tells_an_earlier_time(device: Device, tmp_path: Path) -> None:
    """If it covers all the events; it is proved to be what the head extends."""
    content = device.bundle(older=[device.head(28), device.head(3)])
    report = check(content, tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    assert answer(report, TIME)[1].startswith("at 2026-09-21 14:13:48 UTC")


def test_a_witness_has_to_have_signed_the_head_itself(device: Device, tmp_path: Path) -> None:
    """An earlier head that it signed does not vouch for what came later."""
    content = device.bundle(head=device.head(witnessed=False), older=[device.head(28)])
    report = check(content, tmp_path, device.trust)
    assert "checkpoint.txt: not signed by the witness" in report.summary
    report = check(content, tmp_path, device.trust._replace(witnesses=()))
    assert report.verdict == "PROVEN"


def cosigned(device: Device, *times: int) -> bytes:
    """Return a bundle whose head the witness signed at each of these times."""
    head = device.head(witnessed=False).note
    text = head.partition("\n\n")[0] + "\n"
    for time in times:
        line = note.cosignature(text, "witness.example/w1", device.witness, time)
        head = note.with_signature(head, line)
    return device.bundle(head=Head(head))


def test_the_earliest_time_of_a_witness_counts(device: Device, tmp_path: Path) -> None:
    """It may have signed the same head more than once."""
    report = check(cosigned(device, NOON + 60, NOON, NOON + 30), tmp_path, device.trust)
    assert answer(report, TIME)[1].startswith("at 2026-09-21 14:13:20 UTC")


def test_a_time_that_no_calendar_has_is_no_time_of_a_witness(
    device: Device, tmp_path: Path
) -> None:
    """Rather than a traceback."""
    report = check(cosigned(device, 2**62), tmp_path, device.trust)
    assert "checkpoint.txt: the signature of witness.example/w1 does not match" in report.summary


def test_events_may_be_selected_by_number_or_period(device: Device, tmp_path: Path) -> None:
    """The verifier holds the events against the selection."""
    events = [device.events[seq] for seq in range(5, 9)]
    for selection in (
        seqs(5, 8),
        period(NOON * 1000 + 5, NOON * 1000 + 9),
        period(None, None),
    ):
        content = device.bundle(events=events, selection=selection)
        assert check(content, tmp_path, device.trust).verdict == "PROVEN"
    for selection in (
        seqs(6, 8),
        period(NOON * 1000 + 6, None),
        period(None, NOON * 1000 + 8),
        session("order-1"),
    ):
        content = device.bundle(events=events, selection=selection)
        report = check(content, tmp_path, device.trust)
        assert "proof.json: the event of seq" in report.summary
        assert report.exit_code == 1


def test_events_of_version_1_are_proved_in_the_same_tree(tmp_path: Path) -> None:
    """Of an outbox of before, whose later events have salts."""
    old = [an_event(seq, salt=...) for seq in range(1, 5)]
    device = Device([*old, *(an_event(seq, context={"site": "A"}) for seq in range(5, 9))])
    report = check(device.bundle(), tmp_path, device.trust)
    assert (report.verdict, answer(report, CHANGE)[0]) == ("PROVEN", "yes")


# --- completeness -------------------------------------------------------------------------------


def test_all_numbers_of_a_range_are_shown_to_be_there(device: Device, tmp_path: Path) -> None:
    """A selection by numbers has no room for anything else."""
    events = [device.events[seq] for seq in range(5, 9)]
    content = device.bundle(events=events, selection=seqs(5, 8), complete=True)
    report = check(content, tmp_path, device.trust)
    assert answer(report, WHOLE) == ("yes", "no number between seq 5 and 8 is missing")


def test_a_complete_session_has_the_digests_of_all_between(device: Device, tmp_path: Path) -> None:
    """They show that no number is missing, and nobody can see whose they are."""
    content = device.bundle(complete=True)
    report = check(content, tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    said = "no number between seq 1 and 28 is missing, but 18 are digests: nobody can see whose"
    assert answer(report, WHOLE) == ("partly", said)
    assert b"order-2" not in b"".join(members(content).values())
    assert b"18 events stand here as digests only" in members(content)["report.html"]


def test_completeness_is_not_claimed_of_digests_that_are_gone(device: Device) -> None:
    """Those of a tile that was removed as a whole."""
    head = device.head()
    del device.kept.of[2]
    with pytest.raises(TreeError, match="the digest of seq 2 is missing"):
        device.bundle(head=head, complete=True)


def test_an_event_left_out_of_a_complete_bundle_is_found(device: Device, tmp_path: Path) -> None:
    """Whoever leaves it out has to say that the bundle is not complete."""
    events = [device.events[seq] for seq in (5, 6, 8)]
    content = members(device.bundle(events=events, selection=seqs(5, 8)))
    proof = json.loads(content["proof.json"])
    content["proof.json"] = canonical({**proof, "complete": True})
    report = check(with_manifest(content), tmp_path, device.trust)
    assert "proof.json: said to be complete, but events between are missing" in report.summary
    content = members(device.bundle(events=events[:2], selection=seqs(5, 8)))
    content["proof.json"] = canonical({**json.loads(content["proof.json"]), "complete": True})
    assert check(with_manifest(content), tmp_path, device.trust).exit_code == 1


# --- erased and withheld ------------------------------------------------------------------------


def erase(device: Device, *seqs: int) -> dict[str, Any]:
    """Erase events, and return the event that names them."""
    for seq in seqs:
        device.events[seq] = erased(device.events[seq])
    named = [device.events[seq]["event_id"] for seq in seqs]
    size = len(device.events) + 1
    event = an_event(
        size, type="compliance.erased", user_id=None, session_id=None, data={"event_ids": named}
    )
    device.events[size] = event
    device.kept.of[size] = bytes.fromhex(event["digest"])
    return event


def test_erased_events_are_proven_without_their_content(device: Device, tmp_path: Path) -> None:
    """If the event that erased them is there; their time, type and session stay proven."""
    naming = erase(device, 4, 7)
    report = check(device.bundle(removals=[naming]), tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    said = "2 events erased; nothing can be guessed from the rest"
    assert answer(report, ERASURE) == ("yes", said)
    report = check(device.bundle(), tmp_path, device.trust)
    assert (report.verdict, report.exit_code) == ("INCOMPLETE", 3)
    assert answer(report, ERASURE) == (
        "partly",
        "2 erased events named by no erasure event in here",
    )


def test_of_an_erased_event_of_version_1_only_the_digest_is_proven(tmp_path: Path) -> None:
    """What stands beside it could be anybody's."""
    device = Device(an_event(seq, salt=...) for seq in range(1, 10))
    device.events[4] = {**device.events[4], "data": {"erased": True}}
    naming = erase(device)
    naming = an_event(10, type="compliance.erased", session_id=None,
                      data={"event_ids": [device.events[4]["event_id"]]})  # fmt: skip
    device.events[10], device.kept.of[10] = naming, bytes.fromhex(naming["digest"])
    report = check(device.bundle(removals=[naming]), tmp_path, device.trust)
    assert (report.verdict, report.exit_code) == ("INCOMPLETE", 3)
    assert answer(report, CHANGE)[0] == answer(report, ERASURE)[0] == "partly"
    assert "can be guessed" in answer(report, ERASURE)[1]
    report = check(device.bundle(), tmp_path, device.trust)
    assert "1 erased event named by no erasure event" in answer(report, ERASURE)[1]
    content = members(device.bundle(removals=[naming]))
    events = events_of(content)
    events[1]["user_id"] = "somebody_else"
    content["events.jsonl"] = lines(events)
    assert check(with_manifest(content), tmp_path, device.trust).verdict == "INCOMPLETE"


@pytest.mark.parametrize("part", [USER, DATA])
def test_a_part_that_is_withheld_cannot_be_seen_and_the_rest_is_proven(
    part: str, device: Device, tmp_path: Path
) -> None:
    """Nor can it be guessed: the salt is not in the bundle either."""
    content = device.bundle(withhold=frozenset({part}))
    report = check(content, tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    assert answer(report, CHANGE)[1].endswith("of 10, a part is withheld")
    everything = b"".join(members(content).values())
    hidden, shown = b"user_1", b"Where is order 4?"
    if part == DATA:
        hidden, shown = shown, hidden
    assert hidden not in everything
    assert shown in everything
    assert device.events[4]["salt"].encode() not in everything


def test_both_parts_may_be_withheld(device: Device, tmp_path: Path) -> None:
    """Then who did what when is proven, and nothing about whom and what."""
    content = device.bundle(withhold=frozenset({USER, DATA}))
    assert check(content, tmp_path, device.trust).verdict == "PROVEN"
    everything = b"".join(members(content).values())
    assert b"user_1" not in everything
    assert b"Where is" not in everything


def test_what_explains_others_is_not_withheld(device: Device, tmp_path: Path) -> None:
    """Of the event that names the erased ones, only the user id is."""
    naming = erase(device, 4)
    content = device.bundle(removals=[naming], withhold=frozenset({USER, DATA}))
    assert check(content, tmp_path, device.trust).verdict == "PROVEN"
    assert device.events[4]["event_id"].encode() in members(content)["removals.jsonl"]


def test_of_version_1_all_is_withheld_or_nothing(tmp_path: Path) -> None:
    """Such an event stands there as its digest, unless it names no user to withhold."""
    old = [
        an_event(1, salt=..., session_id="order-1"),
        an_event(2, salt=..., session_id="order-1", user_id=None),
    ]
    device = Device([*old, an_event(3, session_id="order-1")])
    content = device.bundle(withhold=frozenset({USER}))
    assert check(content, tmp_path, device.trust).verdict == "PROVEN"
    events = events_of(members(content))
    assert events[0] == {"seq": 1, "digest": old[0]["digest"]}
    assert events[1]["data"] == old[1]["data"]
    with pytest.raises(BundleError, match="no event to show"):
        Device(old).bundle(withhold=frozenset({DATA}))


# --- changes of the key -------------------------------------------------------------------------


def test_a_key_vouches_for_the_one_that_it_hands_over_to(tmp_path: Path) -> None:
    """By the event that both signed; without it, the new key is a stranger's."""
    old, new = private_key("device"), private_key("new")
    change = an_event(
        5, type="integrity.key_changed", data={"note": note.key_change(OUTBOX_ID, old, new)}
    )
    device = Device([*(an_event(seq) for seq in range(1, 5)), change])
    head = device.head(key=new)
    report = check(device.bundle(head=head, removals=[change]), tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    assert new.public_key.hex() not in str(device.trust)
    report = check(device.bundle(head=head), tmp_path, device.trust)
    assert "checkpoint.txt: not signed by the key that was given" in report.summary


def key_change(signers: Sequence[str], outbox_id: str = OUTBOX_ID, old: str = "device") -> str:
    """Return a note that hands over from a key to the new one, as anybody could write it."""
    origin = note.origin(OUTBOX_ID)
    keys = [note.device_key(OUTBOX_ID, private_key(name).public_key) for name in (old, "new")]
    text = f"tracker.key-change/{outbox_id}\n{keys[0]}\n{keys[1]}\n"
    return note.signed(text, [note.signature(text, origin, private_key(each)) for each in signers])


@pytest.mark.parametrize(
    "handover",
    [
        key_change(["new"]),
        key_change(["device"]),
        key_change(["stranger", "new"], old="stranger"),
        key_change(["device", "new"], outbox_id="another"),
        key_change(["device", "new"]).replace("key-change", "key-chance"),
        "approved",
        7,
    ],
)
def test_a_forged_change_of_the_key_is_not_followed(handover: object, tmp_path: Path) -> None:
    """Even if the event is under the head: the old key has to have signed the change."""
    change = an_event(5, type="integrity.key_changed", data={"note": handover})
    device = Device([*(an_event(seq) for seq in range(1, 5)), change])
    content = device.bundle(head=device.head(key=private_key("new")), removals=[change])
    report = check(content, tmp_path, device.trust)
    assert "checkpoint.txt: not signed by the key that was given" in report.summary


# --- forgers who can write any file -------------------------------------------------------------


def edit(seq_at: int, **fields: Any) -> Change:
    def change(content: dict[str, bytes]) -> None:
        events = events_of(content)
        events[seq_at] |= fields
        content["events.jsonl"] = lines(events)

    return change


def drop(content: dict[str, bytes]) -> None:
    content["events.jsonl"] = lines(events_of(content)[1:])


def swap(content: dict[str, bytes]) -> None:
    events = events_of(content)
    events[0]["seq"], events[1]["seq"] = events[1]["seq"], events[0]["seq"]
    content["events.jsonl"] = lines([events[1], events[0], *events[2:]])


def repeat(content: dict[str, bytes]) -> None:
    events = events_of(content)
    content["events.jsonl"] = lines([events[0], *events])


def insert(content: dict[str, bytes]) -> None:
    forged = {**events_of(content)[0], "seq": 2}
    content["events.jsonl"] = lines([events_of(content)[0], forged, *events_of(content)[1:]])


def loosen(content: dict[str, bytes]) -> None:
    content["events.jsonl"] = content["events.jsonl"].replace(b'"type":', b'"type": ', 1)


def double(content: dict[str, bytes]) -> None:
    """A key that is there twice, which others may read otherwise."""
    content["events.jsonl"] = content["events.jsonl"].replace(
        b'"type":"message.logged"', b'"type":"approved","type":"message.logged"', 1
    )


def cut(content: dict[str, bytes]) -> None:
    content["events.jsonl"] = content["events.jsonl"][:-5]


def empty(content: dict[str, bytes]) -> None:
    content["events.jsonl"] = b""


def twice(content: dict[str, bytes]) -> None:
    content["removals.jsonl"] = lines(events_of(content)[:1])


def proof(**fields: Any) -> Change:
    def change(content: dict[str, bytes]) -> None:
        content["proof.json"] = canonical({**json.loads(content["proof.json"]), **fields})

    return change


def head(old: str, new: str) -> Change:
    def change(content: dict[str, bytes]) -> None:
        content["checkpoint.txt"] = content["checkpoint.txt"].replace(old.encode(), new.encode())

    return change


def unsigned(content: dict[str, bytes]) -> None:
    text, _, _ = content["checkpoint.txt"].rpartition(b"\n\n")
    content["checkpoint.txt"] = text + b"\n"


def replace_member(name: str, content: bytes) -> Change:
    def change(members: dict[str, bytes]) -> None:
        members[name] = content

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edit(0, data={"content": "forged"}), "proof.json: the events are not those"),
        (edit(0, user_id="somebody_else"), "proof.json: the events are not those"),
        (edit(0, timestamp_ms=0), "proof.json: the events are not those"),
        (edit(0, agent_id=None), "proof.json: the events are not those"),
        (edit(0, session_id="order-2"), "proof.json: the event of seq 1 is not of those selected"),
        (edit(0, salt="00" * 16), "proof.json: the events are not those"),
        (edit(0, seq=2), "proof.json: the"),
        (edit(0, seq=0), "events.jsonl: line 1: its seq"),
        (edit(0, seq=True), "events.jsonl: line 1: its seq"),
        (edit(-1, seq=31), "proof.json: an event is beyond the head"),
        (edit(0, verdict="approved"), "events.jsonl: line 1: this is not an event"),
        (drop, "proof.json: the"),
        (swap, "proof.json: the events are not those"),
        (repeat, "events.jsonl: line 2: its seq"),
        (insert, "proof.json: the"),
        (loosen, "events.jsonl: line 1: not an object in canonical JSON"),
        (double, "events.jsonl: line 1: not an object in canonical JSON"),
        (cut, "events.jsonl: the last line is cut off"),
        (empty, "events.jsonl: there is no event in it"),
        (twice, "proof.json: seq 1 is there twice"),
        (proof(size=29), "proof.json: of another head"),
        (proof(hashes=""), "proof.json: the proof has too few hashes"),
        (proof(hashes="AAAA"), "proof.json: not a proof"),
        (proof(hashes=7), "proof.json: not a proof"),
        (proof(hashes="A" * 42 + "A="), "proof.json: the"),
        (proof(complete=1), "proof.json: not a proof"),
        (proof(version=2), "proof.json: not a proof"),
        (proof(more=None), "proof.json: not a proof"),
        (proof(selection={}), "proof.json: not a proof"),
        (proof(selection=None), "proof.json: not a proof"),
        (proof(selection={"since_ms": "", "until_ms": None}), "proof.json: not a proof"),
        (proof(consistency=[]), "proof.json: not a proof"),
        (proof(consistency={"5": ""}), "heads/5.txt: a head without its proof"),
        (replace_member("heads/5.txt", b""), "heads/5.txt: a head without its proof"),
        (replace_member("proof.json", b"[]"), "proof.json: not an object"),
        (replace_member("proof.json", b"\xff"), "proof.json: not an object"),
        (replace_member("proof.json", b"[" * 100_000), "proof.json: not an object"),
        (replace_member("proof.json", b'{"a":' + b"9" * 5_000 + b"}"), "proof.json: not an object"),
        (head("\n30\n", "\n31\n"), "proof.json: of another head"),
        (head("\n30\n", "\n030\n"), "checkpoint.txt: not a checkpoint"),
        (head("tracker.outbox", "another.log"), "checkpoint.txt: not the head of an outbox"),
        (head("\u2014 tracker.outbox", "\u2014 tracker.outboy"), "checkpoint.txt: not signed by"),
        (head("\u2014 witness", "\u2014 fitness"), "checkpoint.txt: not signed by the witness"),
        (unsigned, "checkpoint.txt: not a signed note"),
    ],
)
def test_who_has_no_key_can_forge_nothing(
    change: Change, named: str, device: Device, tmp_path: Path
) -> None:
    """Whichever member is changed, with a manifest that fits: one line names it."""
    content = members(device.bundle())
    change(content)
    report = check(with_manifest(content), tmp_path, device.trust)
    assert (report.verdict, report.exit_code) == ("NOT PROVEN", 1)
    assert named in report.summary
    assert len(str(report).splitlines()) == 1


def test_a_key_noted_for_another_outbox_id_is_told_from_a_strangers(tmp_path: Path) -> None:
    """A device keeps its key as it begins a new id; the line says how to trust it for any."""
    device = Device(an_event(seq) for seq in range(1, 4))
    noted = str(note.device_key("the-former-id", device.key.public_key))
    digits = device.key.public_key.hex()
    report = check(device.bundle(), tmp_path, Trust((noted,)))
    assert report.verdict == "NOT PROVEN"
    assert f"given for that outbox id, but for this one; to trust it for any, give {digits}" in str(
        report
    )
    assert check(device.bundle(), tmp_path, Trust((digits,))).verdict == "PROVEN"


def test_events_of_another_tree_that_the_forger_signed_are_not_taken(tmp_path: Path) -> None:
    """The whole bundle made again with another key."""
    forged = Device(an_event(seq, data={"content": "forged"}) for seq in range(1, 31))
    honest = Device(()).trust
    forged.key, forged.witness = private_key("forger"), private_key("forger")
    report = check(forged.bundle(), tmp_path, honest)
    assert "checkpoint.txt: not signed by the key that was given" in report.summary


def test_a_head_that_the_newest_does_not_extend_is_found(device: Device, tmp_path: Path) -> None:
    """A device cannot show an earlier head of another history."""
    other = Device(an_event(seq, data={"content": "other"}) for seq in range(1, 31))
    content = members(device.bundle(older=[device.head(5)]))
    content["heads/5.txt"] = other.head(5).note.encode()
    report = check(with_manifest(content), tmp_path, device.trust)
    assert "heads/5.txt: the checkpoint does not extend this head" in report.summary
    content["heads/5.txt"] = device.head(6).note.encode()
    report = check(with_manifest(content), tmp_path, device.trust)
    assert "heads/5.txt: not the head that its name says" in report.summary


# --- the manifest -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.html", "keys.json", "events.jsonl", "checkpoint.txt"])
def test_a_member_that_was_changed_alone_is_named(
    name: str, device: Device, tmp_path: Path
) -> None:
    """The manifest has the SHA-256 of each."""
    keys = [note.device_key(OUTBOX_ID, device.key.public_key)]
    content = members(device.bundle(keys=keys))
    content[name] += b" "
    manifest = content.pop("manifest.txt")
    report = check(zipped_with(content, manifest), tmp_path, device.trust)
    assert report.exit_code == 1
    assert f"{name}: " in report.summary
    del content[name]
    report = check(zipped_with(content, manifest), tmp_path, device.trust)
    assert f"{name}: missing" in report.summary


def zipped_with(content: dict[str, bytes], manifest: bytes) -> bytes:
    from tests.contract.evidence.bundles import zipped

    return zipped({**content, "manifest.txt": manifest})


def test_what_nobody_vouches_for_is_said_not_to_be_used(device: Device, tmp_path: Path) -> None:
    """A forger's report is in no way part of what is proven, and the answer says so."""
    content = members(device.bundle())
    content["report.html"] = b"approved"
    report = check(with_manifest(content), tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    said = "not used: report.html (and their manifest has no trusted signature)"
    assert said in str(report)
    assert said not in str(check(device.bundle(), tmp_path, device.trust))
    assert said in str(check(device.bundle(signed=False), tmp_path, device.trust))


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff",
        b"approved",
        f"tracker.bundle/{OUTBOX_ID}\nno digest  report.html\n".encode(),
        f"tracker.bundle/{OUTBOX_ID}\n{'0' * 64}  ../report.html\n".encode(),
        f"tracker.bundle/{OUTBOX_ID}\n{'0' * 64}  report.html\n{'0' * 64}  report.html\n".encode(),
        b"tracker.bundle/another\n",
        b"a\n\nb\n",
    ],
)
def test_a_damaged_manifest_is_named(manifest: bytes, device: Device, tmp_path: Path) -> None:
    """And one of another outbox."""
    content = members(device.bundle())
    report = check(zipped_with(content, manifest), tmp_path, device.trust)
    assert report.exit_code == 1
    assert "manifest.txt: " in report.summary


def test_a_manifest_signed_for_other_members_is_found(device: Device, tmp_path: Path) -> None:
    """Its signature covers their digests."""
    content = members(device.bundle())
    content["report.html"] = b"approved"
    fitting = members(with_manifest(content))["manifest.txt"]
    signature = content["manifest.txt"].rpartition(b"\n\n")[2]
    report = check(zipped_with(content, fitting + b"\n" + signature), tmp_path, device.trust)
    assert "manifest.txt: the signature of" in report.summary


def test_a_member_that_the_manifest_does_not_name_is_found(device: Device, tmp_path: Path) -> None:
    """Though other bundles have such a member."""
    content = {**members(device.bundle()), "keys.json": b"{}"}
    report = check(zipped_with(content, content["manifest.txt"]), tmp_path, device.trust)
    assert "keys.json: not in the manifest" in report.summary


@pytest.mark.parametrize("name", ["approved.txt", "../report.html", "heads/05.txt", "REPORT.HTML"])
def test_a_member_that_no_bundle_has_is_named(name: str, device: Device, tmp_path: Path) -> None:
    """Nothing can be put beside what is proven."""
    content = {**members(device.bundle()), name: b"approved"}
    report = check(zipped_with(content, content["manifest.txt"]), tmp_path, device.trust)
    assert f"{name}: such a member does not belong in a bundle" in report.summary
    assert report.exit_code == 1


# --- the report ---------------------------------------------------------------------------------


def test_the_report_shows_the_events_to_a_person_and_runs_nothing(tmp_path: Path) -> None:
    """What the events say is text in it, whatever it is, and turns no other text around."""
    content = "<script>alert(1)</script> & \u202egnorw"
    device = Device([an_event(1, data={"content": content}, user_id='"><img src=x>')])
    report = members(device.bundle())["report.html"].decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\u202egnorw" in report
    assert "&quot;&gt;&lt;img src=x&gt;" in report
    assert "<script" not in report
    assert "default-src 'none'" in report
    assert "2026-09-21 14:13:20.001" in report
    assert "python verifier.py bundle.zip --key KEY" in report


def test_the_report_names_signers_keys_and_what_is_not_shown(device: Device) -> None:
    """With the witness's time, and the limits of such a proof."""
    device.events[4] = erased(device.events[4])
    device.events[7] = {**device.events[7]}
    key = note.device_key(OUTBOX_ID, device.key.public_key)
    content = device.bundle(keys=[key], withhold=frozenset({USER}))
    report = members(content)["report.html"].decode()
    assert str(key) in report
    assert "witness.example/w1, key id " in report
    assert "at 2026-09-21 14:13:50.000" in report
    assert "not that what was recorded is true" in report
    assert "9 with a part withheld, 1 erased" in report
    assert "<td>withheld" in report
    assert "<td>erased" in report
    assert "completeness is not claimed" in report
    assert "Events that explain others" not in report


def test_the_report_shows_what_explains_others_and_what_is_claimed(device: Device) -> None:
    """Erasures by the event that names them; completeness, if the bundle claims it."""
    naming = erase(device, 4)
    report = members(device.bundle(removals=[naming], complete=True))["report.html"].decode()
    explained = report.partition("Events that explain others")[2]
    assert "compliance.erased" in explained
    assert device.events[4]["event_id"] in explained
    assert "No number between the first and the last of them is left out" in report
    assert "cannot be guessed" in report
    assert "completeness is not claimed" not in report


def test_times_that_no_calendar_has_are_shown_as_they_are() -> None:
    """The device's clock can say anything."""
    device = Device([an_event(1, timestamp_ms=10**18)])
    assert b"1000000000000000000" in members(device.bundle())["report.html"]


# --- writing ------------------------------------------------------------------------------------


def test_the_same_events_give_the_same_bytes(device: Device) -> None:
    """No time of writing is in a bundle."""
    assert device.bundle() == device.bundle()


def test_a_bundle_is_written_only_of_events_that_the_head_proves(device: Device) -> None:
    """What would not be proven is refused, with the reason."""
    changed = {**device.events[1], "timestamp_ms": 0}
    with pytest.raises(BundleError, match="the event of seq 1 was changed after it was stored"):
        device.bundle(events=[changed])
    with pytest.raises(BundleError, match="the events are not those under the head"):
        device.bundle(events=[stored({**changed, "seq": 2})])
    with pytest.raises(BundleError, match="the head covers seq 1 to 20, not yet 22"):
        device.bundle(head=device.head(20))
    with pytest.raises(BundleError, match="no event to show"):
        device.bundle(events=[])
    with pytest.raises(BundleError, match="not a signed note"):
        device.bundle(head=Head("approved"))
    with pytest.raises(BundleError, match="not an event"):
        device.bundle(events=[{"seq": 1, "salt": "00", "digest": "00"}])


def test_the_file_need_not_be_seekable(device: Device, tmp_path: Path) -> None:
    """So a server can answer with it while it is written."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    contents = Contents(device.head(), session("order-1"), device.session())
    bundle.write(pipe, contents, device.kept)
    assert check(pipe.getvalue(), tmp_path, device.trust).verdict == "PROVEN"
