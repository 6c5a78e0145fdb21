"""What every tracker has: a configuration, a way to the outbox, and a lifetime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.client import connect
from tracker.config import APIConfig
from tracker.errors import ConfigurationError, TrackerClosedError
from tracker.events import make_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from tracker.sync.destination import Destination
    from tracker.sync.flush import FlushResult


class BaseTracker:
    """Base of the trackers. All methods may be called from any thread.

    Trackers with the same configuration share one outbox and one sync thread in a process; the
    last one closed stops that thread. After a fork, parent and child both go on logging.

    Args:
        config: Settings; by default those of the environment.
        destination: Makes what takes the uploads, in place of HTTP to the collector: a
            `tracker.testing.RecordingDestination` in tests, or one of your own. It is called in
            the sync thread; the first tracker on an outbox decides.

    Raises:
        ConfigurationError: if a setting is missing or impossible.
        OutboxError: if the outbox cannot be opened.
    """

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        if config is not None and not isinstance(config, APIConfig):
            raise ConfigurationError(
                f"config is of type {type(config).__name__}; give an APIConfig, as in "
                "AgentPerformanceTracker(config=APIConfig(api_key=...))"
            )
        self._closed = False
        self._client = connect(APIConfig() if config is None else config, self, destination)

    @property
    def config(self) -> APIConfig:
        """The settings in force."""
        return self._client.config

    def flush(self, timeout: float | None = 30.0) -> FlushResult:
        """Upload now and wait until all that is pending at this moment is settled.

        Never raises for network trouble: what could not be delivered is still in the outbox.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes. Default 30.

        Returns:
            How many of those events were delivered, are still pending, or were refused for good.

        Raises:
            TrackerClosedError: after `close`.
            OutboxError: if the outbox cannot be read.
        """
        self._check_open()
        return self._client.flush(timeout)

    def close(self, timeout: float = 2.0) -> FlushResult:
        """Give the outbox back. The last tracker to do so uploads a little and stops the thread.

        Nothing is lost by closing early: what was not uploaded waits in the outbox for the next
        start. A second call does nothing.

        Args:
            timeout: Seconds of uploading at most. Default 2. It ends at once when an attempt fails.
        """
        self._closed = True
        return self._client.release(self, timeout)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {state}, outbox {self.config.outbox_path}>"

    def _record(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        nullable: tuple[str, ...] = (),
    ) -> str:
        """Make the event of validated arguments, store it, and return its id.

        Fields of `data` that are None are left out, but for the `nullable` ones.
        """
        self._check_open()
        event = make_event(
            type,
            {name: data[name] for name in data if data[name] is not None or name in nullable},
            agent_id=agent_id,
            session_id=session_id,
            user_id=user_id,
            max_bytes=self._client.config.max_event_bytes,
        )
        self._client.record(event)
        return event.event_id

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError(
                f"this {type(self).__name__} was closed; make a new one to log again"
            )
