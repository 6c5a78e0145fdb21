"""The units and manifests on the command's page do what they are for, as they stand there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT
from tests.support.pages import IS_CHECKOUT, Page
from tests.support.shipped import PROGRAMS, Example, examples_on, install, placed
from tests.support.uploads import wait_until
from tracker import APIConfig, Tracker
from tracker.config.kinds import variable_of
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import CollectorClient

PAGE = Page(ROOT / "tracker" / "cli" / "README.md")
EXAMPLES = examples_on(PAGE) if IS_CHECKOUT else []
VARIABLES = {variable_of(field) for field in dataclasses.fields(APIConfig)}
UNITS = PAGE.code("ini") if IS_CHECKOUT else []
UPLOADERS = [each for each in EXAMPLES if each.command[0].endswith("tracker-sync")]


def each(examples: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", examples, ids=[item.name for item in examples])


@pytest.mark.skipif(not IS_CHECKOUT, reason="the command's page is not here")
def test_there_is_one_of_each() -> None:
    """An application and its sidecar: for systemd, Compose and Kubernetes."""
    kinds = [example.name.partition(":")[0] for example in EXAMPLES]
    assert kinds == ["unit", "unit", "compose", "compose", "kubernetes", "kubernetes"]
    assert len(UPLOADERS) == 3


@each(EXAMPLES)
def test_it_says_what_the_sdk_understands(example: Example) -> None:
    """Its variables are settings; the key is where the example puts it, the outbox on a volume."""
    assert set(example.environment) <= VARIABLES
    assert example.environment["SDK_API_KEY_FILE"] in example.files
    assert "SDK_API_KEY" not in example.environment, "others could read it"
    outbox = PurePosixPath(example.environment["SDK_OUTBOX_PATH"])
    assert any(outbox.is_relative_to(folder) for folder in example.folders)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong with it."""
    install(tmp_path / "programs")
    path = tmp_path / "kiosk-uploader.service"
    path.write_text(unit.replace(PROGRAMS, f"{tmp_path}/programs/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Failed to" in done.stderr and str(path) not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr, done.stderr


@each(UPLOADERS)
def test_it_uploads(example: Example, client: CollectorClient, tmp_path: Path) -> None:
    """What the application has logged there; and it ends in order when it is told to."""
    install(tmp_path / "programs")
    for name in ("secrets", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    environment = {name: placed(value, tmp_path) for name, value in example.environment.items()}
    environment |= {"SDK_CLIENT_ID": client.client_id, "SDK_BASE_URL": client.url}
    key = environment["SDK_API_KEY_FILE"]
    with open(key, "w") as file:  # noqa: PTH123 - a name is all there is
        file.write(f"{client.api_key}\n")
    settings = APIConfig(
        api_key="-",
        client_id=client.client_id,
        base_url=client.url,
        outbox_path=environment["SDK_OUTBOX_PATH"],
    )
    offline = RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE))
    with Tracker(settings, destination=lambda: offline) as tracker:
        tracker.operations.heartbeat("agent_123")
        tracker.close(timeout=0)
    command = [placed(part, tmp_path) for part in example.command]
    programs = f"{tmp_path}/programs{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        env={"PATH": programs, "HOME": str(tmp_path), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: bool(client.events()), "the event is at the collector", timeout=30)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert [event["type"] for event in client.events()] == ["agent.heartbeat"]
