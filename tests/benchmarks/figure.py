"""`Figure`: one ratio of the suite, held against its goal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Detail: TypeAlias = "float | str | list[float]"


@dataclass(frozen=True)
class Figure:
    """What one benchmark found.

    Attributes:
        name: Short and unique, as in ``"call.process"``; comparisons go by it.
        what: What was measured.
        against: The limit or the peer that it was measured against, in the same run.
        value: The result.
        unit: Its unit: ``"x"`` for a ratio.
        most: The goal, when less is better.
        least: The goal, when more is better. Without either the figure is only reported.
        details: Figures behind the result, by name, in the order to show them. Four numbers are
            a latency's p50, p99, p99.9 and maximum.
    """

    name: str
    what: str
    against: str
    value: float
    unit: str = "x"
    most: float | None = None
    least: float | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.most is not None:
            return self.value <= self.most
        if self.least is not None:
            return self.value >= self.least
        return None

    @property
    def goal(self) -> str:
        """The goal in words, as in ``"≤ 2.2 x"``; "reported" without one."""
        if self.most is not None:
            return f"≤ {self.most:,g} {self.unit}"
        if self.least is not None:
            return f"≥ {self.least:,g} {self.unit}"
        return "reported"

    def to_json(self) -> dict[str, Any]:
        """Return what a JSON file keeps."""
        return {**asdict(self), "met": self.met}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Figure:
        """Return the figure that a JSON file kept."""
        return cls(**{name: value for name, value in kept.items() if name != "met"})


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Attributes:
        quick: A few minutes for the whole suite, in place of half an hour.
    """

    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """Return the number for this scale."""
        return quick if self.quick else full


Measure: TypeAlias = "Callable[[Scale], Iterable[Figure]]"
"""What every file of the suite has under the name ``measure``."""
