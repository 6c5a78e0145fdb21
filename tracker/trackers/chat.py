"""Lists of chat messages in the shapes of OpenAI's and Anthropic's APIs, as what is to be logged.

`read` takes the messages of OpenAI's chat completions, the items of its responses and the messages
of Anthropic's API, as dicts or as the objects of their SDKs, mixed as they come. A message becomes
a `Message`, a tool call a `Call` that knows its `Result`, wherever in the list that stands. What
says nothing, such as reasoning that is only encrypted, becomes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker import canonical, validation
from tracker.errors import ValidationError
from tracker.trackers.capture import type_name
from tracker.trackers.content import check_role, plain, stored, without_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

_ALLOWED = (
    "give the messages of OpenAI's or Anthropic's API, as in {'role': 'user', 'content': 'Hello!'}"
)
_INPUTS = ("arguments", "input", "action", "queries", "code", "operation", "actions")
_OUTPUTS = ("output", "outputs", "results", "result", "tools")
_STREAMED = ("message_", "content_block_")
_BLOCKS = ("text", "input_text", "output_text", "tool_use", "tool_result", "thinking")
_NOTHING = ("item_reference",)
_OPAQUE = ("id", "status", "encrypted_content")


@dataclass(eq=False)
class Message:
    """A message.

    Attributes:
        index: Its place in the list.
        role: The role to store.
        content: The content to store.
        name: The name of the participant or tool, if one is given.
        model: The model that generated it, if it is named.
        call_id: The tool call that it answers, for a result without its call.
    """

    index: int
    role: str
    content: str | list[dict[str, Any]]
    name: str | None = None
    model: str | None = None
    call_id: str | None = None


@dataclass(eq=False)
class Result:
    """The result or error of a tool call.

    Attributes:
        index: Its place in the list.
        call_id: The id of the call, if one is given.
        name: The tool's name, if one is given.
        value: The result to store.
        error: Whether `value` says what went wrong.
    """

    index: int
    call_id: str | None
    name: str | None
    value: Any
    error: bool = False

    @property
    def error_text(self) -> str | None:
        """What went wrong as text; None if nothing did."""
        if not self.error:
            return None
        said = self.value
        return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


@dataclass(eq=False)
class Call:
    """A tool call.

    Attributes:
        index: Its place in the list.
        name: The tool's name.
        arguments: The arguments to store.
        call_id: The id that the model gave it, if any.
        result: What came of it, if the list says so.
    """

    index: int
    name: str
    arguments: Any
    call_id: str | None
    result: Result | None = None


Entry = Message | Call | Result


def read(
    argument: str, messages: object, default: Callable[[Any], Any] | None = None
) -> list[Entry]:
    """Return what a list of messages says, in order; each result follows as an entry of its own.

    `default` replaces objects that JSON does not have, as that of `json.dumps` does.

    Raises:
        ValidationError: if it is no list, or has anything else in it; the error names its place.
    """
    if not issubclass(type(messages), (list, tuple)):
        raise ValidationError(
            argument,
            f"is of type {type_name(messages)}; give a list of messages, as in "
            "[{'role': 'user', 'content': 'Hello!'}]",
        )
    entries: list[Entry] = []
    for index, item in enumerate(plain(argument, messages, default)):
        entries += _entries(f"{argument}[{index}]", index, item)
    return _paired(entries)


def _paired(entries: list[Entry]) -> list[Entry]:
    """Give each call its result; a result whose call is not there becomes a message."""
    open_calls: list[Call] = []
    kept: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Call):
            open_calls.append(entry)
        elif isinstance(entry, Result):
            call = next((call for call in open_calls if _answers(entry, call)), None)
            if call is None:
                kept.append(as_message(entry))
                continue
            open_calls.remove(call)
            call.result = entry
            entry.call_id = call.call_id
        kept.append(entry)
    return kept


def _answers(result: Result, call: Call) -> bool:
    if result.call_id is not None:
        return result.call_id == call.call_id
    return result.name in (None, call.name)


def as_message(result: Result) -> Message:
    """Return a result whose call is not beside it as a message of the role ``tool``."""
    value = result.value
    content = value if isinstance(value, str) or _is_parts(value) else json.dumps(value)
    return Message(result.index, "tool", content, result.name, call_id=result.call_id)


def _is_parts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _entries(path: str, index: int, item: Any) -> list[Entry]:
    if not isinstance(item, dict):
        raise ValidationError(path, f"is of type {type_name(item)}; {_ALLOWED}")
    kind = item.get("type")
    _refuse_others(path, item, kind if isinstance(kind, str) else "")
    if item.get("role") is not None and (kind in (None, "message") or "content" in item):
        return _of_message(path, index, item)
    if not isinstance(kind, str):
        raise ValidationError(path, f"has neither a role nor a type; {_ALLOWED}")
    return _of_item(path, index, kind, item)


def _refuse_others(path: str, item: dict[str, Any], kind: str) -> None:
    """Refuse what is near: parts of a stream, whole answers, and blocks without their message."""
    said = str(item.get("object", ""))
    if "delta" in item or "." in kind or kind.startswith(_STREAMED) or said.endswith(".chunk"):
        raise ValidationError(
            path, "is a part of a stream; give the message that the stream ends with"
        )
    if "choices" in item or said == "response":
        raise ValidationError(
            path,
            "is a whole answer; give its message: response.choices[0].message of chat completions, "
            "the items of response.output",
        )
    if kind in _BLOCKS and item.get("role") is None:
        raise ValidationError(
            path,
            f"is a {kind} block without its message; give "
            "{'role': 'assistant', 'content': response.content}",
        )


def _of_message(path: str, index: int, item: dict[str, Any]) -> list[Entry]:
    role = check_role(f"{path}.role", item["role"])
    name = validation.check_optional_id(f"{path}.name", item.get("name"))
    content = item.get("content")
    answered = item.get("tool_call_id")
    if role == "tool":
        call_id = validation.check_optional_id(f"{path}.tool_call_id", answered)
        value = _result(f"{path}.content", content)
        return [Result(index, call_id, name, value, item.get("status") == "error")]
    if not (content is None or isinstance(content, (str, list))):
        raise ValidationError(
            f"{path}.content", f"is of type {type_name(content)}; give a str or a list of parts"
        )
    parts = content if isinstance(content, list) else []
    if isinstance(content, str):
        parts = [validation.check_text(f"{path}.content", content)]
    results: list[Entry] = []
    calls: list[Entry] = []
    rest: list[Any] = []
    for number, part in enumerate(parts):
        where = f"{path}.content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind.endswith("tool_use"):
            calls.append(_call(where, index, part, part.get("name"), part.get("input")))
        elif isinstance(kind, str) and kind.endswith("tool_result"):
            results.append(_tool_result(where, index, part))
        else:
            rest.append(part)
    calls += _tool_calls(path, index, item)
    rest += [{"type": kind, kind: item[kind]} for kind in ("refusal", "audio") if item.get(kind)]
    said: list[Entry] = []
    tools = bool(calls or results)
    if content is None and role != "agent" and not tools:
        raise ValidationError(f"{path}.content", "is None; give a str or a list of parts")
    if not (tools and (not rest or content == "")):
        model = item.get("model")
        said.append(
            Message(
                index,
                role,
                stored(f"{path}.content", rest) if rest else "",
                name,
                validation.check_optional_id(f"{path}.model", model),
            )
        )
    # Results that come with a text were asked for before it, and calls come after it.
    if role == "user":
        return [*calls, *results, *said]
    return [*said, *calls, *results]


def _tool_calls(path: str, index: int, item: dict[str, Any]) -> list[Entry]:
    """Return the calls of an assistant's message in OpenAI's chat completions."""
    calls: list[Entry] = []
    listed = item.get("tool_calls") or []
    if not isinstance(listed, list):
        raise ValidationError(f"{path}.tool_calls", f"is of type {type_name(listed)}; give a list")
    for number, call in enumerate(listed):
        where = f"{path}.tool_calls[{number}]"
        if not isinstance(call, dict):
            raise ValidationError(where, f"is of type {type_name(call)}; give a dict")
        said = next((call[name] for name in ("function", "custom")
                     if isinstance(call.get(name), dict)), call)  # fmt: skip
        given = next((said[name] for name in ("arguments", "input", "args") if name in said), None)
        calls.append(_call(where, index, call, said.get("name"), given))
    if isinstance(old := item.get("function_call"), dict):
        calls.append(
            _call(f"{path}.function_call", index, {}, old.get("name"), old.get("arguments"))
        )
    return calls


def _call(path: str, index: int, said: dict[str, Any], name: object, given: Any) -> Call:
    call_id = said.get("call_id") or said.get("id") or None
    return Call(
        index,
        validation.check_id(f"{path}.name", name),
        _arguments(f"{path}.arguments", given),
        validation.check_optional_id(f"{path}.id", call_id),
    )


def _arguments(path: str, given: Any) -> Any:
    """Return a call's arguments: the value of JSON text, or the text if it is no JSON."""
    if isinstance(given, str):
        try:
            return validation.check_json(path, canonical.decode(given))
        except ValueError:  # ValidationError is one
            return validation.check_text(path, given)
    return validation.check_json(path, without_bytes(given))


