"""`ContextBlock`: adds items to the context of every event that is logged inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import context, context_items
from tracker.errors import ValidationError
from tracker.process_local import ProcessLocal

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


def add_context(**items: Any) -> ContextBlock:
    """Add items to the context of every event logged from now on, by any tracker.

    They hold for the code that runs now and the `asyncio` tasks that it starts, as the current
    conversation does; pass functions to other threads with `bind`. As a ``with`` block, what is
    returned takes the items away again at its end::

        tracker.add_context(shift="night")
        with tracker.add_context(tenant="a"):
            ...

    Context is never erased: it stays when a user's data is erased, and keys about a person, such
    as ``user`` or ``email``, are refused.

    Args:
        items: What holds: any values that JSON can represent, at most 4,096 bytes together.
            ``environment`` and ``release`` are text, ``tags`` maps text to text and is merged with
            the tags that hold already. None takes an item away.

    Raises:
        ValidationError: if an item is not allowed.
    """
    return ContextBlock(items)._enter()


class _Layer:
    """What one block adds; the scope holds it, so that it holds no block.

    A block that nobody has any more cannot be left. If a layer kept the one below it, a thread that
    calls `add_context` again and again would keep them all.

    Attributes:
        items: The items in force, those of the enclosing blocks included.
        left: Whether the block was left.
        outer: The layer below it, once it was left.
    """

    __slots__ = ("items", "left", "outer")

    def __init__(self, items: dict[str, Any]) -> None:
        self.items = items
        self.left = False
        self.outer: _Layer | None = None


class ContextBlock(ProcessLocal):
    """A ``with`` block that adds items to the context of events; see `BaseTracker.context`."""

    def __init__(self, items: dict[str, Any]) -> None:
        self._layer = _Layer(context_items.check("context", items))
        self._outer: _Layer | None = None
        self._entered = False

    @property
    def items(self) -> dict[str, Any]:
        """The added items; once it was entered, those of the enclosing blocks included."""
        return self._layer.items

    def __enter__(self) -> Self:
        if self._layer.left:
            raise ValidationError("context", "was left before; make a new one")
        return self if self._entered else self._enter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        layer = self._layer
        if not layer.left:
            layer.left, layer.outer, self._outer = True, self._outer, None
        while layer.outer is not None and layer.outer.left:
            layer.outer = layer.outer.outer
        # Generators share their caller's context, so blocks may be left in any order and in another
        # context than they were entered in.
        scope = context.scope()
        if scope.added is layer:
            context.enter(scope._replace(added=layer.outer))

    def _enter(self) -> Self:
        scope, layer = context.scope(), self._layer
        outer = scope.added
        if outer is not None:
            merged = context_items.merged(outer.items, layer.items)
            layer.items = context_items.check("context", merged)
            self._outer = outer if isinstance(outer, _Layer) else None
        self._entered = True
        context.enter(scope._replace(added=layer))
        return self


class AddsContext:
    """Base of trackers: the method that makes a block."""

    def context(self, **items: Any) -> ContextBlock:
        """Return a ``with`` block that adds items to the context of every event logged inside it.

        ::

            with tracker.context(tenant="a", tags={"line": "4"}):
                tracker.track("cart.abandoned")

        The items are those of `tracker.add_context`, and hold for events of any tracker; blocks may
        be nested. They are added to `APIConfig.context`, `environment`, `release` and `tags`.

        Context is never erased: it stays when a user's data is erased, and keys about a person,
        such as ``user`` or ``email``, are refused.

        Args:
            items: What holds: any values that JSON can represent, at most 4,096 bytes together.
                None takes an item away.

        Raises:
            ValidationError: if an item is not allowed.
        """
        return ContextBlock(items)
