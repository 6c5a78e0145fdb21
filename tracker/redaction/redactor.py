"""`Redactor`: masks an event's data before it is encoded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import log, own_work
from tracker.events import OTEL, VOCABULARY
from tracker.once import Once
from tracker.redaction import assigned, secrets, telemetry
from tracker.redaction.capture import without_content
from tracker.redaction.names import KINDS, NUMERIC, Names, is_secret, mask_named
from tracker.redaction.own_keys import found, know
from tracker.redaction.rules import MASK, mask, rest_of
from tracker.redaction.uncut import Uncut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracker.config import APIConfig
    from tracker.redaction.own_keys import OwnKey
    from tracker.redaction.rules import Gates, Rule

CHOSEN = frozenset({"role", "severity", "status", "previous_status"})
"""Fields of the tracker's own events with one of a few values, which are never masked."""
FAILED = "[redaction failed]"
"""Replaces a string for which one of the user's redactors failed."""
CUSTOM = "custom"
"""The kind counted if one of the user's redactors changed a string without a mask of our form."""
CUSTOM_FAILED = "redaction_failed"
"""The kind counted if one of them failed."""
SECRETS = KINDS | secrets.GATES.kinds
"""Kinds of secrets except the user's own; other kinds, except the two above, are personal data."""
_type = type  # `type` is the name of an argument here
_SCHEMA_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_NAME_AND_VALUE = (("name", "value"), ("key", "value"), ("header", "value"), ("Name", "Value"),
                   ("Key", "Value"))  # fmt: skip
SHORTEST = 6
"""Length of the shortest text that any rule finds."""


