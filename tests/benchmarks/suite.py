"""The figures of the suite, by name. Another one is another module and another line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.figure import Figure, Scale

FIGURES = {
    "call": 300,
    "threads": 360,
    "tail": 240,
    "processes": 480,
    "drain": 620,
    "otlp": 320,
    "wire": 60,
    "size": 600,
    "memory": 600,
    "importing": 120,
    "construct": 180,
    "idle": 120,
    "lag": 120,
    "disk": 120,
    "collector": 120,
    "reads": 300,
    "otel": 420,
    "dashboard": 600,
}
"""Modules of this package with ``measure(scale)``, and the seconds that each may take at most."""


def measure(name: str, scale: Scale) -> list[Figure]:
    """Run one module of the suite."""
    return list(import_module(f"tests.benchmarks.{name}").measure(scale))
