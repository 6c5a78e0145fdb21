"""`Pause`: how long the sync thread does nothing before its next step."""

from __future__ import annotations

from typing import NamedTuple

CHECKPOINT_SECONDS = 60.0
OFFLINE_SECONDS = 3600.0
"""How often a checkpoint is made while the receiver signs it, and while nobody does."""
HASHING_SECONDS = 0.5
"""How long uploads, and a fork, wait at most for the hashing of what was never hashed."""


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
