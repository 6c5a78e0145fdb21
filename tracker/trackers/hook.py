"""`Hook`: the application's function that sees each event before it is stored."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tracker import canonical, context_items, log, validation
from tracker.errors import ValidationError
from tracker.events import make_event
from tracker.once import Once
from tracker.trackers.capture import type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracker.events import Event
    from tracker.redaction.redactor import Redactor

_FIXED = ("type", "timestamp_ms", "trace")
_IDS = ("agent_id", "session_id", "user_id")
_inside: ContextVar[bool] = ContextVar("tracker_inside_hook", default=False)


class Hook:
    """Calls `APIConfig.before_record`. Any thread may use it.

    What the hook itself logs does not go through it again.

    Args:
        function: Gets an event as a dict of its own: ``type``, ``timestamp_ms``, ``agent_id``,
            ``session_id``, ``user_id``, ``data``, ``context`` and ``trace`` (None where there is
            none). Returns it, with any but ``type``, ``timestamp_ms`` and ``trace`` changed, or
            None to drop the event.
        redactor: Masks the SDK's own keys in what the function returns. Nothing else is masked
            once more: what an application adds is its own affair.
        max_event_bytes: Maximum size of an event.
    """

    def __init__(
        self,
        function: Callable[[dict[str, Any]], dict[str, Any] | None],
        redactor: Redactor,
        max_event_bytes: int,
    ) -> None:
        self._function = function
        self._redactor = redactor
        self._max_bytes = max_event_bytes
        self._said = Once()

    def apply(self, event: Event) -> Event | None:
        """Return the event to store in place of `event`, or None to store none.

        If the hook fails, the event's data is withheld, since nobody knows what the hook would
        have taken out of it, and a text in its place says so.
        """
        if _inside.get():
            return event
        token = _inside.set(True)
        try:
            shown = _shown(event)
            returned = self._function(_shown(event))
            if returned is None:
                return None
            return event if returned == shown else self._changed(event, shown, returned)
        except BaseException as error:
            if validation.is_interrupt(error):
                raise
            return self._again(event, {"data": {"withheld": self._complaint(error)}})
        finally:
            _inside.reset(token)

    def _changed(self, event: Event, shown: Mapping[str, Any], returned: object) -> Event:
        if not isinstance(returned, dict):
            raise _WrongAnswerError(f"{type_name(returned)}, not a dict or None")
        for name in _FIXED:
            if returned.get(name) != shown[name]:
                raise _WrongAnswerError(f"an event with another {name}")
        kept: dict[str, Any] = {"context": event.context}
        try:
            data = validation.copy_metadata("data", returned.get("data"))
            kept["data"] = self._redactor.without_own_keys(data)
            for name in _IDS:
                kept[name] = validation.check_optional_id(name, returned.get(name))
            if returned.get("context") != shown["context"]:
                items = context_items.check("context", returned.get("context") or {})
                items = self._redactor.without_own_keys(items)
                kept["context"] = canonical.encode(items) if items else None
            return self._again(event, kept)
        except ValidationError as error:
            where = error.argument.partition("[")[0]  # what follows may be a key of the data
            raise _WrongAnswerError(f"an event whose {where} is not allowed") from error

    def _again(self, event: Event, changed: Mapping[str, Any]) -> Event:
        """Make an event like `event` with some fields changed."""
        return make_event(
            event.type,
            changed["data"],
            **{name: changed.get(name, getattr(event, name)) for name in (*_IDS, "context")},
            trace=event.trace,
            timestamp_ms=event.timestamp_ms,
            max_bytes=self._max_bytes,
        )

    def _complaint(self, error: BaseException) -> str:
        """Return why the data is withheld, without the error's text, which may contain it."""
        why = f"before_record raised {type_name(error)}"
        if isinstance(error, _WrongAnswerError):
            why = f"before_record returned {error}"
        if self._said.is_new(why):
            log.error("%s; the data of events for which it does is not stored", why)
        return why


class _WrongAnswerError(Exception):
    """The hook returned something that is no event; the message has nothing of its content."""


def _shown(event: Event) -> dict[str, Any]:
    return {
        "type": event.type,
        "timestamp_ms": event.timestamp_ms,
        "agent_id": event.agent_id,
        "session_id": event.session_id,
        "user_id": event.user_id,
        "data": canonical.decode(event.data),
        "context": None if event.context is None else canonical.decode(event.context),
        "trace": None if event.trace is None else canonical.decode(event.trace),
    }
