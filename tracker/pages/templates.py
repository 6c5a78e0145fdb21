"""The templates, set up so that a value that is forgotten or not escaped cannot reach a page."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tracker.pages import charts
from tracker.pages.shown import clipped, finalized, shown
from tracker.pages.static_files import HASHED
from tracker.pages.words import FILTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

_MACROS = ("when", "state", "command_line", "hidden")


@cache
def environment() -> Environment:
    """Return the environment of all templates."""
    made = Environment(
        loader=PackageLoader("tracker.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {**FILTERS, "shown": shown, "clipped": clipped}
    made.globals |= {"static": HASHED, "share": charts.share, "tape": charts.tape}
    macros = made.get_template("macros.html").module
    made.globals |= {name: getattr(macros, name) for name in _MACROS}
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page as text."""
    return environment().get_template(template).render(values)
