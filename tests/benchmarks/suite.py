"""The figures of the suite, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.figure import Figure, Scale

FIGURES = {
    "call": 300,
    "threads": 240,
}
"""Modules of this package with ``measure(scale)``, and the seconds that each may take at most."""


def measure(name: str, scale: Scale) -> list[Figure]:
    """Run one module of the suite."""
    return list(import_module(f"tests.benchmarks.{name}").measure(scale))
