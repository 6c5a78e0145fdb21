"""What becomes of a captured value on its way into an event: it is masked, then cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracker import APIConfig
from tracker.redaction.redactor import Redactor


def stored(value: object, **settings: Any) -> Any:
    """Return `value` as an event's data would hold it."""
    usual = {"api_key": "k", "client_id": "c", "redaction": "off"}
    config = APIConfig(**{**usual, "outbox_path": Path("o.sqlite3"), **settings})
    data, _ = Redactor(config).apply("a.b", {"value": value})
    return data["value"]
