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


class ContextBlock(ProcessLocal):
    """A ``with`` block that adds items to the context of events; see `BaseTracker.context`.

    Attributes:
        items: The added items, those of the enclosing blocks included.
    """

    def __init__(self, items: dict[str, Any]) -> None:
        self.items = context_items.check("context", items)
        self._outer: ContextBlock | None = None
        self._entered = False
        self._left = False

    def __enter__(self) -> Self:
        if self._left:
            raise ValidationError("context", "was left before; make a new one")
        return self if self._entered else self._enter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        scope = context.scope()
        # Generators share their caller's context, so blocks may be left in any order and in another
        # context than they were entered in.
        if scope.added is self:
            outer = self._outer
            while outer is not None and outer._left:
                outer = outer._outer
            context.enter(scope._replace(added=outer))
        self._outer = None

    def _enter(self) -> Self:
        scope = context.scope()
        outer = scope.added
        if outer is not None:
            merged = context_items.merged(outer.items, self.items)
            self.items = context_items.check("context", merged)
            self._outer = outer if isinstance(outer, ContextBlock) else None
        self._entered = True
        context.enter(scope._replace(added=self))
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
