"""The mutants of the mutation check: each changes one place, and the program stays a program."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.__main__ import ROOT, draw, files
from tests.mutation.mutants import mutants
from tests.mutation.parts import fast_tests_of

in_a_checkout = pytest.mark.skipif(
    not (ROOT / "tracker").is_dir(), reason="only in a checkout, where the modules are"
)


def changed(source: str) -> set[str]:
    """Return all that a module of these lines can be turned into."""
    return {mutant.apply(source) for mutant in mutants("m.py", source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"(a <= b)"}),
        ("é < b", {"(é <= b)"}),
        ("a and not b", {"(a or not b)", "a and (b)"}),
        ("a + b", {"(a - b)"}),
        ("f(1, True, 'x')", {"pass", "f(2, True, 'x')", "f(1, False, 'x')"}),
        ("if a: b", {"if (not (a)): b"}),
        ("if a == b: c", {"if (a != b): c"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("a.b = c", {"pass"}),
        ("a = c", set()),
        ("a += c", {"pass", "a -= c"}),
        ("def f(a: Literal[1] = 2): pass", {"def f(a: Literal[1] = 3): pass"}),
        ("if TYPE_CHECKING:\n    a = 1 < 2", set()),
        ("f'{a + 1}'", set()),
    ],
)
def test_a_module_is_changed_in_each_place_that_runs(source: str, expected: set[str]) -> None:
    """Not in what only types need, and not where no test could miss it."""
    assert changed(source) == expected


@in_a_checkout
def test_every_mutant_of_the_core_is_a_program() -> None:
    """In as many lines up to the change, and with tests that are there."""
    for file in ["tracker/outbox/store/gaps.py", "tracker/outbox/queue/batches.py"]:
        assert all((ROOT / test).exists() for test in fast_tests_of(file)), file
        source = (ROOT / file).read_text("utf-8")
        for mutant in draw([file], seed=1, count=20):
            text = mutant.apply(source)
            ast.parse(text)
            line = mutant.line - 1
            assert text.splitlines()[:line] == source.splitlines()[:line]


@in_a_checkout
def test_the_same_seed_draws_the_same_mutants() -> None:
    """So that a run can go on where it was ended."""
    modules = files(["tracker/delivery/sizing.py", "tracker/outbox/schema"])
    assert draw(modules, 1, 20) == draw(modules, 1, 20) != draw(modules, 2, 20)
