"""What ``tracker-sync doctor`` checks, and its checks of the settings."""

from __future__ import annotations

import os
import stat
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tracker.cli import outbox_checks, place_checks, server_checks
from tracker.cli.check import OK, PROBLEM, WARNING, Check, remedy
from tracker.cli.context import (
    find,
)
from tracker.config import APIConfig
from tracker.config.sources import FILE, strange_variables
from tracker.errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from tracker.cli.command import Place
    from tracker.cli.context import Target


def examine(place: Place) -> list[Check]:
    """Run all checks that can be run, and return their results."""
    try:
        target = find(place, examines=True)
    except ConfigurationError as error:
        return [Check("configuration", PROBLEM, str(error), "fix it and run this again")]
    except OutboxError as error:
        return [Check("outbox", PROBLEM, str(error), remedy(error))]
    config, found = _configuration(target)
    found += [
        *place_checks.folder(target.path),
        place_checks.disk(target.path),
        place_checks.sqlite_version(),
        *outbox_checks.outbox(target),
        *outbox_checks.beside(target),
    ]
    if config is None:
        return [*found, server_checks.clock(None)]
    return [
        *found,
        server_checks.clock(server_checks.server_clock(config)),
        *server_checks.server(target, config),
    ]


def _configuration(target: Target) -> tuple[APIConfig | None, list[Check]]:
    """Check the settings for uploads; return them if they are valid."""
    local = target.config
    given: dict[str, Any] = {
        "config_file": local.config_file,
        "client_id": local.client_id,
        "base_url": local.destination_url,
        "outbox_path": local.outbox_path,
        "ca_bundle": local.ca_bundle,
        "connect_timeout": server_checks.CONNECT_SECONDS,
        "read_timeout": server_checks.ANSWER_SECONDS,
        "total_timeout": server_checks.CONNECT_SECONDS + server_checks.ANSWER_SECONDS,
    }
    try:
        trial = APIConfig(api_key="-", **given)
    except ConfigurationError as error:
        return None, [Check("configuration", PROBLEM, str(error), "fix it and run this again")]
    if trial.disabled:
        said = f"{trial.origins['disabled'].name} disables it: nothing is logged or uploaded"
        return None, [Check("configuration", WARNING, said, "unset it to log events")]
    client = f"client {local.client_id}" if target.settled else "no client id was made yet"
    whole = Check("configuration", OK, f"{local.destination_url}, {client}")
    try:
        config = APIConfig(**given)
    except ConfigurationError as error:
        return None, [whole, Check("API key", PROBLEM, str(error)), *_strange_variables()]
    key = "set" if config.api_key else "none, and none is required"
    return config, [
        whole,
        Check("API key", OK, key),
        *_readable_keys(config),
        *_strange_variables(),
    ]


def _strange_variables() -> list[Check]:
    """Warn of variables whose names are probably misspelt."""
    found = strange_variables(fields(APIConfig))
    return [
        Check("variable", WARNING, f"{name} is no setting's variable", f"did you mean {alike}?")
        for name, alike in found.items()
    ]


def _readable_keys(config: APIConfig) -> list[Check]:
    """Warn of files with keys that other users can read."""
    origins = [config.origins[name] for name in ("api_key", "chain_key", "signing_key")]
    files = sorted({each.name for each in origins if each.source == FILE})
    said = "other users can read {}, which holds a key"
    return [
        Check("key file", WARNING, said.format(file), f"chmod o-rwx {file}")
        for file in files
        if os.stat(file).st_mode & stat.S_IROTH  # noqa: PTH116 - read a moment ago
    ]
