"""The process's default tracker, for programs and libraries that pass no tracker around.

It is made on first use, of the settings given to `configure` or of the environment::

    import tracker

    @tracker.observe
    def find_order(number: int) -> str: ...

    with tracker.conversation("agent_123") as c:
        c.user("Where is order 7?")

A library may use `observe` at import: nothing is opened before the first call of the function.
Like every tracker, it uploads for `APIConfig.exit_timeout` at interpreter exit and may be closed
earlier; the next use makes a new one. A forked child continues with it.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any, overload

from tracker import forks, log, validation
from tracker.config import APIConfig
from tracker.errors import ConfigurationError, TrackerError
from tracker.events import MAX_EVENT_BYTES
from tracker.once import Once
from tracker.trackers.capture import share
from tracker.trackers.observe import Observer, on_function
from tracker.trackers.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.sync.destination import Destination
    from tracker.trackers.conversation import ActiveConversation
    from tracker.trackers.span import Span

    P = ParamSpec("P")
    R = TypeVar("R")


class _Default:
    """The default tracker and what it is made of. Owns its lock, which a forked child replaces."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tracker: Tracker | None = None
        self._config: APIConfig | None = None
        self._destination: Callable[[], Destination] | None = None
        self._disabled: Tracker | None = None
        self._complained = Once()
        forks.in_child(forks.Stage.DEFAULT, self._restart_in_child)

    def _restart_in_child(self) -> None:
        self._lock = threading.RLock()

    def get(self) -> Tracker:
        """Return the tracker, made now if there is none that is open."""
        tracker = self._tracker
        if tracker is not None and not tracker._closed:
            return tracker
        forks.check()
        with self._lock:
            if self._tracker is None or self._tracker._closed:
                self._tracker = Tracker(self._config, destination=self._destination)
            return self._tracker

    def configure(self, config: APIConfig, destination: Callable[[], Destination] | None) -> None:
        """Set what the tracker will be made of."""
        forks.check()
        with self._lock:
            if self._tracker is not None and not self._tracker._closed:
                if (self._tracker.config, self._destination) == (config, destination):
                    return
                raise ConfigurationError(
                    "the process's tracker is in use already, with other settings; call "
                    "tracker.configure() before its first use, or close it first: "
                    "tracker.get_tracker().close()"
                )
            self._config, self._destination = config, destination

    def get_or_disabled(self) -> Tracker:
        """Return the tracker, or one that does nothing where none can be made; log why, once."""
        try:
            return self.get()
        except TrackerError as error:
            if self._complained.is_new(type(error).__name__):
                log.error("nothing is recorded by tracker.observe and tracker.span: %s", error)
            if self._disabled is None:
                self._disabled = Tracker(_disabled())
            return self._disabled


def _disabled() -> APIConfig:
    """Return settings that do nothing and, since all are given, look at no environment or file."""
    defaults = {item.name: item.default for item in dataclasses.fields(APIConfig)}
    given = {"client_id": "disabled", "outbox_path": os.devnull, "disabled": True}
    return APIConfig(**defaults | given)  # type: ignore[arg-type]  # of fields of all types


_default = _Default()


def get_tracker() -> Tracker:
    """Return the process's default tracker. It is made on first use; any thread may call this.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
        OutboxError: if the outbox cannot be opened.
    """
    return _default.get()


def configure(
    config: APIConfig | None = None,
    *,
    destination: Callable[[], Destination] | None = None,
    **settings: Any,
) -> None:
    """Set what the default tracker is made of. Call it before the first use of the tracker.

    ::

        tracker.configure(environment="production", release="1.4.2")

    Args:
        config: Settings; or give them by keyword, as `APIConfig` takes them.
        destination: Function that makes a `Destination` to use in place of HTTP to the collector.
        settings: Settings by keyword.

    Raises:
        ConfigurationError: if a setting is missing or invalid, both `config` and settings are
            given, or the tracker is in use with other settings.
    """
    if config is not None and settings:
        raise ConfigurationError(
            f"both an APIConfig and {', '.join(sorted(settings))} are given; give one of them"
        )
    if config is None:
        try:
            config = APIConfig(**settings)
        except TypeError:
            known = APIConfig.__dataclass_fields__
            wrong = [name for name in settings if name not in known]
            raise ConfigurationError(
                f"there is no setting {', '.join(wrong)}; see APIConfig for those that there are"
            ) from None
    elif not isinstance(config, APIConfig):
        raise ConfigurationError(f"config is of type {type(config).__name__}; give an APIConfig")
    _default.configure(config, destination)


def conversation(
    agent_id: str,
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    run_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> ActiveConversation:
    """Return a conversation of the default tracker; see `AgentPerformanceTracker.conversation`.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
        OutboxError: if the outbox cannot be opened.
    """
    return get_tracker().conversation(
        agent_id, user_id=user_id, session_id=session_id, run_id=run_id, metadata=metadata
    )


def span(name: str, *, input: Any = None, attributes: Mapping[str, Any] | None = None) -> Span:
    """Return a span of the default tracker; see `AgentPerformanceTracker.span`.

    Where no tracker can be made, as without an API key, the block works all the same, and that is
    logged once.

    Args:
        name: The name of the step, at most 256 characters.
        input: What it works on: any value.
        attributes: More values by name: a dict with any values.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    return _default.get_or_disabled().span(name, input=input, attributes=attributes)


@overload
def observe(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def observe(
    function: None = ...,
    /,
    *,
    agent_id: str | None = ...,
    name: str | None = ...,
    capture_input: bool = ...,
    capture_output: bool = ...,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def observe(
    function: Any = None,
    /,
    *,
    agent_id: str | None = None,
    name: str | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Any:
    """Return a decorator that records each call of a function with the default tracker.

    See `AgentPerformanceTracker.observe`. The tracker is looked up at each call, so the decorator
    may be used at import. Where no tracker can be made, as without an API key, the function works
    all the same, and that is logged once.

    Args:
        function: The function, if the decorator is used without parentheses.
        agent_id: The agent that the calls concern; by default that of the current conversation.
        name: The name to record; by default the function's qualified name.
        capture_input: Whether arguments are recorded. Default True.
        capture_output: Whether results are recorded. Default True.

    Raises:
        ValidationError: if an argument is not allowed, or the decorated object is no function.
    """
    agent_id = validation.check_optional_id("agent_id", agent_id)
    name = validation.check_optional_id("name", name)

    def wrap(inner: Any) -> Any:
        return Observer(
            share(MAX_EVENT_BYTES), _default.get_or_disabled, inner, name, agent_id,
            capture_input, capture_output,
        ).wrapped()  # fmt: skip

    def decorate(function: Any) -> Any:
        return on_function(function, wrap)

    return decorate if function is None else decorate(function)
