"""``tracker-sync config``: every setting in force, and where its value comes from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import NO_CLIENT, OPTIONS, find
from tracker.cli.output import echo_json, json_option, print_table
from tracker.config import APIConfig
from tracker.config.kinds import variable_of
from tracker.config.lookup import look_up

if TYPE_CHECKING:
    from tracker.config.sources import Origin


class _Shown(NamedTuple):
    """A setting as it is shown.

    Attributes:
        value: Its value, for JSON; None for a secret, and for functions.
        text: Its value, for people.
        source: ``option``, ``environment``, ``file``, ``outbox`` or ``default``.
        name: The option, the variable, or the path of the file.
    """

    value: Any
    text: str
    source: str
    name: str


@click.command(
    cls=Command,
    examples=[
        "tracker-sync config",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 config --json",
    ],
    exits={0: "shown", 1: "the outbox cannot be read"},
)
@json_option
@click.pass_obj
def config(place: Place, *, as_json: bool) -> None:
    """Show every setting in force, and where its value comes from.

    An option comes before the environment, that before the file which --config or SDK_CONFIG_FILE
    names, and that before the default. A setting's variable is SDK_ and its name in capitals.
    Settings that an application makes in Python are not known here. Keys are never shown, nor are
    passwords of proxies.
    """
    shown = _settings(place)
    if as_json:
        described = {name: each._asdict() for name, each in shown.items()}
        echo_json(
            {name: {k: v for k, v in described[name].items() if k != "text"} for name in shown}
        )
    else:
        rows = [(name, each.text, f"{each.source} {each.name}") for name, each in shown.items()]
        print_table(("setting", "value", "from"), rows, fixed=1)


def _settings(place: Place) -> dict[str, _Shown]:
    target = find(place, examines=True)
    keyed = any(look_up(place.config, "api_key", "api_key_file").values())
    made = APIConfig(**target.given) if keyed else APIConfig(**target.given, api_key="-")
    shown = {}
    for item in dataclasses.fields(APIConfig):
        value = getattr(made, item.name)
        if item.name == "client_id" and value == NO_CLIENT:
            shown[item.name] = _Shown(None, "made when it is needed", "default", "")
        elif item.name == "api_key" and not keyed:
            shown[item.name] = _Shown(None, "not set", "default", "")
        else:
            source, name = _source(place, item.name, made.origins[item.name])
            shown[item.name] = _Shown(*_value(item, value), source, name)
    return shown


def _source(place: Place, name: str, origin: Origin) -> tuple[str, str]:
    """Return where a value comes from, for somebody who gives no arguments but options."""
    if origin.source != "argument":
        return origin.source, origin.name
    option = OPTIONS[name]
    if getattr(place, option) is None:
        return "outbox", ""
    return "option", "--" + option.replace("_", "-")


def _value(item: dataclasses.Field[Any], value: Any) -> tuple[Any, str]:
    """Return a value for JSON, and for people."""
    if variable_of(item) is None:
        return None, "set in Python only"
    if item.name == "proxies" and value is not None:
        value = {scheme: _without_user(url) for scheme, url in value.items()}
    elif item.metadata["secret"]:
        return None, "set, not shown" if value else "not set"
    if isinstance(value, Path):
        value = str(value)
    return (list(value) if isinstance(value, tuple) else value), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(each)}" for key, each in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _without_user(url: str) -> str:
    """Return the URL of a proxy without user name, password and query, however malformed it is."""
    before, at, host = url.rpartition("@")
    host, *query = re.split(r"[?#]", host, maxsplit=1)  # a query may hold a key
    host += "?[not shown]" if query else ""
    scheme, slashes, _ = before.rpartition("://") if before.count("://") == 1 else ("", "", "")
    return f"{scheme}{slashes}[user]@{host}" if at else host
