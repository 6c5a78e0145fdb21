"""The package and its README are written in plain English."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import tracker
from tests.support.conversations import ROOT

PACKAGE = Path(tracker.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if "_migrations" not in path.parts]
WORDS = re.compile(r"\b(anew|afresh|lest|whoever|heed|mend|bear)\b", re.IGNORECASE)


def test_unusual_words_are_not_used() -> None:
    """There is always a common one: again, otherwise, anybody who, obey, fix, carry."""
    found = [
        f"{path}:{number}: {word[0]}"
        for path in [ROOT / "README.md", *MODULES]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (word := WORDS.search(line))
    ]
    assert found == []


def test_a_function_that_answers_a_question_returns_true_if_it_is_so() -> None:
    """Its docstring does not begin with "Tell whether"."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path.name}: {docstring.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, documented)
        and (docstring := ast.get_docstring(node) or "").startswith("Tell whether")
    ]
    assert found == []
