"""README says what is so: its length, its settings, and the files to copy from it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from typing import TYPE_CHECKING

from tests.support.conversations import ROOT
from tests.support.pages import Page
from tests.support.shipped import install, placed
from tracker import APIConfig, Tracker
from tracker.config.kinds import variable_of
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorClient

README = Page(ROOT / "README.md")
VARIABLES = {variable_of(field) for field in dataclasses.fields(APIConfig)} - {None}


def test_it_is_short() -> None:
    """Somebody new reads all of it: the rest is said beside what it describes."""
    assert len(README.text.splitlines()) <= 250


def test_the_configuration_table_is_complete() -> None:
    """The table names every field of APIConfig and its default; a sentence says its variable."""
    section = README.section("Configuration")
    assert "variable of its name, as `SDK_RETENTION_DAYS` of `retention_days`" in section
    rows = re.findall(r"^\| (`.*)\|$", section, re.MULTILINE)
    described = {}
    for row in rows:
        names, defaults, _ = (cell.strip() for cell in row.split("|", 2))
        several = names.split(", ")
        each = defaults.split(", ") if len(several) > 1 else [defaults]
        for name, default in zip(several, each, strict=True):
            described[name.strip("`")] = default.strip("`")
    fields = {field.name: field for field in dataclasses.fields(APIConfig)}
    assert set(described) == set(fields)
    for name, default in described.items():
        check_default(name, default, fields[name].default)


def test_it_says_where_the_outbox_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that it names, on this system, is the one where an outbox is without settings."""
    monkeypatch.delenv("XDG_DATA_HOME")
    folder = APIConfig(api_key="-", client_id="-").outbox_path.parent
    folder = folder.relative_to(os.path.realpath(os.environ["HOME"]))
    assert f"`~/{folder}/`" in README.section("Operations")


def check_default(name: str, said: str, default: object) -> None:
    number = re.match(r"[\d,.]+", said)
    if number and isinstance(default, (int, float)):
        scale = 1024 * 1024 if "MiB" in said else 1
        assert float(number[0].replace(",", "")) * scale == default, name
    elif isinstance(default, str):
        assert said.strip('"') == default, name


def test_the_line_for_cron_uploads(
    client: CollectorClient,
    config: MakeConfig,
    tmp_path: Path,
) -> None:
    """cron's line has five fields and a command, which uploads with the settings of the file."""
    [line] = README.code("cron")
    found = re.fullmatch(r"((?:[\d*/,-]+ ){5})([^%\n]+)\n", line)
    assert found is not None
    install(tmp_path / "programs")
    outbox = tmp_path / "events.sqlite3"
    (tmp_path / "tracker.toml").write_text(
        f'api_key = "{client.api_key}"\nclient_id = "{client.client_id}"\n'
        f'base_url = "{client.url}"\noutbox_path = "{outbox}"\n'
    )
    offline = RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE))
    settings = config(client_id=client.client_id, base_url=client.url, outbox_path=outbox)
    with Tracker(settings, destination=lambda: offline) as tracker:
        tracker.operations.heartbeat("agent_123")
        tracker.close(timeout=0)
    assert client.events() == []
    done = subprocess.run(
        ["sh", "-c", placed(found[2], tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},  # as cron has it
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [event["type"] for event in client.events()] == ["agent.heartbeat"]


def test_the_image_keeps_its_outbox_on_a_volume() -> None:
    """The Dockerfile runs as a user, who owns the folder of the outbox, which is a volume."""
    [text] = README.code("dockerfile")
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    assert list(lines) == ["FROM", "COPY", "RUN", "ENV", "USER", "VOLUME"]
    variable, path = lines["ENV"].split("=")
    assert variable in VARIABLES
    assert os.path.dirname(path) == lines["VOLUME"]  # noqa: PTH120 - a path of another system
    assert f"-o {lines['USER']} -m 700 {lines['VOLUME']}" in lines["RUN"]
