"""Every error this package raises on purpose.

::

    TrackerError
    ├── ConfigurationError (ValueError)       a setting is missing or impossible
    ├── ValidationError    (ValueError)       an argument of a logging call is not allowed
    ├── TrackerClosedError (RuntimeError)     a call came after ``close()``
    └── OutboxError                           the outbox file could not be read or written
        ├── OutboxFullError                   the outbox reached ``max_outbox_bytes``
        ├── NotAnOutboxError                  the path holds something else; it is left untouched
        ├── OutboxDamagedError                its file is damaged or gone, and no new one was begun
        └── SchemaVersionError                the file was made by a newer tracker; left untouched

Network trouble is not among them: callers never see it. ``tracker-sync status`` does.
"""

from __future__ import annotations


def readable(value: object) -> str:
    r"""Return a value as text that UTF-8 can encode: ``\udce9`` is shown by its escape.

    Python decodes the bytes of a path or an argument that are not UTF-8 into such surrogates.
    """
    return str(value).encode(errors="backslashreplace").decode()


class TrackerError(Exception):
    """Base of every error in this package.

    Its message can be encoded, whatever bytes are in the paths that it names.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(readable(each) if isinstance(each, str) else each for each in args))


class ConfigurationError(TrackerError, ValueError):
    """A setting is missing, impossible, or contradicts another tracker's on the same outbox."""


class ValidationError(TrackerError, ValueError):
    """An argument of a logging call is not allowed. Nothing was stored.

    Attributes:
        argument: Name (or path, as in ``metadata['user'].photo``) of the argument at fault.
        problem: What is wrong with it and what is allowed: the message without the name.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument
        self.problem = problem

    def __reduce__(self) -> tuple[type[ValidationError], tuple[str, str]]:
        return type(self), (self.argument, self.problem)


class TrackerClosedError(TrackerError, RuntimeError):
    """The tracker was closed; make a new one to log again."""


class OutboxError(TrackerError):
    """The outbox could not be read or written (disk full, no permission, I/O error …)."""


class OutboxFullError(OutboxError):
    """The outbox reached ``max_outbox_bytes`` and its policy is to refuse new events."""


class NotAnOutboxError(OutboxError):
    """The path holds a folder, another kind of file or another program's database."""


class OutboxDamagedError(OutboxError):
    """The outbox file is damaged, deleted or replaced, and no new one could be begun (yet)."""


class SchemaVersionError(OutboxError):
    """The outbox has a schema that this version of the package does not know."""
