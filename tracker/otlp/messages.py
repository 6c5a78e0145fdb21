"""Messages as OpenTelemetry's conventions have them: JSON text of roles and parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.queries.content import readable

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLES = {"agent": "assistant"}
"""Roles that have another name there."""


def text(value: Any) -> str:
    """Return a value as text: a text itself, anything else as JSON."""
    return value if isinstance(value, str) else canonical.encode(value)


def shown(content: Any) -> str:
    """Return a message's content as a person reads it."""
    return readable(content) or ""


def messages(role: str, contents: Iterable[Any], finish_reason: str | None = None) -> str:
    """Return messages of one role as JSON text."""
    said: list[dict[str, Any]] = [
        {"role": ROLES.get(role, role), "parts": _parts(content)} for content in contents
    ]
    if finish_reason is not None:
        for each in said:
            each["finish_reason"] = finish_reason
    return canonical.encode(said)


def _parts(content: Any) -> list[Any]:
    if not isinstance(content, list):
        return [{"type": "text", "content": text(content)}]
    return [_part(part) for part in content]


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return {"type": "text", "content": text(part)}
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "content": text(part.get("text", ""))}
    if kind in ("image", "audio", "file"):
        about = {
            "modality": "document" if kind == "file" else kind,
            "mime_type": part.get("media_type"),
        }
        for name, form in (("url", "uri"), ("file_id", "file")):
            if name in part:
                about |= {"type": form, "uri" if form == "uri" else "file_id": part[name]}
                return {key: value for key, value in about.items() if value is not None}
    return part
