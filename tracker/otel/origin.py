"""`Origins`: resources and scopes as JSON, converted and masked once each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.otel.plain import Plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from tracker.redaction.redactor import Redactor

_MOST = 256
"""Resources and scopes remembered: one of each for every library that makes spans, as a rule."""
_LONGEST = 8_192
"""Longest text in one of them, in characters: it is stored with each span."""


class Origins:
    """What spans have in common: where they come from. Any thread may use it.

    Objects are known by their identity and kept, so that no other one can take it.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._known: dict[int, tuple[object, dict[str, Any]]] = {}

    def resource(self, resource: Resource) -> dict[str, Any]:
        """Return a resource's ``attributes`` and ``schema_url``."""
        return self._once(resource, _resource)

    def scope(self, scope: InstrumentationScope) -> dict[str, Any]:
        """Return the ``name``, ``version``, ``schema_url`` and ``attributes`` of a scope."""
        return self._once(scope, _scope)

    def _once(self, found: Any, make: Callable[[Any, Plain], dict[str, Any]]) -> dict[str, Any]:
        known = self._known.get(id(found))
        if known is not None and known[0] is found:
            return known[1]
        made = self._redactor.masked(make(found, Plain(_LONGEST)))
        while len(self._known) >= _MOST:
            self._known.pop(next(iter(self._known), 0), None)
        self._known[id(found)] = (found, made)
        return made


def _resource(resource: Resource, plain: Plain) -> dict[str, Any]:
    made: dict[str, Any] = {"attributes": plain.attributes(resource.attributes)}
    if resource.schema_url:
        made["schema_url"] = plain.text(resource.schema_url)
    return made


def _scope(scope: InstrumentationScope, plain: Plain) -> dict[str, Any]:
    made: dict[str, Any] = {"name": plain.text(scope.name or "")}
    if scope.version:
        made["version"] = plain.text(scope.version)
    if scope.schema_url:
        made["schema_url"] = plain.text(scope.schema_url)
    if scope.attributes:
        made["attributes"] = plain.attributes(scope.attributes)
    return made
