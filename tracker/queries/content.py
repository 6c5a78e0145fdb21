"""The content of a message as text for people, whatever parts it consists of."""

from __future__ import annotations

import json
from typing import Any

from tracker.queries.conversations import text


def parts_of(content: object) -> list[dict[str, Any]] | None:
    """Return the parts of a message's content; None if it is a text, or damaged."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    return None


def readable(content: object) -> str | None:
    """Return a message's content as text: its texts, and a line for each other part."""
    parts = parts_of(content)
    return text(content) if parts is None else "\n".join(map(_line, parts))


def _line(part: dict[str, Any]) -> str:
    kind = part.get("type")
    said = part.get(kind) if isinstance(kind, str) else None
    if isinstance(said, str) and kind in ("text", "refusal"):
        return said
    if "sha256" in part:
        size, digest = part.get("bytes"), str(part["sha256"])
        told = (part.get("name"), part.get("media_type"), f"{size} bytes", f"SHA-256 {digest}")
        line = f"[{', '.join(str(each) for each in told if each is not None)}]"
        spoken = part.get("text")
        return f"{line} {spoken}" if isinstance(spoken, str) else line
    rest = {name: value for name, value in part.items() if name != "type"}
    if len(rest) == 1:
        (only,) = rest.values()
        if isinstance(only, str):
            return f"[{kind}: {only}]"
    return f"[{kind}: {json.dumps(rest, ensure_ascii=False)}]"
