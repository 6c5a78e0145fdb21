"""What keeps the templates safe, held by reading them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jinja2
import pytest

import tracker.pages
from tracker.pages.templates import environment

FOLDER = Path(tracker.pages.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
CODE = [*FOLDER.glob("*.py"), *(FOLDER.parent / "dashboard").glob("*.py")]
MAY_MAKE_MARKUP = {"shown.py", "charts.py"}
each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)


@each_template
def test_no_template_switches_escaping_off(path: Path) -> None:
    """Nor writes a script or a style into a page, which the policy would refuse."""
    text = path.read_text("utf-8")
    assert not re.search(r"\|\s*safe|autoescape|Markup", text)
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text)


@each_template
def test_attributes_are_quoted(path: Path) -> None:
    """An unquoted one could be left by a space in what an event says."""
    text = re.sub(r"{%.*?%}", "", path.read_text("utf-8"))
    bare = re.sub(r'"[^"]*"', '""', text)
    assert not re.search(r"<[^>]*\s[a-z-]+=(?!\"\")", bare)
    assert not re.search(r"[a-z-]=\s*{{", bare)


@each_template
def test_templates_are_small(path: Path) -> None:
    """One noun each."""
    assert len(path.read_text("utf-8").splitlines()) <= 60


def test_a_template_that_names_what_is_not_there_fails() -> None:
    """An empty place would be mistaken for an empty value."""
    made = environment()
    assert made.undefined is jinja2.StrictUndefined
    assert made.autoescape is True
    with pytest.raises(jinja2.UndefinedError):
        made.from_string("{{ forgotten }}").render()


def test_only_two_modules_make_markup_and_only_by_format() -> None:
    """`Markup.format` escapes what is put in; an f-string would not."""
    for path in CODE:
        tree = ast.parse(path.read_text("utf-8"))
        made = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name) and node.func.id == "Markup"]  # fmt: skip
        assert not made or path.name in MAY_MAKE_MARKUP, path
        for call in made:
            assert [type(argument) for argument in call.args] == [ast.Constant], path


def test_the_script_uses_no_sink() -> None:
    """Nothing that takes text for markup or code: Trusted Types would stop it in the browser."""
    script = (FOLDER / "static" / "app.js").read_text("utf-8")
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.style\b"
    )
    assert not re.search(sinks, script)
    assert not re.search(r"https?://", script)
