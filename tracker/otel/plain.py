"""Values of OpenTelemetry as JSON values, from which `tracker.otel.values` makes OTLP again.

=============================  ======================================================
text, bool, None               the same
integer                        the same; outside 64 bits its digits, as text
float                          the same, always with a point or an exponent in JSON
NaN and the infinities         ``{"@double": "nan"}``, ``"inf"``, ``"-inf"``
bytes                          ``{"@bytes": "…"}`` in base64
sequence                       array
mapping                        object; a key that begins with ``@`` gets one more
anything else                  its ``str()``, as OpenTelemetry has it
=============================  ======================================================

Characters that UTF-8 cannot encode are escaped. What is nested more than `MAX_DEPTH` levels deep,
or is one of more than `MAX_VALUES` values, becomes a marker, so that no value is endless.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from tracker.redaction.uncut import cut
from tracker.trackers.capture import readable
from tracker.validation import is_interrupt

BYTES = "@bytes"
DOUBLE = "@double"
MARK = "@"
"""What the keys of tagged values begin with; a key of the application's gets one more."""
MAX_DEPTH = 24
"""Levels of nesting. Each takes three of OTLP's messages, and common receivers read 100 at most."""
MAX_VALUES = 50_000
"""Values within one attribute."""
_LONGEST_KEY = 1_024
MAX_INT, MIN_INT = 2**63 - 1, -(2**63)


class Plain:
    """Converts values to JSON values.

    Args:
        most: Longer texts are marked to be cut to so many characters once they are masked, and end
            with ``[cut: N characters]``, N being those that are missing.
        binary: Whether to keep bytes as such; otherwise they become text, which can be masked.

    Attributes:
        cut: Number of texts that were marked.
        found: The bytes that were kept, as text.
    """

    def __init__(self, most: int, *, binary: bool = True) -> None:
        self._most = most
        self._binary = binary
        self.cut = 0
        self.found: list[str] = []

    def attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return attributes, or another mapping, as a JSON object."""
        found: dict[str, Any] = {}
        # OpenTelemetry's mapping takes a lock and a look-up for each item; a copy of it does not.
        items = given.copy() if hasattr(given, "copy") else given
        for key, value in items.items():
            kind = type(value)
            if kind is str:
                if len(value) > self._most or not value.isascii():
                    value = self.text(value)
            elif kind is not int or not MIN_INT <= value <= MAX_INT:
                value = self.value(value)
            if type(key) is not str or key[:1] == MARK or not (key.isascii() and len(key) <= 64):
                key = self._key(key)
            found[key] = value
        return found

    def text(self, value: str) -> str:
        """Return a text that can be stored."""
        value = str.__str__(value)
        if len(value) <= self._most:
            return cut(value, self._most)
        self.cut += 1
        return cut(value, self._most, mark=f"[cut: {len(value) - self._most} characters]")

    def value(self, value: object) -> Any:
        """Return any value as a JSON value."""
        return self._value(value, MAX_DEPTH, [MAX_VALUES])

    def _value(self, value: object, depth: int, left: list[int]) -> Any:
        left[0] -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return int(value) if MIN_INT <= value <= MAX_INT else _digits(value)
        if isinstance(value, float):
            return float(value) if isfinite(value) else {DOUBLE: float.__repr__(value)}
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(bytes(value))
        if depth == 0 or left[0] <= 0:
            return f"[cut: {type(value).__name__}]"
        if isinstance(value, Mapping):
            return {
                self._key(key): self._value(item, depth - 1, left) for key, item in value.items()
            }
        if isinstance(value, Sequence):
            return [self._value(item, depth - 1, left) for item in value]
        return self.text(_str(value))

    def _bytes(self, value: bytes) -> Any:
        text = value.decode(errors="replace")
        if not self._binary:
            return self.text(text)
        self.found.append(text)
        return {BYTES: base64.b64encode(value).decode()}

    def _key(self, key: object) -> str:
        name = key if type(key) is str else _str(key)
        if len(name) > _LONGEST_KEY:
            return f"[cut: a name of {len(name)} characters]"
        if not name.isascii():
            name = readable(name)
        return MARK + name if name.startswith(MARK) else name


def _digits(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python prints 4,300 digits at most
        return hex(value)


def _str(value: object) -> str:
    try:
        return str(value)
    except BaseException as error:
        if is_interrupt(error):
            raise
        return f"[not text: {type(value).__name__}]"
