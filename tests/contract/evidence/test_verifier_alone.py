"""The verifier as its user has it: one file, a bare Python, and perhaps damaged files."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.contract.evidence.authority import OPENSSL
from tests.contract.evidence.bundles import OUTBOX_ID, Device, an_event, check, members, zipped
from tracker.evidence import bundle, note, verifier
from tracker.evidence.verifier import UnusableError

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = Device(an_event(seq) for seq in range(1, 31))
KEYS = [note.device_key(OUTBOX_ID, DEVICE.key.public_key)]
BUNDLE = DEVICE.bundle(older=[DEVICE.head(28)], keys=KEYS, complete=True)
MEMBERS = members(BUNDLE)
TRUSTING = ("--key", DEVICE.trust.keys[0], "--witness", DEVICE.trust.witnesses[0])
IN_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the file alone, beside a bundle."""
    shutil.copy(verifier.__file__, tmp_path / "verifier.py")
    (tmp_path / "bundle.zip").write_bytes(BUNDLE)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it without site-packages and without our checkout."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "verifier.py", *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_the_file_alone_proves_a_bundle(alone: Path) -> None:
    """One line with the verdict, and one for each question."""
    done = run(alone, "bundle.zip", *TRUSTING)
    assert (done.returncode, done.stderr) == (0, "")
    first, *answers = done.stdout.splitlines()
    assert first == f"PROVEN: bundle.zip: 10 events of outbox {OUTBOX_ID}"
    assert [line.partition("?")[0] for line in answers] == [
        "who made these records",
        "when did they exist at the latest",
        "were they left unchanged",
        "are they complete",
        "is what had to go gone",
        "checked without the vendor",
    ]


