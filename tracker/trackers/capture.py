"""Conversion of any Python value to JSON of a bounded size.

For the arguments and results of observed calls, results of tool blocks, log records and the texts
of exceptions. Invalid arguments of a logging method are not converted; `tracker.validation`
refuses them.

- Scalars that JSON has are kept. In strings, characters that UTF-8 cannot encode are escaped.
- Mappings, dataclasses, attrs classes, pydantic models and named tuples become objects; lists,
  tuples, sets, frozensets and deques become arrays. Fields that a class excludes from its ``repr``
  are left out.
- The first 200 bytes of bytes are kept. Other values become their ``repr()``, at most 1,000
  characters.
- A value that cannot be read is replaced by a marker such as ``"[not JSON: Session]"``; the values
  around it are kept. Iterators, generators, coroutines and files are never consumed.
- Truncated values end with ``…`` and their size. Texts are masked before they are truncated.

A value's own code (its ``repr``, its iteration, its attributes) may raise. An `Exception` only
loses that value. `KeyboardInterrupt`, `SystemExit`, cancellation and the like unwind the program
and are not caught.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from tracker.errors import ValidationError
from tracker.redaction.uncut import ROOM, Uncut, cut, cut_length
from tracker.validation import MAX_DEPTH, MAX_INTEGER_BITS, is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_MAX_REPR = 1_000
_MAX_KEY = 1_000
_MAX_BYTES = 200
_MAX_TYPE_NAME = 100
_NODE = 4
"""Characters counted for each value in addition to its own."""

_ARRAYS: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
_int: Callable[[Any], int] = int.__int__
_float: Callable[[Any], float] = float.__float__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Returns the name of a class, regardless of its metaclass."""


def share(max_event_bytes: int) -> int:
    """Return how many characters of one field always fit into an event next to three others.

    A character takes at most 6 bytes: JSON's escape of a control character.
    """
    return max_event_bytes // 24


def capture(value: object, characters: int) -> Any:
    """Return `value` converted to JSON values, of about `characters` at most."""
    return Capture(characters).take(value)


