"""Spans and log records of OpenTelemetry: what in them is masked, and what is content.

Masked is what an application or an instrumentor wrote: names, attributes, messages and bodies, but
neither ids nor times, which a rule for numbers might take for something else. Resource and scope
are the same in thousands of events and are masked before, once.

With ``capture_content=False``, attributes that hold content by their names are replaced by their
sizes, as are all bytes and any other text of more than `MOST` characters. Names are known as a
whole, or by their last word: libraries use many, and a text under ``crewai.task.output`` is content
like any other. A figure under such a word, as ``llm.token_count.prompt``, is none.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from tracker.redaction.sizes import size

MOST = 256
"""Longest text in characters that is kept without its name being known."""

_PARTS = ("name", "attributes", "trace_state", "body", "severity_text", "event_name")
_CONTENT = re.compile(
    r"""
    gen_ai\.(
        input\.messages | output\.messages | system_instructions | prompt(\..+)? | completion(\..+)?
        | tool\.definitions | tool\.call\.(arguments|result) | retrieval\..+ | memory\..+
        | evaluation\.explanation | content(\..+)?
    )
    | (input|output)\.value
    | llm\.((input|output)_messages | prompts? | completions? | tools | function_call
            | prompt_template | invocation_parameters)(\..+)?
    | tool\.(parameters|description|json_schema) | tool_call\.function\.arguments
    | (retrieval|reranker)\.(.+\.)?(documents?|query|(input|output)_documents)(\..+)?
    | document\.(content|metadata) | embedding\.(text|embeddings\..+) | message\.content.*
    | traceloop\.entity\.(input|output)
    | pydantic_ai\.(all_)?messages? | (all_messages|final_result|model_request_parameters)
    | (tool_)?arguments | tool_response | logfire\.(msg|json_schema) | events
    | ai\.(.+\.)?(messages?|text|args|result|object)(\..+)?
    | (mcp|jsonrpc)\.(.+\.)?(params|arguments|result|content)(\..+)?
    | mlflow\.span(Inputs|Outputs) | langfuse\.(.+\.)?(input|output)
    | db\.(query\.text|query\.parameter\..+|statement(\..+)?) | db\.operation\.parameter\..+
    | url\.(full|query) | http\.(url|target) | http\.(request|response)\.body.*
    | exception\.(message|stacktrace)
    """,
    re.VERBOSE | re.DOTALL,
)

_WORDS = re.compile(
    r"""
    (?:^|[._-])(?:
        agents? | answers? | args? | arguments? | backstory | body | calls? | chunks? | content
        | data | descriptions? | docs? | documents? | filters? | goals? | inputs? | instructions?
        | messages? | msg | outputs? | params? | parameters? | prompts? | quer(?:y|ies) | questions?
        | reasoning | responses? | results? | sql | statements? | tasks? | texts? | tools?
        | toolcalls? | values? | vectors? | where
    )$
    | (?:^|[._-])metadata(?:[._-]|$)
    """,
    re.VERBOSE,
)
"""Words that say of a text what it is, as the last of a name."""
_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def content(data: dict[str, Any]) -> dict[str, Any]:
    """Return what is to be masked in the data of an event."""
    found = {part: data[part] for part in _PARTS if part in data}
    if "events" in data:
        found["events"] = [_only(event, "name", "attributes") for event in data["events"]]
    if "links" in data:
        found["links"] = [_only(link, "attributes", "trace_state") for link in data["links"]]
    if "message" in data.get("status", ()):
        found["message"] = data["status"]["message"]
    return found


def with_content(
    data: dict[str, Any], found: dict[str, Any], clean: dict[str, Any]
) -> dict[str, Any]:
    """Return `data` with what `content` has `found` in it replaced by its masked form."""
    if clean is found:
        return data
    merged = {**data, **clean}
    for part in ("events", "links"):
        if part in clean:
            pairs = zip(data[part], clean[part], strict=True)
            merged[part] = [{**item, **masked} for item, masked in pairs]
    if "message" in clean:
        merged["status"] = {**data["status"], "message": merged.pop("message")}
    return merged


def without_content(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an event without content: its skeleton, names, numbers and sizes."""
    kept = dict(data)
    if "attributes" in kept:
        kept["attributes"] = _reduced(kept["attributes"])
    for part in ("events", "links"):
        if part in kept:
            kept[part] = [
                {**item, "attributes": _reduced(item["attributes"])}
                if "attributes" in item
                else item
                for item in kept[part]
            ]
    if "message" in kept.get("status", ()):
        kept["status"] = {**kept["status"], "message": size(kept["status"]["message"])}
    if "body" in kept:
        kept["body"] = size(kept["body"])
    return kept


def _only(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item[name] for name in names if name in item}


def _reduced(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: size(value)
        if _is_content(key) or (isinstance(value, (str, list, dict)) and _may_be_content(key))
        else _short(value)
        for key, value in attributes.items()
    }


def _short(value: object) -> object:
    """Return a value with the size of each long text in its place."""
    if isinstance(value, str):
        return value if len(value) <= MOST else size(value)
    if isinstance(value, dict):
        return "[not captured: bytes]" if "@bytes" in value else _reduced(value)
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value


@lru_cache(maxsize=2_048)
def _is_content(key: str) -> bool:
    return _CONTENT.fullmatch(key) is not None


@lru_cache(maxsize=2_048)
def _may_be_content(key: str) -> bool:
    return _WORDS.search(_NEXT_WORD.sub("_", key).lower()) is not None
