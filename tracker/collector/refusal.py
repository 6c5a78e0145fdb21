"""`RefusedError`: a request that the collector answers with a protocol error body."""

from __future__ import annotations

import random

from tracker.errors import TrackerError


class RefusedError(TrackerError):
    """The collector does not take this request.

    Attributes:
        status: HTTP status of the answer. The client's reaction hangs on it: 400 makes it search
            for the one bad event and give that up, every other refusal makes it keep everything.
        code: The protocol's error code.
        message: One sentence for people; never holds a key or an event's content.
        retry_after: Whole seconds for the ``Retry-After`` header, or None for no header.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def invalid_request(message: str) -> RefusedError:
    """Return the 400 for a body that is not a batch."""
    return RefusedError(400, "invalid_request", message)


def invalid_key() -> RefusedError:
    """Return the 401; it does not tell a missing key from an unknown or revoked one."""
    return RefusedError(401, "invalid_key", "The API key is missing, unknown or revoked.")


def client_mismatch(message: str) -> RefusedError:
    """Return the 403 for a key, header and body that do not name the same client."""
    return RefusedError(403, "client_mismatch", message)


def too_large(message: str) -> RefusedError:
    """Return the 413 that makes the client halve its batch."""
    return RefusedError(413, "too_large", message)


def busy(message: str) -> RefusedError:
    """Return the 503 for a request that comes when too much is under way."""
    return RefusedError(503, "busy", message, retry_after=retry_seconds())


def retry_seconds() -> int:
    """Return when to come again, differently for each: not all at once."""
    return random.randint(1, 5)  # noqa: S311 - a spread, not a secret
