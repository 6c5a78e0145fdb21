"""The API key in a file: when it is read, what is refused, and which of two keys counts."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest

from tracker import APIConfig, ConfigurationError
from tracker.config.key_file import KeyFile

if TYPE_CHECKING:
    from pathlib import Path

KEY = "tk_3x4mple_of_a_secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "api-key"
    path.write_text(f"{KEY}\n")
    return path


def made(**given: Any) -> APIConfig:
    return APIConfig(client_id="c", outbox_path="/none/o.sqlite3", **given)


def test_the_key_is_read_from_the_file(file: Path) -> None:
    """Without the white space around it, or the byte order mark that some editors put there."""
    config = made(api_key_file=file)
    assert config.api_key == KEY
    assert config.origins["api_key"] == ("file", str(file))
    assert KEY not in repr(config)
    file.write_text(f"\ufeff {KEY}\r\n", encoding="utf-8")
    assert made(api_key_file=file).api_key == KEY


def test_of_key_and_file_the_higher_source_counts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument beats a variable, whichever of the two it gives."""
    monkeypatch.setenv("SDK_API_KEY_FILE", str(file))
    given = made(api_key="argument")
    assert (given.api_key, given.api_key_file) == ("argument", None)
    monkeypatch.setenv("SDK_API_KEY_FILE", "")
    monkeypatch.setenv("SDK_API_KEY", "environment")
    assert made(api_key_file=file).api_key == KEY
    settings = tmp_path / "tracker.toml"
    settings.write_text('api_key_file = "api-key"\n')
    assert made(config_file=settings).api_key == "environment"


def test_both_from_one_source_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could say which of them is meant."""
    with pytest.raises(ConfigurationError, match="both api_key and api_key_file are given"):
        made(api_key=KEY, api_key_file=file)
    monkeypatch.setenv("SDK_API_KEY_FILE", str(file))
    monkeypatch.setenv("SDK_API_KEY", KEY)
    with pytest.raises(ConfigurationError, match=r"both api_key \(SDK_API_KEY\) and") as caught:
        made()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (f"{KEY}\n{KEY}".encode(), "has white space, control or non-ASCII characters"),
        (f"SDK_API_KEY={KEY} ".encode() * 2, "has white space, control or non-ASCII characters"),
        (b"\xe9", "is not UTF-8 text"),
        (KEY.encode() * 1000, "has more than 16,384 bytes"),
    ],
)
def test_what_holds_no_key_is_refused(file: Path, content: bytes, said: str) -> None:
    """At construction, by the name of the file, and without a byte of it."""
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        made(api_key_file=file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_missing_file_is_refused_unless_nothing_is_uploaded(tmp_path: Path) -> None:
    """`disabled` touches no file."""
    with pytest.raises(ConfigurationError, match="api-key cannot be read: No such file"):
        made(api_key_file=tmp_path / "api-key")
    assert made(api_key_file=tmp_path / "api-key", disabled=True).api_key == ""


def test_a_copy_keeps_key_and_file(file: Path) -> None:
    """Even when the file is gone; another key takes its place if the file is left out."""
    config = made(api_key_file=file)
    file.unlink()
    assert dataclasses.replace(config, flush_interval=1).api_key == KEY
    other = dataclasses.replace(config, api_key="other", api_key_file=None)
    assert other.api_key == "other"


def test_a_new_key_is_read_and_the_last_one_kept_meanwhile(file: Path) -> None:
    """Whether the file is written over, replaced, gone, empty or spoiled for a moment."""
    keys = KeyFile(file, KEY)
    assert (keys.current(), keys.changed()) == (KEY, False)
    file.write_text("key-two")
    assert keys.changed()
    assert keys.current() == "key-two"
    file.unlink()
    assert keys.current() == "key-two"
    file.write_text("")
    assert keys.current() == "key-two"
    file.write_text("two words")
    assert keys.current() == "key-two"
    other = file.with_name("new")
    other.write_text("key-three")
    other.replace(file)
    assert keys.current() == "key-three"


def test_a_link_that_moves_on_is_followed(file: Path, tmp_path: Path) -> None:
    """As a cluster does with its secrets: the folder's link is replaced, no file is written."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"key-{name}")
    (tmp_path / "now").symlink_to("one")
    keys = KeyFile(tmp_path / "now" / "key")
    assert keys.current() == "key-one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    assert keys.current() == "key-two"


def test_after_a_refusal_the_file_is_read_though_it_seems_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may keep times of seconds only."""
    keys = KeyFile(file, KEY)
    assert keys.current() == KEY
    status = file.stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    file.write_text(f"{KEY[:-1]}x\n")
    assert keys.current() == KEY
    keys.look_again()
    assert keys.current() == f"{KEY[:-1]}x"
