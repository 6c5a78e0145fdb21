"""Events as spans: what each type of event is called and what it says there.

The state of a conversation before an event, the event, and the client id decide the spans, and
nothing else: whenever an event is sent, it is sent as the same spans.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tracker import canonical, events
from tracker.otlp import ids, names, turns
from tracker.otlp.messages import messages, shown, text
from tracker.otlp.spans import CLIENT, Draft
from tracker.span_context import span_of_conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracker.otlp.turns import Conversation, Turn

_IS_A_SPAN = (events.TOOL_CALLED, events.SPAN_RECORDED, "function.observed")
"""Types whose events are the span that their trace names; others were logged in it."""
_SEVERE = ("high", "critical")
_TRACE = {"trace_id": 32, "span_id": 16, "parent_span_id": 16}
_HEX = re.compile("[0-9a-f]+")


def readable_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without a trace that OTLP cannot express, and with an object as its data."""
    trace = event.get("trace")
    if trace is not None and not _is_trace(trace):
        event = {name: value for name, value in event.items() if name != "trace"}
    return event if isinstance(event["data"], dict) else {**event, "data": {}}


def spans_of(
    event: Mapping[str, Any], before: Conversation, after: Conversation, client_id: str
) -> list[Draft]:
    """Return the spans that an event is sent as: its own, and the roots that end with it.

    Args:
        event: An event of the protocol, not one that came in from OpenTelemetry.
        before: Its conversation before it; of an event without one, an empty one.
        after: The same after it.
        client_id: Whose event it is.
    """
    found: list[Draft] = []
    lost = before.turn
    if lost is not None and not lost.rooted and _is_left(lost, after.turn):
        found.append(_unlogged(event, lost))
    own = _own_span(event, after, client_id)
    is_answer = _is_answer(event, before, after)
    if is_answer and after.turn is not None:
        own = _answer(event, own, after.turn, found)
    describe = _DESCRIBED.get(event["type"], _describe_other)
    if is_erased(event):
        own.name, own.attributes[names.ERASED] = event["type"], True
    elif not is_answer:
        describe(own, event)
    found.append(own)
    if event["type"] in turns.ENDINGS:
        found += _roots(event, before, after, own, client_id)
    for draft in found:
        _add_common(draft, event)
    return found


def is_erased(event: Mapping[str, Any]) -> bool:
    """Return True if the data of an event was erased."""
    return event["data"].get("erased") is True and event["data"].keys() == {"erased"}


def place(event: Mapping[str, Any], after: Conversation, client_id: str) -> tuple[str, str | None]:
    """Return the trace of an event and the span that it is in, or None."""
    trace = turns.trace_of(event)
    session_id = event["session_id"]
    if trace is not None:
        return trace
    if session_id is None:
        return ids.trace_of_event(client_id, event["event_id"]), None
    if after.turn is not None:
        return after.turn.trace_id, after.turn.root_id
    return (
        ids.trace_of_conversation(client_id, session_id),
        ids.root_of_conversation(client_id, session_id),
    )


