"""Content of messages as the model APIs have it: a text, or a list of parts.

Texts are kept. Of an image, a sound or a file, media type, size and SHA-256 are kept in place of
its bytes, in every shape that OpenAI's and Anthropic's APIs have for them; one that is only named,
by a URL or by an id of the provider, keeps that name. All other parts, such as ``tool_use``, are
kept as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from tracker import validation
from tracker.errors import ValidationError
from tracker.trackers.capture import type_name

ROLES = {
    **{role: role for role in ("user", "agent", "system", "tool")},
    "assistant": "agent",
    "developer": "system",
    "function": "tool",
}
"""The role that is stored, by the role that is given: the model APIs have other names for some."""

_ROLES = tuple(ROLES)
_TEXTS = ("text", "input_text", "output_text")
_MEDIA = {
    **dict.fromkeys(("image", "image_url", "input_image", "computer_screenshot"), "image"),
    **dict.fromkeys(("audio", "input_audio"), "audio"),
    **dict.fromkeys(("file", "input_file", "document"), "file"),
}
_WITHIN = ("source", "image_url", "input_audio", "audio", "file")
"""Members of a part that say where its bytes are."""
_PLAIN = (str, int, float, bytes, bytearray)
_NOT_SAID = ("type", "cache_control")
_DATA = re.compile(r"\s*data:", re.ASCII | re.IGNORECASE)
_DATA_URL = re.compile(
    rf"{_DATA.pattern}([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;\s*base64)?,", _DATA.flags
)
_UNKNOWN = "application/octet-stream"
_AUDIO = {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}
_ALLOWED = "give a str, or a list of parts such as {'type': 'text', 'text': 'Hello!'}"


def check_role(argument: str, value: object) -> str:
    """Return the role to store: ``"agent"`` for ``"assistant"``, and so on."""
    return ROLES[validation.check_choice(argument, value, _ROLES)]


def check_content(
    argument: str, value: object, default: Callable[[Any], Any] | None = None
) -> str | list[dict[str, Any]]:
    """Return a message's content as it is to be stored: a text, or a list of parts.

    A list that holds one text and nothing else is that text. `default` replaces objects that JSON
    does not have, as that of `json.dumps` does.

    Raises:
        ValidationError: if it is neither, or a part cannot be stored; the error names its path.
    """
    kind = type(value)
    if kind is str or issubclass(kind, str):
        return validation.check_text(argument, value)
    if not issubclass(kind, (list, tuple)):
        raise ValidationError(argument, f"is of type {type_name(value)}; {_ALLOWED}")
    return stored(argument, plain(argument, value, default))


def stored(argument: str, given: list[Any]) -> str | list[dict[str, Any]]:
    """Return plain parts as they are to be stored; see `check_content`."""
    parts = [_part(f"{argument}[{index}]", part) for index, part in enumerate(given)]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and parts[0]["type"] == "text":
        return validation.check_text(argument, parts[0]["text"])
    checked: list[dict[str, Any]] = validation.check_json(argument, parts)
    return checked


def plain(
    argument: str, value: Any, default: Callable[[Any], Any] | None = None, depth: int = 0
) -> Any:
    """Return a copy of plain dicts and lists in which the models of pydantic are dicts too.

    What `default` returns stands for objects that JSON does not have, raw bytes apart.

    Raises:
        ValidationError: if it is nested too deeply, or its own code raises.
    """
    if depth > validation.MAX_DEPTH:
        raise ValidationError(argument, f"is nested more than {validation.MAX_DEPTH} levels deep")
    kind = type(value)
    try:
        if hasattr(kind, "model_dump"):  # an object of OpenAI's or Anthropic's SDK
            value = value.model_dump(exclude_none=True)
            kind = type(value)
        if issubclass(kind, (list, tuple)):
            return [
                plain(f"{argument}[{i}]", item, default, depth + 1) for i, item in enumerate(value)
            ]
        if issubclass(kind, Mapping):
            return {
                key: plain(f"{argument}.{key}", value[key], default, depth + 1) for key in value
            }
        if default is not None and not (value is None or issubclass(kind, _PLAIN)):
            return plain(argument, default(value), default, depth + 1)
    except ValidationError:
        raise
    except Exception as error:
        raise ValidationError(argument, f"cannot be read ({type_name(error)})") from error
    return value


def without_bytes(value: Any) -> Any:
    """Return plain JSON in which media type, size and SHA-256 stand for bytes and data URLs."""
    if isinstance(value, (bytes, bytearray)):
        return {"type": "file", **_sealed(bytes(value), _UNKNOWN)}
    if isinstance(value, str):
        if _DATA_URL.match(value):
            return {"type": "file", **_sealed(*_of_data_url(value))}
        return value
    if isinstance(value, list):
        return [without_bytes(item) for item in value]
    if isinstance(value, dict):
        kind = value.get("type")
        known = _MEDIA.get(kind) if isinstance(kind, str) else None
        if known is not None and (media := _media(known, value)) is not None:
            return media
        return {key: without_bytes(item) for key, item in value.items()}
    return value


def _part(path: str, part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, (bytes, bytearray)):
        return {"type": "file", **_sealed(bytes(part), _UNKNOWN)}
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ValidationError(path, f"is not a part of a message; {_ALLOWED}")
    if kind in _TEXTS:
        text = validation.check_text(f"{path}.text", part.get("text"))
        cited = {name: part[name] for name in ("citations", "annotations") if part.get(name)}
        return {"type": "text", "text": text, **cited}
    if kind in _MEDIA:
        media = _media(_MEDIA[kind], part)
        if media is None:
            raise ValidationError(
                path, f"has the type {kind!r}, but neither base64 data nor a URL nor a file id"
            )
        return media
    kept = {key: part[key] for key in part if key not in _NOT_SAID and part[key] is not None}
    return {"type": kind, **without_bytes(kept)}


def _media(kind: str, part: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is kept of an image, a sound or a file; None if nothing says where it is."""
    said = dict(part)
    for name in _WITHIN:
        if isinstance(within := part.get(name), dict):
            said.update(within)
    url = next((said[name] for name in ("url", "image_url", "file_url")
                if isinstance(said.get(name), str)), None)  # fmt: skip
    data = said.get("data", said.get("file_data"))
    named = said.get("filename") or said.get("title")
    kept: dict[str, Any] = {"type": kind, **({"name": named} if isinstance(named, str) else {})}
    if isinstance(spoken := said.get("transcript"), str):
        kept["text"] = spoken
    if (said.get("type"), kind) == ("text", "file") and isinstance(data, str):
        return {**kept, "media_type": said.get("media_type", "text/plain"), "text": data}
    if (said.get("type"), kind) == ("content", "file"):
        return {**kept, "content": without_bytes(said.get("content"))}
    inline = url if data is None and url is not None and _DATA.match(url) else data
    found = _bytes(inline, _media_type(said))
    if found is not None:
        return {**kept, **_sealed(*found)}
    file_id = said.get("file_id") or said.get("id")
    return (
        {**kept, "url": url} if url is not None and data is None
        else {**kept, "file_id": file_id} if isinstance(file_id, str) and data is None
        else None
    )  # fmt: skip


