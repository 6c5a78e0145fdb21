"""The errors that this package raises.

::

    TrackerError
    ├── ConfigurationError (ValueError)       a setting is missing or impossible
    ├── ValidationError    (ValueError)       an argument of a logging call is not allowed
    ├── TrackerClosedError (RuntimeError)     a call came after ``close()``
    └── OutboxError                           the outbox file could not be read or written
        ├── OutboxFullError                   the outbox reached ``max_outbox_bytes``
        ├── NotAnOutboxError                  the path holds something else; it is left untouched
        ├── OutboxDamagedError                its file is damaged or gone and was not replaced
        └── SchemaVersionError                the file was made by a newer tracker; left untouched

Network failures raise nothing; ``tracker-sync status`` shows them.
"""

from __future__ import annotations


def readable(value: object) -> str:
    r"""Return a value as text that UTF-8 can encode; a surrogate such as ``\udce9`` is escaped.

    Python decodes bytes of a path or an argument that are not UTF-8 to such surrogates.
    """
    return str(value).encode(errors="backslashreplace").decode()


class TrackerError(Exception):
    """Base class of all errors of this package.

    The message can always be encoded as UTF-8, whatever bytes the paths in it contain.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(readable(each) if isinstance(each, str) else each for each in args))


class ConfigurationError(TrackerError, ValueError):
    """A setting is missing, invalid, or conflicts with another tracker on the same outbox."""


class ValidationError(TrackerError, ValueError):
    """An argument of a logging call is not allowed. Nothing was stored.

    Attributes:
        argument: Name of the invalid argument, or a path such as ``metadata['user'].photo``.
        problem: What is wrong and what is allowed: the message without the argument's name.
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
    """The outbox has reached ``max_outbox_bytes`` and refuses new events."""


class NotAnOutboxError(OutboxError):
    """The path is a folder, another kind of file or another program's database."""


class OutboxDamagedError(OutboxError):
    """The outbox file was damaged, deleted or replaced, and could not be replaced (yet)."""


class SchemaVersionError(OutboxError):
    """The outbox has a schema that this version of the package does not know."""
