"""`ProcessLocal`: base of objects that belong to one process and cannot be copied or pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Self


class ProcessLocal:
    """Base of objects that stand for a shared resource: copying returns the object itself."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        name = type(self).__name__
        article = "an" if name[0] in "AEIOU" else "a"
        raise TypeError(
            f"cannot pickle {article} {name}: it belongs to this process. "
            "Send the APIConfig, and make a tracker with it in the other process"
        )