def fitting(record: Callable[[Callable[[object], Any]], T], max_event_bytes: int) -> T:
    """Return the result of `record` with values as large as fit into the event.

    `record` is called with a function that converts any value. It is called again with smaller
    limits as long as it raises `ValidationError` because the event is too large.
    """
    room = share(max_event_bytes)
    for characters in (max_event_bytes, room, room // 4, room // 32):
        try:
            return record(_strict(characters))
        except ValidationError:
            continue
    return record(_strict(0))


def _strict(characters: int) -> Callable[[object], Any]:
    return lambda value: Capture(characters, show=False).take(value)


def marker(value: object) -> str:
    """Return the marker of a value that cannot be stored, such as ``"[not JSON: Session]"``."""
    return f"[not JSON: {type_name(value)}]"


def type_name(value: object) -> str:
    """Return the name of a value's class as text that can be stored."""
    return readable(_name_of(type(value))[:_MAX_TYPE_NAME])


def readable(text: str) -> str:
    """Return `text` with lone surrogates, which UTF-8 cannot encode, escaped."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class Capture:
    """Converts values, one after the other, until its characters are used up.

    Args:
        characters: Approximate maximum number of characters of all values together.
        show: If True, values that JSON does not have become their ``repr()``; otherwise they are
            replaced by a marker. Default True.
    """

    def __init__(self, characters: int, *, show: bool = True) -> None:
        self._left = characters
        self._show = show
        self._parents: set[int] = set()

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return self._left <= 0

    def take(self, value: object) -> Any:
        """Return `value` converted to JSON values."""
        self._left -= _NODE
        if value is None or value is True or value is False:
            return value
        # Never isinstance, which reads the value's __class__: proxies and mocks return another
        # object's, or raise.
        kind: Any = type(value)
        if issubclass(kind, str):
            return (
                self._cut(cast("Uncut", value)) if kind is Uncut else self._text(str.__str__(value))
            )
        if issubclass(kind, int):
            return self._integer(_int(value))
        if issubclass(kind, float):
            return self._float(_float(value))
        try:
            return self._composed(value, kind)
        except BaseException as error:
            if is_interrupt(error):
                raise
            return self._text(marker(value))

    def _integer(self, value: int) -> int | str:
        bits = value.bit_length()
        if bits > MAX_INTEGER_BITS:
            return self._text(f"[not JSON: int of {bits:,} bits]")
        if bits > max(self._left, 16) * 3:
            return self._text(f"… (int of {bits:,} bits)")
        self._left -= bits // 3
        return value

    def _float(self, value: float) -> float | str:
        if not isfinite(value):
            return self._text(repr(value) if self._show else f"[not JSON: {value}]")
        self._left -= 20
        return value

    def _composed(self, value: Any, kind: type) -> Any:
        """Return the converted value if it is not a scalar. Runs the value's own code."""
        if id(value) in self._parents:
            return self._text(f"[not JSON: {type_name(value)} that contains itself]")
        if len(self._parents) >= MAX_DEPTH:
            return self._text(f"[not JSON: {type_name(value)} nested {MAX_DEPTH} levels deep]")
        self._parents.add(id(value))
        try:
            if (pairs := _pairs(value, kind, self._left // _NODE + 1)) is not None:
                return self._object(pairs, _length(value, kind))
            if (items := _items(value, kind, self._left // _NODE + 1)) is not None:
                return self._array(*items)
        finally:
            self._parents.discard(id(value))
        if issubclass(kind, (bytes, bytearray, memoryview)):
            return self._bytes(value)
        return (
            self._text(str.__str__(repr(value)), _MAX_REPR)
            if self._show
            else self._text(marker(value))
        )

    def _object(self, pairs: Iterator[tuple[object, object]], length: int | None) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        seen: dict[str, int] = {}
        while True:
            try:
                key, item = next(pairs)
            except StopIteration:
                break
            except BaseException as error:
                if is_interrupt(error):
                    raise
                kept[_free(kept, seen, "…")] = f"[not read: {type_name(error)}]"
                break
            if self.full:
                rest = "more" if length is None else f"{length - len(kept):,} more"
                kept[_free(kept, seen, "…")] = rest
                break
            name = _free(kept, seen, self._key(key))  # before its value uses up the characters
            kept[name] = self.take(item)
        return kept

    def _array(self, items: Iterable[object], length: int) -> list[Any]:
        kept: list[Any] = []
        for item in items:
            if self.full:
                kept.append(f"… {length - len(kept):,} more")
                break
            kept.append(self.take(item))
        return kept

    def _key(self, key: object) -> str:
        if issubclass(type(key), str):
            return self._text(str.__str__(key), _MAX_KEY)
        try:
            shown = str.__str__(repr(key))
        except BaseException as error:
            if is_interrupt(error):
                raise
            shown = marker(key)
        return self._text(shown, _MAX_KEY)

    def _bytes(self, value: Any) -> str:
        if issubclass(type(value), memoryview):
            length = value.nbytes
            head = bytes(value.cast("B")[: _MAX_BYTES + ROOM] if value.c_contiguous else value)
        else:
            base: Any = bytes if issubclass(type(value), bytes) else bytearray
            length = base.__len__(value)
            head = bytes(base.__getitem__(value, slice(_MAX_BYTES + ROOM)))
        return self._text(repr(head), _MAX_BYTES, mark=f"… ({length:,} bytes)")

    def _text(self, text: str, most: int = sys.maxsize, *, mark: str | None = None) -> str:
        text = cut(text, min(max(self._left, 0), most), mark=mark)
        self._left -= cut_length(text)
        return text

    def _cut(self, text: Uncut) -> str:
        """Return a text that is still to be truncated, now to the characters that are left."""
        return self._text(str.__str__(text), text.most, mark=text.mark)


def _free(kept: dict[str, Any], seen: dict[str, int], name: str) -> str:
    """Return `name`, with a number if it is taken, since two keys may have the same text."""
    free = name
    while free in kept:
        seen[name] = number = seen.get(name, 1) + 1
        if isinstance(name, Uncut):
            free = cut(f"({number}) {str.__str__(name)}", name.most, mark=name.mark)
        else:
            free = f"{name} ({number})"
    return free


def _pairs(value: Any, kind: Any, most: int) -> Iterator[tuple[object, object]] | None:
    """Return the keys and values if the value becomes an object, otherwise None."""
    if issubclass(kind, dict):
        try:  # not its own `items`, which a subclass may override
            return iter(list(islice(dict.items(value), most)))
        except RuntimeError:  # another thread changed it meanwhile
            return iter(dict.copy(value).items())
    if issubclass(kind, tuple):
        fields = getattr(kind, "_fields", None)
        return zip(fields, tuple.__iter__(value), strict=False) if type(fields) is tuple else None
    if (fields := getattr(kind, "__dataclass_fields__", None)) is not None:
        return _attributes(value, [name for name, field in fields.items() if _is_shown(field)])
    if (fields := getattr(kind, "__attrs_attrs__", None)) is not None:
        return _attributes(value, [field.name for field in fields if field.repr is not False])
    if hasattr(kind, "__repr_args__"):  # models of pydantic 1 and 2
        shown: Iterator[tuple[object, object]] = iter(value.__repr_args__())
        return shown
    if issubclass(kind, Mapping):
        return _members(value)
    return None


def _is_shown(field: Any) -> bool:
    return field.repr is not False and field._field_type.name == "_FIELD"


def _attributes(value: object, names: list[str]) -> Iterator[tuple[object, object]]:
    for name in names:
        yield name, _read(getattr, value, name)


def _members(value: Any) -> Iterator[tuple[object, object]]:
    for key in value:
        yield key, _read(lambda key: value[key], key)


def _read(get: Callable[..., T], *arguments: Any) -> T | str:
    try:
        return get(*arguments)
    except BaseException as error:
        if is_interrupt(error):
            raise
        return f"[not read: {type_name(error)}]"


def _length(value: Any, kind: type) -> int | None:
    return dict.__len__(value) if issubclass(kind, dict) else None


def _items(value: Any, kind: type, most: int) -> tuple[Iterable[object], int] | None:
    """Return the first items and their total number if it becomes an array, otherwise None."""
    for known in _ARRAYS:
        if issubclass(kind, known):
            length: int = known.__len__(value)
            try:  # not its own `__iter__`, which a subclass may override
                return list(islice(known.__iter__(value), most)), length
            except RuntimeError:  # another thread changed it meanwhile
                return known.copy(value), length
    return None
