"""The repository's Markdown pages: their code blocks, shell lines, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from pathlib import Path

IS_CHECKOUT = (ROOT / "tracker" / "__init__.py").exists()
"""False where the tests run beside an installed wheel: only some of the pages are there."""


class Block(NamedTuple):
    """A block of code: its language, and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        return blocks_of(self.text)

    def code(self, language: str) -> list[str]:
        """Return the texts of all blocks in a language."""
        return [block.text for block in self.blocks if block.language == language]

    def lines(self) -> list[str]:
        """Return the shell lines, without what is said about them."""
        return lines_of("".join(self.code("sh")))

    def section(self, heading: str) -> str:
        """Return what stands below a heading of the second level, up to the next one."""
        return self.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]

    def links(self) -> list[str]:
        """Return where the links lead, code apart."""
        prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", self.text, flags=_MS))
        return re.findall(r"\]\(([^)\s]+)\)", prose)

    def anchors(self) -> set[str]:
        """Return what a link to a heading ends with, as GitHub makes it."""
        prose = re.sub(r"^```.*?^```$", "", self.text, flags=_MS)
        return {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
        }


_MS = re.MULTILINE | re.DOTALL


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of code in a text, in order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, _MS)]


def lines_of(shell: str) -> list[str]:
    """Return the lines of a shell block, without what is said about them."""
    return [line.split("  #")[0].strip() for line in shell.splitlines() if line.strip()]


def pages() -> list[Page]:
    """Return all pages, README first."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for folder in (".github", "tracker", "tests"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return [Page(path) for path in found]
