"""Checks on the arguments of logging calls: each returns the value to store or raises.

Every message names the argument, what was given, and what is allowed. Nothing here takes a lock
or touches the disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from tracker.errors import ValidationError
from tracker.redaction.uncut import Uncut

T = TypeVar("T")

MAX_ID_LENGTH = 256
"""Maximum length of an agent, session, user or run id."""
MAX_TIMESTAMP_MS = 253_402_300_799_999
"""Latest time of an event: the end of the year 9999."""
MAX_DEPTH = 64
"""Maximum nesting of metadata, arguments, results and details."""
MAX_INTEGER = 2**63 - 1
"""Largest count that SQLite and most receivers can store in 64 bits."""
MAX_MILLISECONDS = 10**12
"""Longest duration in milliseconds, some 31 years. Sums stay far from the bounds of a float."""
MAX_TOKENS = 10**12
"""Maximum number of tokens of one call or message."""
MAX_COST_USD = 10**9
"""Maximum cost of one call in US dollars."""
MAX_INTEGER_BITS = 14_280
"""Maximum bits of an integer in metadata and similar values: by default, Python parses and prints
integers of at most 4,300 digits."""


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def is_interrupt(error: BaseException) -> bool:
    """Return True if an exception unwinds the program instead of reporting a fault.

    These are the exceptions that are not derived from `Exception`, with two exceptions: a panic of
    an extension written in Rust, which pyo3 derives from `BaseException`, and GeneratorExit, which
    concerns only the code of a generator.
    """
    if issubclass(type(error), (Exception, GeneratorExit)):  # its __class__ may raise
        return False
    return type(error).__name__ != "PanicException"


def check_id(argument: str, value: object) -> str:
    """Return `value` if it is a non-empty string of at most 256 characters."""
    text = check_text(argument, value)
    if not text:
        raise ValidationError(argument, "is empty; give a non-empty string")
    if len(text) > MAX_ID_LENGTH:
        raise ValidationError(
            argument, f"has {len(text)} characters; at most {MAX_ID_LENGTH} are allowed"
        )
    if "\0" in text:
        raise ValidationError(argument, "has a NUL character; many databases cannot store it")
    return text


def optional(check: Callable[[str, object], T], argument: str, value: object) -> T | None:
    """Return None for None, otherwise what `check` returns."""
    return None if value is None else check(argument, value)


def check_optional_id(argument: str, value: object) -> str | None:
    """Return None for None, otherwise the result of `check_id`."""
    return optional(check_id, argument, value)


def check_text(argument: str, value: object) -> str:
    """Return `value` if it is a string that can be encoded as UTF-8."""
    if type(value) is not str:
        if not issubclass(type(value), str):  # not isinstance, which reads the value's __class__
            raise ValidationError(argument, f"is {_kind(value)}; give a str")
        value = str.__str__(value)  # for example of an Enum of str
    if not value.isascii():
        _check_encodable(argument, value)
    return value


def check_function(argument: str, value: object) -> None:
    """Raise unless `value` can be called."""
    if not callable(value):
        raise ValidationError(argument, f"is {_kind(value)}; give a function")


def check_quality_score(argument: str, value: object) -> float:
    """Return `value` as a float if it is a number from 1.0 to 5.0."""
    number = _finite(argument, value, "a number from 1.0 to 5.0")
    if not 1.0 <= number <= 5.0:
        raise ValidationError(argument, f"is {value!r}; give a number from 1.0 to 5.0")
    return number


_NUMBERS = (int, float)


def check_milliseconds(argument: str, value: Any) -> float:
    """Return `value` rounded to 2 decimals if it is a number of milliseconds from 0 to 10**12."""
    if type(value) in _NUMBERS and 0 <= value <= MAX_MILLISECONDS:  # as a rule
        return round(float(value), 2)
    return round(_amount(argument, value, "milliseconds", MAX_MILLISECONDS), 2)


def check_timeout(argument: str, value: Any) -> float | None:
    """Return a number of seconds, at least 0; None, which is no limit, for None and infinity."""
    if value is None or value == math.inf:
        return None
    return max(0.0, _finite(argument, value, "seconds, or None for no limit"))


def check_cost(argument: str, value: object) -> float:
    """Return `value` as a float if it is a number of US dollars from 0 to 10**9."""
    return _amount(argument, value, "US dollars", MAX_COST_USD)


def check_number(argument: str, value: object) -> float:
    """Return `value` as a float if it is a finite number."""
    return _finite(argument, value, "a finite number")


def check_count(argument: str, value: object) -> int:
    """Return `value` if it is an integer from 0 to 2**63 - 1."""
    number = _integer(argument, value)
    if not 0 <= number <= MAX_INTEGER:
        raise ValidationError(argument, "is out of range; give an int from 0 to 2**63 - 1")
    return number


def check_tokens(argument: str, value: Any) -> int:
    """Return `value` if it is a number of tokens, an integer from 0 to 10**12."""
    if type(value) is int and 0 <= value <= MAX_TOKENS:  # as a rule
        return value
    number = _integer(argument, value)
    if not 0 <= number <= MAX_TOKENS:
        raise ValidationError(argument, f"is out of range; give an int from 0 to {MAX_TOKENS:,}")
    return number


def _integer(argument: str, value: Any) -> int:
    kind = type(value)  # not isinstance, which reads the value's __class__
    if kind is bool or not issubclass(kind, int):
        raise ValidationError(argument, f"is {_kind(value)}; give an int, 0 or more")
    return int.__int__(value)  # without running a subclass's code


def check_flag(argument: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise ValidationError(argument, f"is {_kind(value)}; give True or False")
    return value


def check_since(argument: str, value: object) -> int | None:
    """Return a time as Unix milliseconds, rounded down; None for None."""
    return None if value is None else _milliseconds(argument, value)


def check_timestamp(argument: str, value: object) -> int:
    """Return the time of an event as Unix milliseconds, rounded down: from 1970 to 9999."""
    when = _milliseconds(argument, value)
    if not 0 <= when <= MAX_TIMESTAMP_MS:
        raise ValidationError(
            argument,
            f"is {value!r:.80}; give an aware datetime or Unix milliseconds from 0 (the year 1970) "
            f"to {MAX_TIMESTAMP_MS:,} (the year 9999)",
        )
    return when


def _milliseconds(argument: str, value: object) -> int:
    if not isinstance(value, datetime):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError(
                argument, f"is {_kind(value)}; give an aware datetime, or Unix milliseconds as int"
            )
        return check_count(argument, value)
    if value.utcoffset() is None:
        raise ValidationError(
            argument,
            "is a datetime without a time zone; give an aware one, as in "
            "datetime.now(timezone.utc) - timedelta(days=1)",
        )
    return (value - _EPOCH) // timedelta(milliseconds=1)


def check_choice(argument: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of the strings in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        shown = repr(value) if isinstance(value, str) else _kind(value)
        raise ValidationError(argument, f"is {shown}; give one of {', '.join(map(repr, allowed))}")
    return str.__str__(value)


def check_metadata(argument: str, value: object) -> dict[str, Any]:
    """Return `value` as a dict if JSON can represent it (see `check_json`)."""
    checked: dict[str, Any] = check_json(argument, as_dict(argument, value))
    return checked


def copy_metadata(argument: str, value: object) -> dict[str, Any]:
    """Return a checked copy of a mapping, for data that is written later."""
    return check_metadata(argument, copy_json(argument, check_metadata(argument, value)))


def as_dict(argument: str, value: object) -> dict[Any, Any]:
    """Return a mapping as a dict, whatever it contains; a dict is returned as it is."""
    try:
        if issubclass(type(value), dict):
            return value  # type: ignore[return-value]  # it is one
        if isinstance(value, Mapping):
            return dict(value)
    except BaseException as error:  # raised by the value's own code
        if is_interrupt(error) or isinstance(error, (MemoryError, RecursionError)):
            raise
        raise _unreadable(argument, error) from error
    raise ValidationError(argument, f"is {_kind(value)}; give a dict with str keys")


def check_json(argument: str, value: object) -> Any:
    """Return `value` if JSON can represent it without loss.

    NaN, infinities, integers of thousands of digits, lone surrogates, keys that are not strings,
    cycles, more than 64 levels of nesting, and any type besides dict, list, tuple, str, int,
    float, bool and None are refused, and the error names their path. A value that another thread
    changes meanwhile is copied first.
    """
    try:
        _walk(argument, value, 0, set())
    except (ValidationError, MemoryError):
        raise
    except BaseException as error:  # another thread changed it, or the value's own code raised
        if is_interrupt(error):
            raise
        return copy_json(argument, value)
    return value


def convert_json(argument: str, value: object, default: Callable[[Any], Any]) -> Any:
    """Return `value` with every part that JSON does not have replaced, as `json.dumps` does.

    Args:
        argument: Its name, for errors.
        value: The value.
        default: Called with each object that JSON does not have; returns what to store instead.

    Raises:
        ValidationError: if JSON cannot represent the result, or `default` raised an error.
    """
    try:
        return check_json(argument, value)
    except ValidationError:
        return check_json(argument, _convert(argument, value, default, 0))


def _convert(argument: str, value: Any, default: Callable[[Any], Any], depth: int) -> Any:
    kind = type(value)
    if value is None or issubclass(kind, (str, int, float)):
        return value
    if depth > MAX_DEPTH:  # at once, since `default` may return two of what it was given
        raise ValidationError(argument, f"is nested more than {MAX_DEPTH} levels deep")
    if issubclass(kind, dict):
        items = dict.copy(value).items()
        return {key: _convert(argument, item, default, depth + 1) for key, item in items}
    if issubclass(kind, (list, tuple)):
        return [_convert(argument, item, default, depth + 1) for item in list(value)]
    try:
        replaced = default(value)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise ValidationError(
            argument,
            f"is or has a {kind.__name__}, for which json_default raised {type(error).__name__}; "
            "return what JSON can represent",
        ) from error
    return _convert(argument, replaced, default, depth + 1)


def copy_json(argument: str, value: object) -> Any:
    """Return a private copy of `value`, checked as by `check_json`.

    It consists of plain dicts, lists, strings and numbers. None of the value's own code is run.
    """
    try:
        copied = _copy(argument, value, set())
        _walk(argument, copied, 0, set())
    except (ValidationError, MemoryError, RecursionError):
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise _unreadable(argument, error) from error
    return copied


def _copy(argument: str, value: Any, parents: set[int]) -> Any:
    kind = type(value)
    for scalar, plain in _SCALARS:
        if issubclass(kind, scalar):
            return value if kind in (bool, Uncut) else plain(value)
    if not issubclass(kind, (dict, list, tuple)):
        return value  # None, or a value that the following check refuses
    if id(value) in parents:
        raise ValidationError(argument, "contains itself; JSON cannot represent a cycle")
    if len(parents) >= MAX_DEPTH:
        raise ValidationError(argument, f"is nested more than {MAX_DEPTH} levels deep")
    parents.add(id(value))
    copied: Any
    if issubclass(kind, dict):  # `dict.copy` is atomic, whatever other threads do
        items = dict.copy(value).items()
        copied = {_copy(argument, k, parents): _copy(argument, v, parents) for k, v in items}
    else:
        base: Any = list if issubclass(kind, list) else tuple
        copied = [_copy(argument, item, parents) for item in base.__iter__(value)]
    parents.discard(id(value))
    return copied


_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
"""Converters to a plain value that run no code of a subclass."""


class _SubclassError(Exception):
    """A subclass of a container, which has to be copied to be checked."""


def _unreadable(argument: str, error: BaseException) -> ValidationError:
    return ValidationError(
        argument,
        f"cannot be read ({type(error).__name__}, raised by its own code or because another thread "
        "changes it); give plain dicts, lists, strings and numbers, or a copy",
    )


def _walk(path: str, value: Any, depth: int, parents: set[int]) -> None:
    if value is None or value is True or value is False:
        return
    kind: Any = type(value)  # not isinstance, which reads the value's __class__
    if issubclass(kind, int):
        if value.bit_length() > MAX_INTEGER_BITS:
            raise ValidationError(path, "is an integer of more than 4,298 digits; give it as a str")
    elif issubclass(kind, str):
        if not value.isascii():
            _check_encodable(path, value)
    elif issubclass(kind, float):
        if not math.isfinite(value):
            raise ValidationError(path, f"{value} is not JSON-serialisable; give a finite number")
    elif issubclass(kind, (dict, list, tuple)):
        _walk_container(path, value, depth, parents)
    else:
        raise ValidationError(
            path,
            f"{kind.__name__} is not JSON-serialisable; "
            "give dict, list, str, int, float, bool or None, or a function that converts it as "
            "APIConfig(json_default=...)",
        )


def _walk_container(path: str, value: Any, depth: int, parents: set[int]) -> None:
    if id(value) in parents:
        raise ValidationError(path, "contains itself; JSON cannot represent a cycle")
    if depth >= MAX_DEPTH:
        raise ValidationError(path, f"is nested more than {MAX_DEPTH} levels deep")
    if type(value) not in (dict, list, tuple):  # its own methods may return anything
        raise _SubclassError
    parents.add(id(value))
    if type(value) is dict:
        for key, item in value.items():
            _walk(_member(path, key, depth), item, depth + 1, parents)
    else:
        for index, item in enumerate(value):
            _walk(f"{path}[{index}]", item, depth + 1, parents)
    parents.remove(id(value))


def _member(path: str, key: Any, depth: int) -> str:
    if not issubclass(type(key), str):
        kind = "" if key is None else f" of type {type(key).__name__}"
        raise ValidationError(path, f"has the key {key!r:.80}{kind}; give keys as str")
    if not key.isascii():
        _check_encodable(f"a key in {path}", key)
    return f"{path}.{key}" if depth and key.isidentifier() else f"{path}[{key!r}]"


def _check_encodable(path: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(
            path,
            f"has a lone surrogate (U+{ord(text[error.start]):04X}) at index {error.start}; "
            "UTF-8 cannot encode it",
        ) from None


def _amount(argument: str, value: object, unit: str, most: int) -> float:
    allowed = f"{unit}, from 0 to {most:,}"
    number = _finite(argument, value, f"a number of {allowed}")
    if not 0 <= number <= most:
        raise ValidationError(argument, f"is {number!r}; give {allowed}")
    return number


def _finite(argument: str, value: Any, allowed: str) -> float:
    kind = type(value)
    if kind is bool or not issubclass(kind, (int, float)):
        raise ValidationError(argument, f"is {_kind(value)}; give {allowed}")
    try:
        number = float.__float__(value) if issubclass(kind, float) else int.__float__(value)
    except OverflowError:
        raise ValidationError(argument, f"is too large; give {allowed}") from None
    if not math.isfinite(number):
        raise ValidationError(argument, f"is {number}; give {allowed}")
    return number


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
