"""`export_audit` and `tracker-sync verify --export`: a file that speaks for itself."""

from __future__ import annotations

import io
import json
import re
import stat
from contextlib import closing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle
from tracker import TrackerClosedError, ValidationError, __version__, canonical
from tracker.audit.check import check
from tracker.outbox.outbox import Outbox
from tracker.testing import RecordingDestination
from tracker.trackers.audit import AuditExport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.audit.check import ExportReport
    from tracker.audit.lines import Manifest

KEY = b"0123456789abcdef"
HOUR_MS = 3_600_000


def export(config: Any, path: Path, **window: Any) -> Manifest:
    with AuditExport(config, destination=RecordingDestination) as tracker:
        return tracker.export_audit(path, **window)


def checked(content: bytes, *keys: bytes) -> ExportReport:
    return check(io.BytesIO(content), keys)


def kinds(report: ExportReport) -> list[tuple[int | None, str]]:
    return [(problem.seq, problem.kind) for problem in report.problems]


def at(hours: float, **fields: Any) -> Any:
    return an_event(timestamp_ms=NOON_MS + int(hours * HOUR_MS), **fields)


# --- the file -----------------------------------------------------------------------------------


def test_everything_that_is_stored_is_in_the_file(config: MakeConfig, tmp_path: Path) -> None:
    """As the collector gets it, with what the manifest counts; private, and checked as sound."""
    made = fill(config(), 4)
    path = tmp_path / "audit.jsonl"
    manifest = export(config(), path)
    head, *events, last = map(json.loads, path.read_text().splitlines())
    assert [event["event_id"] for event in events] == [event.event_id for event in made]
    assert events[0]["data"] == {"role": "user", "content": "hé"}
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert head["chain_before"] == canonical.GENESIS
    assert (manifest.events, manifest.first_seq, manifest.last_seq) == (4, 1, 4)
    assert (manifest.first_chain, manifest.last_chain) == (events[0]["chain"], events[3]["chain"])
    assert (manifest.sdk_version, manifest.client_id) == (__version__, "test-client")
    assert last["manifest"].items() >= vars(manifest).items()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item for item in tmp_path.iterdir() if item.name.startswith(".audit")] == []
    report = checked(path.read_bytes())
    assert report.proven
    assert report.manifest == manifest


def test_a_time_beyond_all_times_ends_the_period_there(config: MakeConfig, tmp_path: Path) -> None:
    """Even one that SQLite cannot hold."""
    fill(config(), 2)
    everything = export(config(), tmp_path / "all.jsonl", since=-(10**30), until=10**30)
    assert everything.events == 2
    assert export(config(), tmp_path / "none.jsonl", since=10**30).events == 0


def test_nothing_is_overwritten(config: MakeConfig, tmp_path: Path) -> None:
    """Neither a file nor a link to nowhere; the message says what to do."""
    path = tmp_path / "audit.jsonl"
    path.write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "link"):
        with pytest.raises(ValidationError, match="which exists; give the path of a"):
            export(config(), taken)
    assert path.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"path": ""}, "path"),
        ({"path": 7}, "path"),
        ({"path": "/no/such/folder/x"}, "path"),
        ({"since": "yesterday"}, "since"),
        ({"until": datetime(2026, 1, 1)}, "until"),
        ({"since": 2, "until": 1}, "until"),
    ],
)
def test_wrong_arguments_are_named(
    config: MakeConfig, tmp_path: Path, arguments: dict[str, Any], argument: str
) -> None:
    """And no file is made."""
    with (
        AuditExport(config()) as tracker,
        pytest.raises(ValidationError) as caught,
    ):
        tracker.export_audit(**{"path": tmp_path / "x", **arguments})
    assert caught.value.argument == argument
    assert not (tmp_path / "x").exists()
    with pytest.raises(TrackerClosedError):
        tracker.export_audit(tmp_path / "x")


def test_an_export_of_nothing_is_sound(config: MakeConfig, tmp_path: Path) -> None:
    """Of an empty outbox, and of a time when nothing was logged."""
    export(config(), tmp_path / "empty")
    fill(config(), 2)
    manifest = export(config(), tmp_path / "later", since=NOON_MS + 1)
    assert (manifest.events, manifest.first_seq) == (0, None)
    for name in ("empty", "later"):
        assert checked((tmp_path / name).read_bytes()).proven


def test_a_disabled_tracker_exports_nothing(config: MakeConfig, tmp_path: Path) -> None:
    """A file that says so."""
    manifest = export(config(disabled=True), tmp_path / "audit.jsonl")
    assert (manifest.events, manifest.client_id) == (0, "test-client")
    assert checked((tmp_path / "audit.jsonl").read_bytes()).proven


# --- a part of the chain ------------------------------------------------------------------------