def test_keys_may_be_in_files(alone: Path) -> None:
    """As a colleague mailed them."""
    (alone / "device.key").write_text(f"{DEVICE.trust.keys[0]}\n")
    (alone / "witness.key").write_text(f"{DEVICE.trust.witnesses[0]}\n")
    done = run(alone, "bundle.zip", "--key", "device.key", "--witness", "witness.key")
    assert (done.returncode, done.stdout[:7]) == (0, "PROVEN:")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 3, "INTEGRITY ONLY: bundle.zip: "),
        (("--key", "0" * 64), 1, "NOT PROVEN: bundle.zip: checkpoint.txt: not signed by the key"),
    ],
)
def test_the_exit_code_tells_the_verdict(
    arguments: tuple[str, ...], code: int, said: str, alone: Path
) -> None:
    """1 not proven, 3 integrity only; 0 and 2 have tests of their own."""
    done = run(alone, "bundle.zip", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing.zip",),
        (".",),
        ("verifier.py",),
        ("empty",),
        ("bundle.zip", "--key", "empty"),
        ("bundle.zip", "--key", "damaged"),
        ("bundle.zip", "--key", "."),
        ("bundle.zip", "--key", "/dev/zero"),
        ("/dev/zero",),
        ("bundle.zip", "--key", "x" * 5_000),
        ("bundle.zip", "--key", DEVICE.trust.witnesses[0]),
        ("bundle.zip", "--key", DEVICE.trust.keys[0][:-1]),
        ("bundle.zip", "--witness", DEVICE.trust.keys[0]),
        ("bundle.zip", "--witness", "damaged"),
        ("bundle.zip", "--tsa-root", "missing.pem"),
        ("bundle.zip", "--tsa-root", "."),
        ("no\nsuch\x1b[2Jfile",),
    ],
)
def test_input_that_cannot_be_used_is_named_in_one_line(
    arguments: tuple[str, ...], alone: Path
) -> None:
    """Exit code 2, never a traceback, and nothing that steers a terminal."""
    (alone / "empty").touch()
    (alone / "damaged").write_bytes(bytes(range(256)))
    done = run(alone, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_is_explained(alone: Path) -> None:
    """As every command does."""
    done = run(alone)
    assert done.returncode == 2
    assert "usage: verifier.py" in done.stderr


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not here")
def test_a_file_that_is_no_certificate_vouches_for_nothing(tmp_path: Path) -> None:
    """The time stamp is named, since no root vouches for it."""
    (tmp_path / "root.pem").write_bytes(b"damaged")
    head = DEVICE.head()
    content = DEVICE.bundle(head=type(head)(head.note, b"damaged"))
    trust = DEVICE.trust._replace(tsa_roots=(tmp_path / "root.pem",))
    report = check(content, tmp_path, trust)
    assert report.exit_code == 1
    assert "timestamps/30.tsr: " in report.summary


@given(at=st.integers(0, len(BUNDLE) - 1), bit=st.integers(0, 7))
@IN_FOLDER
def test_a_flipped_bit_of_the_file_is_found_or_changes_nothing(
    at: int, bit: int, tmp_path: Path
) -> None:
    """If the verdict is the same, each member is byte for byte what it was."""
    content = bytearray(BUNDLE)
    content[at] ^= 1 << bit
    with contextlib.suppress(UnusableError):
        report = check(bytes(content), tmp_path, DEVICE.trust)
        assert report.verdict == "NOT PROVEN" or members(bytes(content)) == MEMBERS


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_each_member_is_worth_flipping(name: str) -> None:
    """The bundle of this test has a bit of everything."""
    assert MEMBERS[name]


@given(st.data())
@IN_FOLDER
def test_a_flipped_bit_of_a_member_is_found_or_not_used(
    tmp_path: Path, data: st.DataObject
) -> None:
    """Only in the manifest's own signature can a bit go unused, and then the answer says so."""
    name = data.draw(st.sampled_from(sorted(MEMBERS)))
    content = bytearray(MEMBERS[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    report = check(zipped({**MEMBERS, name: bytes(content)}), tmp_path, DEVICE.trust)
    if report.verdict == "NOT PROVEN":
        assert len(str(report).splitlines()) == 1
    else:
        assert name == "manifest.txt"
        assert "their manifest has no trusted signature" in str(report)


@given(st.integers(0, len(BUNDLE) - 1))
@example(0)
@IN_FOLDER
def test_a_bundle_that_was_cut_off_is_found(tmp_path: Path, length: int) -> None:
    """Wherever it ends."""
    with contextlib.suppress(UnusableError):
        assert check(BUNDLE[:length], tmp_path, DEVICE.trust).verdict == "NOT PROVEN"


@given(st.binary(max_size=200))
@IN_FOLDER
def test_any_bytes_in_place_of_a_member_are_named(tmp_path: Path, content: bytes) -> None:
    """With a manifest that fits, too; none of them raises anything else."""
    from tests.contract.evidence.bundles import with_manifest

    for name in sorted(MEMBERS.keys() - {"manifest.txt", "report.html", "keys.json"}):
        report = check(with_manifest({**MEMBERS, name: content}), tmp_path, DEVICE.trust)
        assert report.verdict == "NOT PROVEN"
        assert f"{name}: " in report.summary


def test_a_member_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """Programs do not agree which of the two counts."""
    file = io.BytesIO(BUNDLE)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("report.html", MEMBERS["report.html"])
    report = check(file.getvalue(), tmp_path, DEVICE.trust)
    assert "report.html: such a member does not belong" in report.summary


def test_a_member_that_says_it_is_huge_is_not_unpacked(tmp_path: Path) -> None:
    """A few bytes of a zip file can stand for any amount of memory."""
    file = io.BytesIO(BUNDLE)
    with zipfile.ZipFile(file, "a") as archive:
        archive.getinfo("report.html").file_size = 1 << 40
        archive.comment = b"."  # so that the directory is written again
    report = check(file.getvalue(), tmp_path, DEVICE.trust)
    assert "report.html: too large" in report.summary


def test_members_that_are_huge_together_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are such bundles written."""
    size = sum(map(len, MEMBERS.values()))
    monkeypatch.setattr(verifier, "LARGEST", size)
    assert check(BUNDLE, tmp_path, DEVICE.trust).verdict == "PROVEN"
    monkeypatch.setattr(verifier, "LARGEST", size - 1)
    assert ": too large" in check(BUNDLE, tmp_path, DEVICE.trust).summary
    monkeypatch.setattr(bundle, "LARGEST", 1_000)
    with pytest.raises(bundle.BundleError, match="select fewer events"):
        DEVICE.bundle()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_is_packed_otherwise_is_named(method: int, tmp_path: Path) -> None:
    """The verifier reads what every program reads, and nothing else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    report = check(file.getvalue(), tmp_path, DEVICE.trust)
    assert "report.html: damaged" in report.summary
