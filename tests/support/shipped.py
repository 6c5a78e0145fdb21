"""The examples of services and containers on the pages: how each one starts a program."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.pages import Page

PROGRAMS = "/srv/kiosk/.venv/bin/"
SETTINGS = "/etc/kiosk/"
CREDENTIALS = "%d"


@dataclass(frozen=True)
class Example:
    """A program as a unit or a manifest starts it.

    Attributes:
        name: For people.
        command: The program and its arguments.
        environment: Its variables.
        folders: What is mounted, or made by systemd.
        files: Paths of secrets.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folders: Sequence[str]
    files: Sequence[str]


def examples_on(page: Page) -> list[Example]:
    """Return what all units and manifests on a page start, in order."""
    found = [unit_of(text) for text in page.code("ini")]
    for text in page.code("yaml"):
        document = yaml.safe_load(text)
        if "services" in document:
            found += compose_of(document)
        else:
            found += kubernetes_of(document)
    return found


def unit_of(text: str) -> Example:
    lines = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]
    said = dict(lines)
    environment = [value.split("=", 1) for name, value in lines if name == "Environment"]
    credential = said.get("LoadCredential", "").partition(":")[0]
    return Example(
        name=f"unit: {said['Description']}",
        command=said["ExecStart"].split(),
        environment=dict(environment),
        folders=[f"/var/lib/{said['StateDirectory']}"],
        files=[f"{CREDENTIALS}/{credential}"] if credential else [],
    )


def compose_of(document: Any) -> Iterator[Example]:
    for name, service in document["services"].items():
        mounted = [volume.split(":") for volume in service["volumes"]]
        assert {volume for volume, _ in mounted} <= set(document["volumes"])
        assert set(service["secrets"]) <= set(document["secrets"])
        yield Example(
            name=f"compose: {name}",
            command=service["command"],
            environment=service["environment"],
            folders=[folder for _, folder in mounted],
            files=[f"/run/secrets/{secret}" for secret in service["secrets"]],
        )


def kubernetes_of(document: Any) -> Iterator[Example]:
    spec = document["spec"]
    pod = spec["template"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    for container in pod["containers"]:
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) <= secrets | claims
        yield Example(
            name=f"kubernetes: {container['name']}",
            command=container["command"],
            environment={each["name"]: each["value"] for each in container["env"]},
            folders=[mounts[name] for name in mounts if name in claims],
            files=[f"{mounts[name]}/key" for name in mounts if name in secrets],
        )


def install(folder: Path) -> Path:
    """Put Python and this package's `tracker-sync` into a folder, as an environment has them."""
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    command = folder / "tracker-sync"
    command.write_text(
        f"#!/bin/sh\nPYTHONPATH='{os.pathsep.join(sys.path)}' "
        f"exec '{sys.executable}' -m tracker.cli.main \"$@\"\n"
    )
    command.chmod(0o755)
    return folder


def placed(text: str, folder: Path) -> str:
    """Return a text with the paths of the examples replaced by those of a test."""
    text = text.replace(PROGRAMS, f"{folder}/programs/").replace(SETTINGS, f"{folder}/")
    text = re.sub(r"/run/secrets(/tracker)?/|%d/", f"{folder}/secrets/", text)
    return text.replace("/var/lib/kiosk/", f"{folder}/state/")