def _tool_result(path: str, index: int, part: dict[str, Any]) -> Result:
    call_id = validation.check_optional_id(f"{path}.tool_use_id", part.get("tool_use_id"))
    value = _result(f"{path}.content", part.get("content"))
    return Result(index, call_id, None, value, bool(part.get("is_error")))


def _result(path: str, content: Any) -> Any:
    if content is None:
        return ""
    if isinstance(content, dict) and content.get("type") == "computer_screenshot":
        content = [content]
    if isinstance(content, list) and all(isinstance(p, dict) and "type" in p for p in content):
        return stored(path, content)
    return validation.check_json(path, without_bytes(content))


def _of_item(path: str, index: int, kind: str, item: dict[str, Any]) -> list[Entry]:
    """Return what an item of OpenAI's responses says."""
    if kind.endswith("_output"):
        call_id = item.get("call_id") or item.get("id")
        call_id = validation.check_optional_id(f"{path}.call_id", call_id)
        value = next((item[name] for name in _OUTPUTS if item.get(name) is not None), None)
        return [Result(index, call_id, None, _result(f"{path}.output", value))]
    if kind.endswith("_call") or kind == "program":
        return _of_call(path, index, kind, item)
    if kind in _NOTHING:
        return []
    if kind == "reasoning":
        texts = [part for name in ("summary", "content") for part in item.get(name) or []]
        parts = [{"type": "reasoning", "text": part.get("text")} for part in texts]
        return [Message(index, "agent", stored(path, parts))] if parts else []
    if "content" in item:
        raise ValidationError(path, f"has no role; {_ALLOWED}")
    kept = {name: value for name, value in item.items() if name not in _OPAQUE}
    return [Message(index, "tool", stored(path, [kept]))]


def _of_call(path: str, index: int, kind: str, item: dict[str, Any]) -> list[Entry]:
    """Return a call, and its result if the provider ran the tool and says so."""
    given = next((item[name] for name in _INPUTS if item.get(name) is not None), None)
    call = _call(path, index, item, item.get("name") or kind.removesuffix("_call"), given)
    error = item.get("error")
    value = error or next((item[name] for name in _OUTPUTS if item.get(name) is not None), None)
    if value is None:
        return [call]
    if kind == "image_generation_call" and isinstance(value, str):
        value = [{"type": "image", "data": value, "media_type": "image/png"}]
    result = Result(index, call.call_id, call.name, _result(path, value), bool(error))
    return [call, result]
