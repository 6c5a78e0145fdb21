"""The files of an outbox: their names, locks, and which of them are open in this process."""

from __future__ import annotations

from tracker.errors import ConfigurationError

try:
    import fcntl  # noqa: F401 - seen to be there, before a module of this package needs it
except ImportError:  # pragma: no cover - Windows
    raise ConfigurationError(
        "tracker needs the file locks of a POSIX system (Linux, macOS, BSD)"
    ) from None