class Redactor:
    """Masks strings and keys anywhere in an event's data. Thread-safe.

    Args:
        config: Settings, of which `redaction`, `redactors` and `capture_content` are used here.
    """

    def __init__(self, config: APIConfig) -> None:
        self._labels: list[tuple[str, Gates]] = []
        if config.redaction != "off":
            self._labels.append(("secret", secrets.GATES))
        if config.redaction == "pii":
            from tracker.redaction import personal  # needs the extra

            self._labels.append(("pii", personal.GATES))
        self._custom = tuple(config.redactors)
        self._capture = config.capture_content
        self._failures_logged = Once()
        # Regardless of `redaction`, since the README promises that the key is stored nowhere.
        self._own = know(config.api_key, config.chain_key)
        self._names: Names | None = None
        if config.redaction != "off":
            self._names = Names(config.secret_names, config.not_secret_names)

    def apply(self, type: str, data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
        """Return the data to store, and the number of masks in it by kind.

        Texts to be truncated (see `cut`) are truncated after they are masked. The given data is
        never changed; it is returned if there is nothing to do.
        """
        counts: dict[str, int] = {}
        given = data
        clean = data = telemetry.content(given) if type in OTEL else given
        strings, keys, values, flat = _texts(type, data)
        if strings or self._custom:
            long = Uncut in map(_type, strings)
            text = "\n".join(strings)
            lowered = text.lower()
            rest = rest_of(text)
            own = found(self._own, text, lowered, rest)
            labelled = []
            for label, gates in self._labels:
                if rules := gates.candidates(text, lowered, rest):
                    labelled.append(_Labelled(label, tuple(rules)))
            names = self._names
            if flat and not assigned.may_find(lowered, rest):
                names = None
            if names is not None:
                anchors = names.anchors_in(lowered)
                if not (anchors and _may_announce(names, anchors, keys, values)):
                    names = None
            if long or own or labelled or names is not None or self._custom:
                walk = _Walk(own, labelled, names, self._custom, counts, self._complain)
                masked = walk.data(data, own_names=type in VOCABULARY)
                clean = masked if counts or long else data
        clean = clean if data is given else telemetry.with_content(given, data, clean)
        # A context, which has no type, is no content, and has no place for the counts.
        if type and not self._capture:
            clean = without_content(type, clean, given)
        if type and counts:
            # An event of another type may have a field of that name.
            name = "redactions" if "redactions" not in clean else "tracker.redactions"
            clean = {**clean, name: dict(sorted(counts.items()))}
        return clean, counts

    def masked(self, items: dict[str, Any]) -> dict[str, Any]:
        """Return an event's context with what is secret in it masked."""
        return self.apply("", items)[0]

    def without_own_keys(self, items: dict[str, Any]) -> dict[str, Any]:
        """Return a mapping with nothing but the own keys masked, in its names as well."""
        text = "\n".join(_texts("", items)[0])
        own = found(self._own, text, text.lower(), rest_of(text))
        return _Walk(own, [], None, (), {}, self._complain).data(items, own_names=False)

    def _complain(self, index: int, error: Exception | None) -> None:
        """Log once per redactor that it failed, without its message, which may contain the text."""
        if self._failures_logged.is_new(index):
            what = "returned no text" if error is None else f"raised {type(error).__name__}"
            log.error(
                "redactor %d of APIConfig.redactors %s; texts for which it fails are stored as %r",
                index,
                what,
                FAILED,
            )


def redaction_kind(
    counts: Mapping[str, int], named: frozenset[str] = frozenset()
) -> tuple[str, str]:
    """Return the kind and the severity of the report on the masks in an event.

    `named` contains the user's own names of secrets.
    """
    if counts.keys() & (SECRETS | named):
        return "secret_detected", "high"
    if counts.keys() - {CUSTOM, CUSTOM_FAILED}:
        return "pii_detected", "medium"
    return "content_redacted", "low"


class _Labelled(NamedTuple):
    """Rules that may match in an event, and the beginning of their masks."""

    label: str
    rules: tuple[Rule, ...]


class _Walk:
    """One pass over an event's data."""

    def __init__(
        self,
        own: list[OwnKey],
        labelled: list[_Labelled],
        names: Names | None,
        custom: tuple[Callable[[str], str], ...],
        counts: dict[str, int],
        complain: Callable[[int, Exception | None], None],
    ) -> None:
        self._own = own
        self._labelled = labelled
        self._names = names
        self._keyed = [
            _Labelled(label, keyed)
            for label, rules in labelled
            if (keyed := tuple(rule for rule in rules if rule.keyed))
        ]
        self._custom = custom
        self._counts = counts
        self._complain = complain

    def data(self, data: dict[str, Any], *, own_names: bool) -> dict[str, Any]:
        """Return an event's masked data; names of fields are masked unless they are our own."""
        if own_names:
            return {
                name: value if name in CHOSEN else self._below(name, value)
                for name, value in data.items()
            }
        return self._mapping(data)

    def _member(self, key: str, value: object) -> object:
        """Return the masked value of `key`."""
        kind = None if self._names is None else self._names[key]
        return self._below(key, value) if kind is None else self._secret(kind, key, value)

    def _below(self, key: str, value: object) -> object:
        """Return the masked value of a `key` that is not the name of a secret."""
        if not isinstance(value, str):
            return self._value(value)
        return self._text(self._by_key(key, value))

    def _by_key(self, key: str, value: str) -> str:
        """Return a text with masks by rules that need its key."""
        for label, rules in self._keyed:
            said = "".join((key, "=", value))
            if (clean := mask(rules, label, said, self._counts)) is not said:
                return _like(value, clean[len(key) + 1 :])
        return value

    def _secret(self, kind: str, key: str, value: object) -> object:
        """Return the masked value of a name of a secret: keys, flags and None are kept."""
        if isinstance(value, str):
            masked = self._masked(str.__str__(self._by_key(key, value)))
            if not is_secret(kind, masked):
                return value.kept(masked) if type(value) is Uncut else self._by_customs(masked)
            self._count(kind)
            return self._by_customs(mask_named(kind))
        if isinstance(value, int) and not isinstance(value, bool) and kind in NUMERIC:
            self._count(kind)
            return mask_named(kind)
        if isinstance(value, dict):
            if value.get("type") in _SCHEMA_TYPES:  # a schema that describes a secret
                return self._mapping(value)
            return self._mapping(value, kind)
        if isinstance(value, (list, tuple)):
            return [self._secret(kind, key, item) for item in value]
        return value

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._mapping(value)
        if isinstance(value, (list, tuple)):
            return self._items(value)
        return value

    def _items(self, items: Sequence[Any]) -> list[Any]:
        names = self._names
        if names is None:
            return [self._value(item) for item in items]
        if all(_is_pair(item) for item in items):  # as HTTP headers
            return [[self._text(item[0]), self._member(*item)] for item in items]
        masked, before = [], ""
        for item in items:
            kind = None
            if before.startswith("-") and isinstance(item, str) and not item.startswith("-"):
                kind = names[before.lstrip("-")]  # as a command's arguments
            masked.append(self._value(item) if kind is None else self._secret(kind, before, item))
            before = item if isinstance(item, str) else ""
        return masked

    def _mapping(self, value: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
        """Return a masked mapping; with a `kind` of secret, all values are masked."""
        masked: dict[str, Any] = {}
        told = self._told(value)
        for key, item in value.items():
            clean = name = self._text(key)
            number = 1
            while name in masked:  # two keys may have the same mask
                number += 1
                name = f"{clean} ({number})"
            if key in told or kind is not None:
                masked[name] = self._secret(told.get(key) or kind or "", key, item)
            elif key == "token" and "logprob" in value:  # of a language model
                masked[name] = self._value(item)
            else:
                masked[name] = self._member(key, item)
        return masked

    def _told(self, value: dict[str, Any]) -> dict[str, str]:
        """Return the keys of secrets named by other members: ``{"name": …, "value": …}``."""
        names = self._names
        if names is not None:
            for key, other in _NAME_AND_VALUE:
                if other in value and isinstance(said := value.get(key), str):
                    kind = names[said]
                    return {} if kind is None else {other: kind}
        return {}

    def _text(self, text: str) -> str:
        if type(text) is Uncut:
            return text.kept(self._by_customs(self._masked(str.__str__(text))))
        return self._by_customs(self._masked(text))

    def _masked(self, text: str) -> str:
        if str.__len__(text) >= SHORTEST:
            for key in self._own:
                text = key.hide(text, self._counts)
            for label, rules in self._labelled:
                text = mask(rules, label, text, self._counts)
            if self._names is not None and _has_sign(text) and self._names.may_announce(text):
                text = assigned.hide(text, self._names, self._counts)
        return text

    def _by_customs(self, text: str) -> str:
        for index, redactor in enumerate(self._custom):
            text = self._by_custom(index, redactor, text)
        return text

    def _by_custom(self, index: int, redactor: Callable[[str], str], text: str) -> str:
        try:
            clean = own_work.run(redactor, str.__str__(text))
            if isinstance(clean, str):
                clean.encode()  # text that UTF-8 cannot encode cannot be stored
                if clean != text:
                    self._count_changes(text, clean)
                return clean
            self._complain(index, None)  # type: ignore[unreachable]  # a redactor may return anything
        except Exception as error:  # noqa: BLE001 - an error in the user's code must not lose the event
            self._complain(index, error)
        self._count(CUSTOM_FAILED)
        return FAILED

    def _count_changes(self, text: str, clean: str) -> None:
        """Count the changes of a redactor: masks for personal data by kind, others as one."""
        put = _personal(clean) - _personal(text)
        for kind in put.elements():
            self._count(kind)
        if not put:
            self._count(CUSTOM)

    def _count(self, kind: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1


def _personal(text: str) -> Counter[str]:
    """Return the number of masks for personal data in a text by kind."""
    return Counter(found["kind"] for found in MASK.finditer(text) if found["label"] == "pii")


def _texts(type: str, data: Mapping[str, Any]) -> tuple[list[str], list[str], list[str], bool]:
    """Return all texts of an event's data, only the keys, only the values, and if it is flat.

    In the first list, a key ends with ``=``, as expected by rules, and precedes its value. Flat
    means that there are no values but those of the package's own fields.
    """
    texts: list[str] = []
    keys: list[str] = []
    values: list[str] = []
    own = flat = type in VOCABULARY
    for name, value in data.items():
        if not own:
            texts.append(f"{name}=")
            keys.append(name)
        if isinstance(value, str):
            if str.__len__(value) >= SHORTEST or not own:
                texts.append(value)
                values.append(value)
        elif isinstance(value, (dict, list, tuple)):
            flat = False
            _collect(value, texts, keys, values)
    return texts, keys, values, flat


def _may_announce(names: Names, anchors: list[str], keys: list[str], values: list[str]) -> bool:
    """Return True if a key is the name of a secret, or a text may contain one."""
    for key in keys:
        if names[key] is not None:
            return True
    return names.may_announce("\n".join(values), anchors)


def _has_sign(text: str) -> bool:
    """Return True if a text has more than one word."""
    return " " in text or "=" in text or ":" in text or "<" in text or "%" in text


def _is_pair(item: object) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)


def _like(value: str, clean: str) -> str:
    """Return `clean`, to be truncated like `value`."""
    if type(value) is not Uncut:
        return clean
    uncut = Uncut(clean)
    uncut.most, uncut.mark, uncut.tail = value.most, value.mark, value.tail
    return uncut


def _collect(value: object, texts: list[str], keys: list[str], values: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
        values.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            texts.append(key + "=")
            keys.append(key)
            _collect(item, texts, keys, values)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, texts, keys, values)
