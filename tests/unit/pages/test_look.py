"""The colours can be told apart, the files are small, and they are in the wheel."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tracker.pages
from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(tracker.pages.__file__).parent
CSS = (FOLDER / "static" / "app.css").read_text("utf-8")
_BLOCK = r"{0} {{([^}}]*)}}"

TEXT = [
    *((ink, ground) for ink in ("ink", "ink-2", "ink-3") for ground in ("paper", "card", "rail")),
    *(("accent", ground) for ground in ("paper", "card")),
    *((kind, f"{kind}-soft") for kind in ("ok", "wait", "bad", "info")),
    *((kind, "card") for kind in ("bad", "wait")),
    *(("ink-2", "grid"), ("info", "paper"), ("accent", "paper")),
]
MARKS = [
    *((f"chart-{name}", "card") for name in ("ended", "open", "failed", "cost", "median")),
    *((f"{kind}-fill", "card") for kind in ("ok", "wait", "bad")),
    *(("ink-3", "card"), ("accent", "card")),
]


def tokens(selector: str) -> dict[str, str]:
    found = re.search(_BLOCK.format(re.escape(selector)), CSS)
    assert found is not None, selector
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", found[1]))


LIGHT = tokens(":root")
DARK = tokens(':root[data-theme="dark"]')


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), TEXT)
def test_text_can_be_read(scheme: Mapping[str, str], ink: str, ground: str) -> None:
    """WCAG 2.2 AA: at least 4.5 to 1."""
    assert contrast(scheme[ink], scheme[ground]) >= 4.5


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("mark", "ground"), MARKS)
def test_marks_can_be_seen(scheme: Mapping[str, str], mark: str, ground: str) -> None:
    """At least 3 to 1, in charts too, which no checker looks into."""
    assert round(contrast(scheme[mark], scheme[ground]), 1) >= 3.0


def test_dark_is_the_same_by_the_system_and_by_choice() -> None:
    """Both blocks say the same, and every token has a dark colour."""
    assert tokens(':root:not([data-theme="light"])') == DARK
    assert set(DARK) == set(LIGHT)


def test_every_colour_is_a_token() -> None:
    """So that the test above looks at all of them; print is black on white."""
    rules = re.sub(r"--[\w-]+: #[0-9a-f]{6};", "", CSS)
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[^{]*})", rules)) <= {"#fff", "#000"}
    used = set(re.findall(r"var\(--([\w-]+)\)", CSS))
    assert used <= set(LIGHT)


def test_the_files_are_small() -> None:
    """All of them together, before compression."""
    assert sum(path.stat().st_size for path in (FOLDER / "static").iterdir()) < 30_000


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_wheel_has_them(tmp_path: Path) -> None:
    """Templates, style sheet, script and icon: without them no page works."""
    from build import ProjectBuilder
    from build.env import DefaultIsolatedEnv

    with DefaultIsolatedEnv() as environment:
        builder = ProjectBuilder.from_isolated_env(environment, ROOT)
        environment.install(builder.build_system_requires)
        wheel = builder.build("wheel", tmp_path)
    with zipfile.ZipFile(wheel) as found:
        packed = set(found.namelist())
    for folder in ("templates", "static"):
        for path in (FOLDER / folder).iterdir():
            assert f"tracker/pages/{folder}/{path.name}" in packed
