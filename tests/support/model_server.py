"""A server that speaks the APIs of language models: it calls each tool once, then answers.

``POST /v1/chat/completions`` and ``/v1/responses`` are OpenAI's, ``/v1/messages`` is Anthropic's;
streamed if asked for. A model that has tools and no result of one calls the first tool. The call
and the answer are about the order that the question names.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

MODEL = "gpt-4o-mini"
INPUT_TOKENS, OUTPUT_TOKENS = 11, 7
_ASKED = re.compile(r"Where is order (\d+)\?")

Events: TypeAlias = "Iterator[tuple[str | None, Any]]"


def answer(number: int) -> str:
    """Return what the model answers when it is asked where an order is."""
    return f"Order {number} is on its way."


ANSWER = answer(7)


class ModelServer:
    """A model on loopback. As a context manager it is started and stopped."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL, without ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        route = self.path.partition("?")[0].rstrip("/").removeprefix("/v1")
        if route not in _ROUTES:
            self._send(404, "application/json", b'{"error": {"message": "no such route"}}')
            return
        whole, stream = _ROUTES[route]
        if not asked.get("stream"):
            self._send(200, "application/json", json.dumps(whole(asked)).encode())
            return
        lines = []
        for name, data in stream(asked):
            if name is not None:
                lines.append(f"event: {name}")
            lines += [f"data: {data if isinstance(data, str) else json.dumps(data)}", ""]
        self._send(200, "text/event-stream", ("\n".join(lines) + "\n").encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _number(asked: dict[str, Any]) -> int:
    found = _ASKED.search(json.dumps(asked))
    return int(found[1]) if found else 7


# --- chat completions ----------------------------------------------------------------------------

_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


def _chat(asked: dict[str, Any]) -> dict[str, Any]:
    calls = asked.get("tools") and not any(
        message.get("role") == "tool" for message in asked["messages"]
    )
    said = None if calls else answer(_number(asked))
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if calls:
        function = {
            "name": asked["tools"][0]["function"]["name"],
            "arguments": json.dumps({"number": _number(asked)}),
        }
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": asked["model"],
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        ],
        "usage": _USAGE,
    }


def _chat_stream(asked: dict[str, Any]) -> Events:
    whole = _chat(asked)
    choice = whole.pop("choices")[0]
    usage = whole.pop("usage")
    whole["object"] = "chat.completion.chunk"
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if "tool_calls" in message:
        deltas.append({"tool_calls": [{"index": 0, **message["tool_calls"][0]}]})
    else:
        said = message["content"]
        deltas += [{"content": words} for words in (said[:9], said[9:])]
    for delta in deltas:
        yield None, {**whole, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield None, {**whole, "choices": [end]}
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield None, {**whole, "choices": [], "usage": usage}
    yield None, "[DONE]"


# --- responses -----------------------------------------------------------------------------------


def _responses(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked["input"] if isinstance(asked["input"], list) else []
    answered = any(item.get("type") == "function_call_output" for item in given)
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": answer(_number(asked)), "annotations": []}],
    }
    if asked.get("tools") and not answered:
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "status": "completed",
            "name": asked["tools"][0]["name"],
            "arguments": json.dumps({"number": _number(asked)}),
        }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "model": asked["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": asked.get("tools", []),
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }


def _responses_stream(asked: dict[str, Any]) -> Events:
    whole = _responses(asked)
    (item,) = whole["output"]
    started = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
    ]
    if item["type"] == "message":
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        said = item["content"][0]["text"]
        events.append({"type": "response.output_text.delta", **place, "delta": said})
        events.append({"type": "response.output_text.done", **place, "text": said})
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    for number, event in enumerate(events):
        yield event["type"], {**event, "sequence_number": number}


# --- messages ------------------------------------------------------------------------------------


def _messages(asked: dict[str, Any]) -> dict[str, Any]:
    answered = any(
        part.get("type") == "tool_result"
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    )
    calls = asked.get("tools") and not answered
    part: dict[str, Any] = {"type": "text", "text": answer(_number(asked))}
    if calls:
        name = asked["tools"][0]["name"]
        given = {"number": _number(asked)}
        part = {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [part],
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _messages_stream(asked: dict[str, Any]) -> Events:
    whole = _messages(asked)
    (part,) = whole["content"]
    begun = {**whole, "content": [], "stop_reason": None}
    begun["usage"] = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
    empty = {**part, "text": ""} if part["type"] == "text" else {**part, "input": {}}
    if part["type"] == "tool_use":
        delta = {"type": "input_json_delta", "partial_json": json.dumps(part["input"])}
    else:
        delta = {"type": "text_delta", "text": part["text"]}
    for event in (
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT_TOKENS},
        },
        {"type": "message_stop"},
    ):
        yield str(event["type"]), event


_ROUTES: dict[str, tuple[Any, Any]] = {
    "/chat/completions": (_chat, _chat_stream),
    "/responses": (_responses, _responses_stream),
    "/messages": (_messages, _messages_stream),
}
