"""What the SDK gathers by itself, as JSON of a bounded size: any Python value, whatever it is.

For arguments and results of observed calls, results of tool blocks, log records and the texts of
exceptions. What callers pass to a logging method is not gathered: `tracker.validation` refuses it.

- Scalars that JSON has are kept. Strings that UTF-8 cannot hold have the offending parts escaped.
- Mappings, dataclasses, attrs classes, pydantic models and named tuples become objects; lists,
  tuples, sets, frozensets and deques become arrays. Fields that a class leaves out of its ``repr``
  are left out.
- Of bytes the first 200 are kept. Anything else becomes its ``repr()``, at most 1,000 characters.
- What cannot be read is replaced by a marker, as in ``"[not JSON: Session]"``, and all around it
  is kept. Iterators, generators, coroutines and files are never consumed.
- What is cut off is marked with ``…`` and how much there was. Texts are masked before they are cut.

A value's own code (its ``repr``, its iteration, its attributes) may raise anything. An `Exception`
is a fault of that value, and it costs only that value. `KeyboardInterrupt`, `SystemExit`,
cancellation and the like are not the value's: they unwind the program, and pass through.
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
"""Characters that a value costs besides its own."""

_ARRAYS: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
_int: Callable[[Any], int] = int.__int__
_float: Callable[[Any], float] = float.__float__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Reads a class's name whatever its metaclass says."""


def share(max_event_bytes: int) -> int:
    """Return how many characters of one field always fit into an event, beside three others.

    A character takes at most 6 bytes, as JSON's escape of a control character.
    """
    return max_event_bytes // 24


def capture(value: object, characters: int) -> Any:
    """Return `value` as JSON can hold it, in about so many characters at most."""
    return Capture(characters).take(value)


def fitting(record: Callable[[Callable[[object], Any]], T], max_event_bytes: int) -> T:
    """Return what `record` returns for the largest bound on its values with which they fit.

    `record` is called with a function that makes any value storable. It is called again with
    smaller bounds as long as it raises `ValidationError`: the event was too large.
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
    """Return what stands for a value that cannot be stored, as in ``"[not JSON: Session]"``."""
    return f"[not JSON: {type_name(value)}]"


def type_name(value: object) -> str:
    """Return the name of a value's class as text that can be stored."""
    return readable(_name_of(type(value))[:_MAX_TYPE_NAME])


def readable(text: str) -> str:
    """Return `text` with what UTF-8 cannot hold, lone surrogates, escaped."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class Capture:
    """Takes values apart, one after the other, until its characters are used up.

    Args:
        characters: About how many characters everything that it takes may have.
        show: Whether what JSON does not have becomes its ``repr()``; else it is replaced by a
            marker. Default True.
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
        """Return `value` as JSON can hold it."""
        self._left -= _NODE
        if value is None or value is True or value is False:
            return value
        # Never isinstance: it asks the value for its __class__, which proxies and mocks answer
        # with somebody else's, or with an exception.
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
        """Return what a value becomes that is not a scalar. Runs the value's own code."""
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
            name = _free(kept, seen, self._key(key))  # before its value takes all that is left
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
        """Return a text that was to be cut already, to be cut as far as there is room now."""
        return self._text(str.__str__(text), text.most, mark=text.mark)


def _free(kept: dict[str, Any], seen: dict[str, int], name: str) -> str:
    """Return `name`, with a number if it is taken: two keys may become the same text."""
    free = name
    while free in kept:
        seen[name] = number = seen.get(name, 1) + 1
        if isinstance(name, Uncut):
            free = cut(f"({number}) {str.__str__(name)}", name.most, mark=name.mark)
        else:
            free = f"{name} ({number})"
    return free


def _pairs(value: Any, kind: Any, most: int) -> Iterator[tuple[object, object]] | None:
    """Return the keys and values of what becomes an object, or None."""
    if issubclass(kind, dict):
        try:  # not its own `items`, which may be somebody else's code
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
    if hasattr(kind, "__repr_args__"):  # pydantic's models, of either version
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
    """Return the first members of what becomes an array, and how many it has; or None."""
    for known in _ARRAYS:
        if issubclass(kind, known):
            length: int = known.__len__(value)
            try:  # not its own `__iter__`, which may be somebody else's code
                return list(islice(known.__iter__(value), most)), length
            except RuntimeError:  # another thread changed it meanwhile
                return known.copy(value), length
    return None