def test_a_window_of_time_can_be_checked_too(config: MakeConfig, tmp_path: Path) -> None:
    """Events of other times between those of the window lend their digests and nothing else."""
    secret = {"role": "user", "content": "not for the auditor"}
    clock_jumped = at(-5, data=secret)
    fill(config(), [at(0), at(1), clock_jumped, at(2), at(3)])
    until = datetime.fromtimestamp((NOON_MS + 3 * HOUR_MS) / 1000, timezone.utc)
    path = tmp_path / "audit.jsonl"
    manifest = export(config(), path, since=NOON_MS + HOUR_MS, until=until)
    assert (manifest.events, manifest.others) == (2, 1)
    assert (manifest.first_seq, manifest.last_seq) == (2, 4)
    assert (manifest.since_ms, manifest.until_ms) == (NOON_MS + HOUR_MS, NOON_MS + 3 * HOUR_MS)
    content = path.read_bytes()
    assert b"auditor" not in content
    assert clock_jumped.event_id.encode() not in content
    assert checked(content).proven


def test_what_was_pruned_is_no_gap(config: MakeConfig, tmp_path: Path) -> None:
    """Before the first event and between others: the chain is followed past it."""
    fill(config(), 6)
    settle(config(), 6, dead=[2, 5])
    outbox = Outbox(config())
    with closing(outbox):
        outbox.prune(retention_days=-1)
    path = tmp_path / "audit.jsonl"
    manifest = export(config(), path)
    # Seqs 2, 5 and 7: pruning has logged an event too.
    assert (manifest.events, manifest.removed, manifest.first_seq) == (3, 3, 2)
    assert checked(path.read_bytes()).proven


def test_a_damaged_row_is_exported_as_such(config: MakeConfig, tmp_path: Path) -> None:
    """The export is made all the same, and its check names the event."""
    import sqlite3

    fill(config(), 4)
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.execute("UPDATE events SET data = x'ff' WHERE seq = 2")
        connection.execute("UPDATE events SET data = '{' WHERE seq = 3")
        connection.execute("UPDATE events SET data = '{}' WHERE seq = 4")
    export(config(), tmp_path / "x")
    report = checked((tmp_path / "x").read_bytes())
    assert kinds(report) == [(2, "digest"), (3, "digest"), (4, "digest")]


def test_an_erased_event_needs_the_event_that_says_so(config: MakeConfig, tmp_path: Path) -> None:
    """With it the export is proven; without it, the event is named as not proven."""
    event = at(0, data={"content": "about somebody"})
    sealed = canonical.seal(event.user_id, event.data, event.salt)
    erased = event._replace(user_id=None, data=canonical.ERASED, salt=None, sealed=sealed)
    says_so = at(1, type="compliance.erased", data={"subject": "s", "event_ids": [event.event_id]})
    fill(config(), [erased, says_so])
    export(config(), tmp_path / "whole")
    assert checked((tmp_path / "whole").read_bytes()).proven
    export(config(), tmp_path / "part", until=NOON_MS + 1)
    report = checked((tmp_path / "part").read_bytes())
    assert (report.ok, [doubt.first_seq for doubt in report.unproven]) == (True, [1])


# --- somebody edits the file --------------------------------------------------------------------


