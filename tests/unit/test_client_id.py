"""The client id of a device: made once, the same for all processes, kept over restarts."""

from __future__ import annotations

import stat
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from tracker import APIConfig, ConfigurationError
from tracker.identity import load_or_create

if TYPE_CHECKING:
    from pathlib import Path

RACE = """
import os, sys
from pathlib import Path
from tracker.identity import load_or_create
started, start = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(start)
        os.read(started, 1)  # until the parent closes it, for all at once
        os.write(1, f"{load_or_create(Path(sys.argv[1]))}\\n".encode())
        os._exit(0)
os.close(start)
for _ in range(8):
    assert os.wait()[1] == 0
"""


def test_the_id_is_a_uuid_kept_for_this_user_alone(tmp_path: Path) -> None:
    """The second call reads what the first one wrote; nothing else is left behind."""
    folder = tmp_path / "a" / "b"
    first = load_or_create(folder)
    assert str(uuid.UUID(first)) == first
    assert load_or_create(folder) == first
    assert [path.name for path in folder.iterdir()] == ["client-id"]
    assert stat.S_IMODE((folder / "client-id").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_id_lies_beside_the_outbox(tmp_path: Path) -> None:
    """Two configurations with one folder have one id, and so one outbox, over restarts."""
    first, second = APIConfig(api_key="k"), APIConfig(api_key="k")
    assert first == second
    assert (first.outbox_path.parent / "client-id").read_text().strip() == first.client_id
    elsewhere = APIConfig(api_key="k", outbox_path=tmp_path / "else" / "x.sqlite3")
    assert elsewhere.client_id != first.client_id


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    """Eight processes race to make the id, and all see the same one."""
    folder = tmp_path / "shared"
    ran = subprocess.run(
        [sys.executable, "-c", RACE, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    answers = ran.stdout.split()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert str(uuid.UUID(answers[0])) == answers[0]
    assert [path.name for path in folder.iterdir()] == ["client-id"]


def test_an_id_of_ones_own_may_be_written_by_hand(tmp_path: Path) -> None:
    """Whoever images devices can put the file there."""
    (tmp_path / "client-id").write_text("kiosk-17\n")
    assert load_or_create(tmp_path) == "kiosk-17"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_damaged_file_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    """A new id would make this device another one; that is for people to decide."""
    (tmp_path / "client-id").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"client-id.*SDK_CLIENT_ID"):
        load_or_create(tmp_path)
    assert (tmp_path / "client-id").read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """The message names the file and both ways out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        load_or_create(tmp_path / "file" / "folder")
    message = str(caught.value)
    assert str(tmp_path / "file" / "folder" / "client-id") in message
    assert "SDK_CLIENT_ID" in message
    assert "SDK_OUTBOX_PATH" in message