def own_attributes(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an event that nobody has a convention for; objects as JSON text."""
    return {f"{names.OWN}{name}": _plain(value) for name, value in event["data"].items()}


def about(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every span and record says: which event it is, and whom it concerns."""
    said = {
        names.EVENT_ID: event["event_id"],
        names.EVENT_TYPE: event["type"],
        names.CONVERSATION_ID: event["session_id"],
        names.SESSION_ID: event["session_id"],
        names.USER_ID: event["user_id"],
        names.AGENT_ID: event["agent_id"],
        names.AGENT_NAME: event["agent_id"],
    }
    return {name: value for name, value in said.items() if value is not None}


def _is_trace(trace: Any) -> bool:
    return isinstance(trace, dict) and all(
        isinstance(value := trace.get(name), str)
        and len(value) == length
        and _HEX.fullmatch(value) is not None
        and value.strip("0") != ""
        for name, length in _TRACE.items()
        if name in trace or name != "parent_span_id"
    )


def _add_common(draft: Draft, event: Mapping[str, Any]) -> None:
    draft.attributes.update(about(event))
    draft.attributes.setdefault(names.KIND, "CHAIN")


def _own_span(event: Mapping[str, Any], after: Conversation, client_id: str) -> Draft:
    """Return the span of an event, as yet without a description."""
    trace_id, parent_id = place(event, after, client_id)
    span_id = ids.span_of_event(client_id, event["event_id"])
    trace = turns.trace_of(event)
    if trace is not None and _is_the_span(event, trace):
        span_id, parent_id = trace[1], event["trace"].get("parent_span_id")
    at = event["timestamp_ms"]
    return Draft(trace_id, span_id, parent_id, event["type"], at, at)


def _is_the_span(event: Mapping[str, Any], trace: tuple[str, str]) -> bool:
    if event["type"] in _IS_A_SPAN:
        return True
    return event["type"] in turns.ENDINGS and _is_conversation(event, trace)


def _is_conversation(event: Mapping[str, Any], trace: tuple[str, str]) -> bool:
    session_id = event["session_id"]
    return session_id is not None and trace[1] == span_of_conversation(trace[0], session_id)


# --- turns ----------------------------------------------------------------------------------------


def _is_left(lost: Turn, now: Turn | None) -> bool:
    return now is None or (lost.trace_id, lost.root_id) != (now.trace_id, now.root_id)


def _is_answer(event: Mapping[str, Any], before: Conversation, after: Conversation) -> bool:
    """Return True if an event closes a turn: its span is the turn's root."""
    if event["type"] != events.MESSAGE_LOGGED or event["data"].get("role") != "agent":
        return False
    if after.turn is None:
        return False
    same = before.turn is not None and not _is_left(before.turn, after.turn)
    return not (same and before.turn is not None and before.turn.rooted)


def _answer(event: Mapping[str, Any], own: Draft, turn: Turn, found: list[Draft]) -> Draft:
    """Return the span of the message that closes a turn: the root of the turn's trace.

    If it was logged in another trace, its span stays there, and the root is one more.
    """
    root = Draft(
        turn.trace_id, turn.root_id, turn.parent_id, "", turn.start_ms, event["timestamp_ms"]
    )
    _describe_answer(root, event, turn)
    if own.trace_id == turn.trace_id:
        return root
    found.append(root)
    _describe_message(own, event)
    return own


def _describe_answer(root: Draft, event: Mapping[str, Any], turn: Turn) -> None:
    data = event["data"]
    content, tokens = data.get("content"), _number(data, "tokens_used")
    root.name = _named("invoke_agent", event["agent_id"])
    root.attributes.update(
        {
            **_metadata(data),
            names.KIND: "AGENT",
            names.OPERATION: "invoke_agent",
            names.OUTPUT_MESSAGES: messages("agent", [content], "stop"),
            names.OUTPUT: shown(content),
            names.OUTPUT_TYPE: "text/plain",
            names.REQUEST_MODEL: data.get("model"),
            f"{names.OWN}tokens_used": tokens,
            f"{names.OWN}response_time_ms": _number(data, "response_time_ms"),
            names.OUTPUT_TOKENS: None if turn.has_usage else tokens,
            **_question(turn),
        }
    )


def _question(turn: Turn) -> dict[str, Any]:
    asked = turn.asked
    if not asked and turn.told.asked is not None:
        asked = (turn.told.asked,)
    if not asked:
        return {}
    return {
        names.INPUT_MESSAGES: messages("user", asked),
        names.INPUT: "\n".join(map(shown, asked)),
        names.INPUT_TYPE: "text/plain",
    }


def _answer_of_spans(turn: Turn) -> dict[str, Any]:
    if turn.told.answered is None:
        return {names.ANSWERED: False}
    return {
        names.OUTPUT_MESSAGES: messages("agent", [turn.told.answered], "stop"),
        names.OUTPUT: turn.told.answered,
        names.OUTPUT_TYPE: "text/plain",
    }


def _unlogged(event: Mapping[str, Any], turn: Turn) -> Draft:
    """Return the root of a turn that ends before an answer was logged; a span may tell of one."""
    root = Draft(
        turn.trace_id,
        turn.root_id,
        turn.parent_id,
        _named("invoke_agent", event["agent_id"]),
        turn.start_ms,
        event["timestamp_ms"],
    )
    root.attributes.update(
        {
            names.KIND: "AGENT",
            names.OPERATION: "invoke_agent",
            **_question(turn),
            **_answer_of_spans(turn),
        }
    )
    if event["type"] == events.CONVERSATION_FAILED:
        root.error = text(event["data"].get("error_message", ""))
    return root


def _roots(
    event: Mapping[str, Any],
    before: Conversation,
    after: Conversation,
    own: Draft,
    client_id: str,
) -> list[Draft]:
    """Return the roots that end with a conversation: of an open turn, and of its own trace."""
    found = []
    turn = after.turn
    if turn is not None:
        same = before.turn is not None and not _is_left(before.turn, turn)
        if not (same and before.turn is not None and before.turn.rooted):
            found.append(_unlogged(event, turn))
    session_id = event["session_id"]
    if session_id is None:
        return found
    trace = turns.trace_of(event)
    if trace is not None and _is_conversation(event, trace):
        own.start_ms = after.start_ms or own.start_ms
        _describe_conversation(own, event, after)
        if not after.is_loose:
            return found
    root = Draft(
        ids.trace_of_conversation(client_id, session_id),
        ids.root_of_conversation(client_id, session_id),
        None,
        "",
        after.start_ms or 0,
        event["timestamp_ms"],
    )
    _describe_conversation(root, event, after)
    return [*found, root]


def _describe_conversation(root: Draft, event: Mapping[str, Any], after: Conversation) -> None:
    data = event["data"]
    root.name = _named("conversation", event["agent_id"])
    root.attributes.update(own_attributes(event))
    asked = after.told.asked if after.first_asked is None else after.first_asked
    answer = after.told.answered if after.last_answer is None else after.last_answer
    if asked is not None:
        root.attributes |= {names.INPUT: shown(asked), names.INPUT_TYPE: "text/plain"}
    if answer is not None:
        root.attributes |= {names.OUTPUT: shown(answer), names.OUTPUT_TYPE: "text/plain"}
    if "quality_score" in data or "user_feedback" in data:
        root.events.append(
            _evaluation("quality_score", data.get("quality_score"), data.get("user_feedback"))
        )
    if event["type"] == events.CONVERSATION_FAILED:
        _add_error(root, data.get("error_message"), data.get("error_type"))


# --- what each type says --------------------------------------------------------------------------


def _describe_message(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    role, content = text(data.get("role", "")), shown(data.get("content"))
    side = (names.OUTPUT, names.OUTPUT_TYPE) if role == "agent" else (names.INPUT, names.INPUT_TYPE)
    span.name = _named("message", role)
    span.attributes.update(
        {
            **_metadata(data),
            f"{names.OWN}message.role": role,
            side[0]: content,
            side[1]: "text/plain",
            f"{names.OWN}tokens_used": _number(data, "tokens_used"),
            names.REQUEST_MODEL: data.get("model"),
        }
    )


def _describe_tool(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    arguments = canonical.encode(data.get("arguments"))
    result = data.get("result")
    result = None if "result" not in data else text(result)
    span.name = _named("execute_tool", data.get("name"))
    _began_before(span, data, "duration_ms")
    span.attributes.update(
        {
            names.KIND: "TOOL",
            names.OPERATION: "execute_tool",
            names.TOOL_NAME: data.get("name"),
            names.TOOL_TYPE: "function",
            names.TOOL_CALL_ID: data.get("call_id"),
            names.TOOL_ARGUMENTS: arguments,
            names.TOOL_RESULT: result,
            names.INPUT: arguments,
            names.INPUT_TYPE: "application/json",
            names.OUTPUT: result,
        }
    )
    if "error" in data:
        _add_error(span, data["error"], None)


def _describe_usage(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    first = _number(data, "time_to_first_token_ms")
    span.name, span.kind = _named("chat", data.get("model")), CLIENT
    _began_before(span, data, "latency_ms")
    span.attributes.update(
        {
            **_metadata(data),
            names.KIND: "LLM",
            names.OPERATION: "chat",
            names.PROVIDER: data.get("provider"),
            names.REQUEST_MODEL: data.get("model"),
            names.RESPONSE_MODEL: data.get("model"),
            names.INPUT_TOKENS: _number(data, "prompt_tokens"),
            names.OUTPUT_TOKENS: _number(data, "completion_tokens"),
            names.CACHE_READ_TOKENS: _number(data, "cached_tokens"),
            names.CACHE_CREATION_TOKENS: _number(data, "cache_write_tokens"),
            names.FIRST_CHUNK: None if first is None else first / 1000,
            names.COST: _number(data, "cost_usd"),
        }
    )


def _describe_step(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    given, made = data.get("input", data.get("arguments")), data.get("output", data.get("result"))
    span.name = text(data.get("name") or event["type"])
    _began_before(span, data, "duration_ms")
    attributes = data.get("attributes")
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        span.attributes[f"{names.OWN}{name}"] = _plain(value)
    for field, value in ((names.INPUT, given), (names.OUTPUT, made)):
        if value is not None:
            kind = "text/plain" if isinstance(value, str) else "application/json"
            span.attributes |= {field: text(value), field.replace("value", "mime_type"): kind}
    if "error" in data:
        _add_error(span, data["error"], data.get("error_type"))


def _describe_feedback(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    span.name = "feedback"
    span.attributes |= {
        names.KIND: "EVALUATOR",
        f"{names.OWN}feedback.source": data.get("source"),
    }
    span.events.append(_evaluation("feedback", data.get("score"), data.get("comment")))


def _describe_score(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    span.name = _named("score", data.get("name"))
    trace_id = data.get("target_trace_id")
    if _is_trace({"trace_id": trace_id, "span_id": span.span_id}):
        span.trace_id, span.parent_id = text(trace_id), None
    span.attributes |= {
        names.KIND: "EVALUATOR",
        f"{names.OWN}score.source": data.get("source"),
        f"{names.OWN}score.target_event_id": data.get("target_event_id"),
    }
    name = text(data.get("name") or "score")
    span.events.append(_evaluation(name, data.get("value"), data.get("comment")))


def _describe_security(span: Draft, event: Mapping[str, Any]) -> None:
    data = event["data"]
    span.attributes |= {names.KIND: "GUARDRAIL", **own_attributes(event)}
    if data.get("severity") in _SEVERE:
        _add_error(span, data.get("kind"), None)


def _describe_other(span: Draft, event: Mapping[str, Any]) -> None:
    span.attributes |= own_attributes(event)


_DESCRIBED: dict[str, Callable[[Draft, Mapping[str, Any]], None]] = {
    events.MESSAGE_LOGGED: _describe_message,
    events.TOOL_CALLED: _describe_tool,
    events.LLM_USED: _describe_usage,
    events.FEEDBACK_RECORDED: _describe_feedback,
    events.SECURITY_REPORTED: _describe_security,
    events.SPAN_RECORDED: _describe_step,
    "function.observed": _describe_step,
    "score.recorded": _describe_score,
}


def _evaluation(name: str, value: Any, explanation: Any) -> tuple[str, dict[str, Any]]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return names.EVALUATION, {
        names.EVALUATION_NAME: name,
        names.EVALUATION_VALUE: float(value) if number else None,
        names.EVALUATION_LABEL: None if number or value is None else text(value),
        names.EVALUATION_EXPLANATION: None if explanation is None else text(explanation),
    }


def _add_error(span: Draft, message: Any, kind: Any) -> None:
    span.error = "" if message is None else text(message)
    span.attributes[names.ERROR_TYPE] = text(kind) if kind else names.OTHER_ERROR


def _began_before(span: Draft, data: Mapping[str, Any], field: str) -> None:
    """Let a span begin as long before its end as a field of the data says, in milliseconds."""
    duration = _number(data, field)
    if duration is not None:
        span.start_ms = span.end_ms - float(duration)


def _metadata(data: Mapping[str, Any]) -> dict[str, Any]:
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return {}
    return {f"{names.OWN}metadata.{name}": _plain(value) for name, value in metadata.items()}


def _number(data: Mapping[str, Any], name: str) -> int | float | None:
    value = data.get(name)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def _named(what: str, whom: Any) -> str:
    return what if whom is None else f"{what} {text(whom)}"


def _plain(value: Any) -> Any:
    return canonical.encode(value) if isinstance(value, (dict, list)) else value
