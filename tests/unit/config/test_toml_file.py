"""The configuration file: what is refused, in one line that helps and shows no value."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tracker import APIConfig, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "tk_3x4mple_of_a_secret"


def load(path: Path) -> APIConfig:
    return APIConfig(client_id="c", config_file=path)


def problem(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None  # which might hold the whole text
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'api_kee = "{SECRET}"', "there is no setting 'api_kee'; did you mean api_key"),
        (f'SDK_API_KEY = "{SECRET}"', "there is no setting 'SDK_API_KEY'; did you mean api_key"),
        ("flush-interval = 1", "there is no setting 'flush-interval'; did you mean flush_interval"),
        ("retention_day = 1", "did you mean retention_days or retention"),
        ("zzzzzz = 1", "there is no setting 'zzzzzz'; see `tracker-sync config`"),
        ("redactors = []", "redactors cannot stand in a file: it holds functions of Python"),
        ('config_file = "x"', "config_file cannot stand in a file: a file names no other"),
        (f'[tracker]\napi_key = "{SECRET}"', "there is no table [tracker]: settings stand at the"),
        ('[retention]\n"a.b" = 1\nclient_id = "c"', "client_id stands in the table [retention], w"),
        (f'api_key = "{SECRET}', "is not valid TOML: "),
        (f"api_key = {SECRET}", "is not valid TOML: "),
        (f'api_key = "{SECRET}"\napi_key = "x"', "is not valid TOML: "),
        ("a = " + "[" * 20_000, "is not valid TOML: "),
        (f'api_key = "{SECRET}"\nclient_id = "a\0b"', "is not valid TOML: "),
        (f"api_key = ['{SECRET}']", "api_key (in {path}) is of type list; give a str"),
        ("api_key = 7", "api_key (in {path}) is of type int; give a str"),
        ("disabled = 'perhaps'", "disabled (in {path}) is 'perhaps'; give 1 or 0"),
        ("flush_interval = '1'", "flush_interval (in {path}) is '1'; give a number from 0 to 3600"),
        (
            "flush_interval = 2026-11-30",
            "flush_interval (in {path}) is datetime.date(2026, 11, 30)",
        ),
        ("retention = [1]", "retention (in {path}) is of type list; give days by event type"),
        (f'[proxies]\nhttps = ["{SECRET}"]', "proxies (in {path}) must map schemes to proxy URLs"),
        ("outbox_path = 7", "outbox_path (in {path}) is of type int; give a path"),
        ("tags = {line = 4}", "tags (in {path}): tags['line']: is of type int; give a str"),
        ("outbox_path = ''", "outbox_path (in {path}) is '', which names no file"),
        (
            "outbox_path = '~nobody-here/x'",
            "outbox_path (in {path}) is '~nobody-here/x', and there",
        ),
        ("ca_bundle = ''", "ca_bundle (in {path}) is ''; give the path of a PEM file"),
        ("api_key_file = ''", "api_key_file (in {path}) is ''; give the path of a file"),
        ("secret_names = 'pin'", "secret_names (in {path}) must be a list of names"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The message names the file, and what to do; a wrong name gets those that are like it."""
    path = tmp_path / "tracker.toml"
    path.write_text(text if "api_k" in text.split("=")[0] else f'api_key = "{SECRET}"\n{text}')
    message = problem(path)
    assert str(path) in message
    assert said.format(path=path) in message


@pytest.mark.parametrize("text", ["\ufeff{}", "{}\r\n", "# é\n\n{}"])
def test_what_editors_do_to_files_does_no_harm(tmp_path: Path, text: str) -> None:
    """A byte order mark, line ends of Windows, a comment in any language."""
    path = tmp_path / "tracker.toml"
    path.write_bytes(text.format(f'api_key = "{SECRET}"').encode())
    assert load(path).api_key == SECRET


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    """Nothing, a folder, a pipe, a device, too much, or another encoding: at once, in one line."""
    pipe, large, latin = tmp_path / "pipe", tmp_path / "large", tmp_path / "latin"
    os.mkfifo(pipe)
    large.write_text("#" * (1 << 20) + "\n")
    latin.write_bytes(b'client_id = "\xe9"')
    named = f"the configuration file {tmp_path}"
    assert problem(tmp_path / "none") == f"{named}/none cannot be read: No such file or directory"
    assert problem(tmp_path) == f"{named} is not a regular file"
    assert problem(pipe) == f"{named}/pipe is not a regular file"
    assert problem(large) == f"{named}/large has more than 1,048,576 bytes"
    assert problem(latin) == f"{named}/latin is not UTF-8 text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """By the name of the file."""
    path = tmp_path / "tracker.toml"
    path.write_text("")
    path.chmod(0)
    assert problem(path) == f"the configuration file {path} cannot be read: Permission denied"


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    """As if none were named."""
    path = tmp_path / "tracker.toml"
    path.write_text("\n# nothing yet\n")
    with pytest.raises(ConfigurationError, match="no API key"):
        load(path)


def test_without_a_file_nothing_is_loaded_to_read_one() -> None:
    """`import tracker` and a configuration of arguments import no parser of TOML."""
    code = (
        "import sys, tracker\n"
        "tracker.APIConfig(api_key='k', client_id='c', outbox_path='/none/o')\n"
        "assert not {'tomllib', 'tomli', 'tracker.config.toml_file'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