def _media_type(said: dict[str, Any]) -> str:
    """Return the media type that a part names, or that the name of its file or format suggests."""
    for name in ("media_type", "mime_type", "mimeType"):
        if isinstance(named := said.get(name), str):
            return named
    if isinstance(sound := said.get("format"), str):
        return _AUDIO.get(sound, f"audio/{sound}")
    guessed, _ = mimetypes.guess_type(str(said.get("filename") or ""))
    return guessed or _UNKNOWN


def _bytes(data: Any, media_type: str) -> tuple[bytes, str] | None:
    """Return bytes and media type of raw bytes, base64 or a data URL; None if it is none."""
    if isinstance(data, (bytes, bytearray)):
        return bytes(data), media_type
    if not isinstance(data, str):
        return None
    if _DATA.match(data):
        return _of_data_url(data)
    content = _of_base64(data)
    return None if content is None else (content, media_type)


def _of_data_url(url: str) -> tuple[bytes, str]:
    """Return bytes and media type of a data URL; of one that is damaged, what is in their place."""
    head = _DATA_URL.match(url)
    start = head or _DATA.match(url)
    body = url[start.end() if start else 0 :].encode(errors="surrogatepass")
    content = unquote_to_bytes(body)
    if head is None:
        return content, _UNKNOWN
    if head[3]:
        decoded = _of_base64(content.decode(errors="replace"))
        content = body if decoded is None else decoded
    return content, head[1] or "text/plain"


def _of_base64(text: str) -> bytes | None:
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None


def _sealed(content: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"media_type": media_type, "bytes": len(content), "sha256": digest}
