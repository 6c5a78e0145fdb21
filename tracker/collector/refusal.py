"""`RefusedError`: a request that the collector answers with an error body of the protocol."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tracker.collector.dates import date_text
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from collections.abc import Sequence


class RefusedError(TrackerError):
    """The collector refuses a request.

    Attributes:
        status: HTTP status of the answer, on which the client's reaction depends: after 400 it
            searches for the invalid event and discards it, after any other status it keeps all.
        code: The protocol's error code.
        message: One sentence for people, without keys or the content of events.
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
    """Return the error 400 for a body that is not a batch."""
    return RefusedError(400, "invalid_request", message)


def invalid_key() -> RefusedError:
    """Return the error 401, which is the same for missing, unknown and revoked keys."""
    return RefusedError(401, "invalid_key", "The API key is missing, unknown or revoked.")


def expired_key(expired_at_ms: int) -> RefusedError:
    """Return the error 401 for a key that was valid once."""
    return RefusedError(401, "expired_key", f"The API key expired at {date_text(expired_at_ms)}.")


def scope_required(scope: str, scopes: Sequence[str]) -> RefusedError:
    """Return the error 403 for a valid key that is not allowed to do this."""
    has = f"only {' and '.join(scopes)}" if scopes else "none"
    message = f"This needs an API key with the scope {scope}; this one has {has}."
    return RefusedError(403, "scope_required", message)


def client_mismatch(message: str) -> RefusedError:
    """Return the error 403 for a key, header and body that do not name the same client."""
    return RefusedError(403, "client_mismatch", message)


def too_large(message: str) -> RefusedError:
    """Return the error 413, after which the client halves its batch."""
    return RefusedError(413, "too_large", message)


def busy(message: str) -> RefusedError:
    """Return the error 503 for a request while the collector is busy."""
    return RefusedError(503, "busy", message, retry_after=retry_seconds())


def retry_seconds() -> int:
    """Return seconds until a retry, drawn at random so that clients do not return together."""
    return random.randint(1, 5)  # noqa: S311 - a spread, not a secret
