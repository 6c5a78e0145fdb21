"""Signing keys: made once beside an outbox, or given as text."""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tracker.errors import ConfigurationError
from tracker.evidence.keys import can_sign, from_text, load, load_or_create
from tracker.evidence.verifier import is_signed

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = NoEncryption()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)
PUBLIC = KEY.public_key().public_bytes_raw()
WRONG = {
    "nothing": b"",
    "another key": generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, PLAIN
    ),
    "another format": KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, PLAIN),
    "a password": KEY.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    ),
    "half a key": PEM[:60],
    "bytes": bytes(range(256)),
}


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """And read again afterwards; openssl can read it, too."""
    path = tmp_path / "outbox.signing-key"
    made = load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert load_or_create(path).public_key == load(path).public_key == made.public_key
    assert is_signed(made.public_key, b"message", made.sign(b"message"))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_all_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """The first one's is everybody's."""
    path, found = tmp_path / "key", set()
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        found.add(load_or_create(path).public_key)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {load(path).public_key}


def test_a_key_that_another_process_made_meanwhile_is_used(tmp_path: Path) -> None:
    """It is not replaced, and nobody is told of an error."""

    class NotSeenYet(type(tmp_path)):  # type: ignore[misc]  # a Path's class depends on the system
        def exists(self, **_: object) -> bool:
            return False

    made = load_or_create(tmp_path / "key")
    assert load_or_create(NotSeenYet(tmp_path / "key")).public_key == made.public_key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_a_key_that_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """The application that runs as that user can read it."""
    os.chown(tmp_path, 12345, 12345)
    load_or_create(tmp_path / "key")
    assert (tmp_path / "key").stat().st_uid == 12345


def test_a_key_may_be_a_setting() -> None:
    """As PEM, or in one line without its frame."""
    line = "".join(PEM.decode().splitlines()[1:-1])
    for text in (PEM.decode(), f"\n{PEM.decode()}\n", line):
        assert from_text(text).public_key == PUBLIC


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_what_is_no_key_is_named(content: bytes, tmp_path: Path) -> None:
    """In one line, and what it holds is not shown."""
    path = tmp_path / "outbox.signing-key"
    path.write_bytes(content)
    for read in (load, load_or_create):
        with pytest.raises(ConfigurationError) as error:
            read(path)
        assert str(error.value).startswith(f"the signing key {path} is not an Ed25519 private key")
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigurationError, match=r"^signing_key is not"):
        from_text(content.decode("latin-1"))
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_or_made_is_named(tmp_path: Path) -> None:
    """A folder in its place, no folder, and no file."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_or_create(tmp_path)
    with pytest.raises(ConfigurationError, match="no signing key can be made"):
        load_or_create(tmp_path / "missing" / "key")


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made then."""
    assert can_sign()
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert not can_sign()
    with pytest.raises(ConfigurationError, match=r"pip install 'agent-tracking-sdk\[evidence\]'"):
        load_or_create(tmp_path / "key")
    with pytest.raises(ConfigurationError, match=r"\[evidence\]"):
        from_text(PEM.decode())
    assert not list(tmp_path.iterdir())