@pytest.fixture(params=[None, KEY], ids=["plain", "keyed"])
def exported(
    config: MakeConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[list[bytes], tuple[bytes, ...]]:
    """An export's lines, a head, eight of events and a manifest; and the keys to it."""
    settings = config(chain_key=request.param)
    fill(settings, 8)
    export(settings, tmp_path / "audit.jsonl")
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    keys = () if request.param is None else (request.param,)
    assert checked(b"".join(lines), *keys).proven
    return lines, keys


Lines = tuple[list[bytes], tuple[bytes, ...]]
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(data=st.data())
def test_a_changed_byte_is_found(exported: Lines, data: st.DataObject) -> None:
    """Wherever it is; in an event, the event is named."""
    lines, keys = exported
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(lines[number][place] != byte)
    line = bytearray(lines[number])
    line[place] = byte
    report = checked(b"".join([*lines[:number], bytes(line), *lines[number + 1 :]]), *keys)
    # In the manifest, what tells the seal's key may be what was changed.
    assert not (report.proven if number == len(lines) - 1 else report.ok)
    if 0 < number < len(lines) - 1:
        assert any(
            problem.message.startswith(f"line {number + 1}: ") or problem.seq == number
            for problem in report.problems
        )


@quick
@given(data=st.data())
def test_removed_doubled_and_reordered_lines_are_found(
    exported: Lines, data: st.DataObject
) -> None:
    """The place is named: the first seq that does not stand where it should."""
    lines, keys = exported
    first = data.draw(st.integers(1, 8))
    second = data.draw(st.integers(1, 8).filter(lambda other: other != first))
    how = data.draw(st.sampled_from(["remove", "double", "swap"]))
    edited = list(lines)
    if how == "remove":
        del edited[first]
    elif how == "double":
        edited.insert(first, lines[first])
    else:
        edited[first], edited[second] = edited[second], edited[first]
    report = checked(b"".join(edited), *keys)
    assert not report.ok
    around = {first, first + 1} if how != "swap" else set(range(min(first, second), 9))
    named = {problem.seq for problem in report.problems if problem.kind in ("gap", "chain")}
    at_the_end = how == "remove" and first == 8
    assert named & around or at_the_end


@quick
@given(data=st.data())
def test_a_file_cut_off_is_found(exported: Lines, data: st.DataObject) -> None:
    """At any byte, and it is said after which line it ends."""
    lines, keys = exported
    whole = b"".join(lines)
    length = data.draw(st.integers(0, len(whole) - 1))
    report = checked(whole[:length], *keys)
    assert not report.ok
    if length > len(lines[0]):
        assert "without a manifest: it was truncated" in report.problems[-1].message


ODD: tuple[Any, ...] = (
    *(None, True, [], {}, "", "x", 1.5, 1e300, -1, 0, 2**63, 10**4299),
    *([1, 2], [1, 10**4299], {"a": 1}),
)
"""What any field may hold in a file that somebody made."""


def swapped(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an object with each field gone, and with anything else in its place, at any depth."""
    for name, item in value.items():
        yield {other: kept for other, kept in value.items() if other != name}
        yield from ({**value, name: odd} for odd in ODD if odd != item)
        if isinstance(item, dict):
            yield from ({**value, name: inner} for inner in swapped(item))


def test_no_damage_is_taken_for_sound_or_ends_the_check(config: MakeConfig, tmp_path: Path) -> None:
    """Every byte changed, every digit made a float's, every length, every field of any type."""
    fill(config(), 1)
    export(config(), tmp_path / "audit.jsonl")
    whole = (tmp_path / "audit.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for place in range(len(whole)):
        for byte in {whole[place] ^ 1, whole[place] ^ 128, *b"9E"} - {whole[place]}:
            changed = whole[:place] + bytes([byte]) + whole[place + 1 :]
            assert not checked(changed).proven, (place, byte)
        assert not checked(whole[:place]).proven, place
    for number, line in enumerate(lines):
        for odd in swapped(json.loads(line)):
            forged = json.dumps(odd).encode() + b"\n"
            report = checked(b"".join([*lines[:number], forged, *lines[number + 1 :]]))
            assert not report.proven, (number, odd)


def test_a_forged_manifest_is_named_by_the_command(config: MakeConfig, tmp_path: Path) -> None:
    """In one line for each problem, with exit code 1: also where a number is one of floats."""
    fill(config(), 1)
    path = tmp_path / "audit.jsonl"
    export(config(), path)
    whole = path.read_bytes()
    for forged in (b'"exported_at_ms":1E95', b'"exported_at_ms":1E999', b'"exported_at_ms":"x"'):
        path.write_bytes(re.sub(rb'"exported_at_ms":\d+', forged, whole))
        result = call("verify", "--export", path)
        assert (result.exit_code, type(result.exception)) == (1, SystemExit)
        assert "file: manifest: line 3: " in result.stdout or "without a manifest" in result.stdout
        assert call_json("verify", "--export", path)["ok"] is False


def test_rewriting_an_export_takes_the_key(config: MakeConfig, tmp_path: Path) -> None:
    """Without one, whoever rewrites all of it is not found out; with one, they are."""
    fill(config(), 3)
    export(config(), tmp_path / "plain.jsonl")
    forged = config(outbox_path=tmp_path / "forged.sqlite3")
    fill(forged, 3)
    export(forged, tmp_path / "forged.jsonl")
    assert checked((tmp_path / "forged.jsonl").read_bytes()).proven
    report = checked((tmp_path / "forged.jsonl").read_bytes(), KEY)
    assert not report.proven, "who has a key expects one"


def test_something_else_is_no_export() -> None:
    """Nothing, text, other JSON Lines, and lines after the end."""
    for content in (b"", b"hello\n", b'{"format":"other"}\n', b"\xff\n", b"[" * 100_000):
        assert [problem.kind for problem in checked(content).problems] == ["manifest"]


# --- the command --------------------------------------------------------------------------------


def test_the_command_checks_a_file_by_itself(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No outbox and no API key is needed, but the chain key, to prove the chain."""
    settings = config(chain_key=KEY)
    fill(settings, 3)
    path = tmp_path / "audit.jsonl"
    export(settings, path)
    settings.outbox_path.unlink()
    result = call("verify", "--export", path)
    assert result.exit_code == 3
    assert "seq 1 to 3: not proven: sealed with a chain key that was not given" in result.stdout
    monkeypatch.setenv("SDK_CHAIN_KEY", KEY.decode())
    result = call("verify", "--export", path)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")
    found = call_json("verify", "--export", path)
    assert (found["proven"], found["manifest"]["events"]) == (True, 3)
    path.write_bytes(path.read_bytes().replace(b'"user"', b'"USER"', 1))
    result = call("verify", "--export", path)
    assert result.exit_code == 1
    assert "seq 1: digest: line 2: event" in result.stdout
    assert "file: manifest: line 5: the seal does not match" in result.stdout


def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    """A file that is not there, and options that exclude each other."""
    result = call("verify", "--export", tmp_path / "no.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert call("verify", "--export", "x", "--against-collector").exit_code == 2
