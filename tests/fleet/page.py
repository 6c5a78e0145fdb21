"""The configuration files on the page about deployment, with other addresses and folders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.conversations import ROOT
from tests.support.pages import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Page(ROOT / "tracker" / "collector" / "DEPLOYMENT.md")
DATABASE_HOSTS = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
REPLICAS = ("10.0.0.21:8081", "10.0.0.22:8081", "10.0.0.23:8081")


def block(language: str, beginning: str = "") -> str:
    """Return the page's only block of a language that begins so."""
    (found,) = [text for text in PAGE.code(language) if text.startswith(beginning)]
    return found


def variables(text: str) -> dict[str, str]:
    """Return the variables of a file that systemd reads."""
    return dict(line.split("=", 1) for line in text.splitlines())


def placed(text: str, places: Mapping[str, str]) -> str:
    """Return a text of the page with each of `places` in place of what the page has.

    Raises:
        AssertionError: if the page does not have one of them: the test has to be corrected then.
    """
    missing = [name for name in places if name not in text]
    assert not missing, f"the page does not have {missing}"
    pattern = "|".join(re.escape(name) for name in sorted(places, key=len, reverse=True))
    return re.sub(pattern, lambda found: places[found[0]], text)
