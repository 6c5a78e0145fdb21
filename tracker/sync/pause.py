"""`Pause`: how long the sync thread does nothing before its next step."""

from __future__ import annotations

from typing import NamedTuple


class Pause(NamedTuple):
    """The pause before the next step.

    Attributes:
        seconds: Maximum length of the pause.
        skippable: Whether a flush may end the pause early.
        idle: Whether no events are pending; a new one ends the pause.
    """

    seconds: float
    skippable: bool = True
    idle: bool = False
