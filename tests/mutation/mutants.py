"""Mutants of a module: places where its source can be changed a little, and the changed source."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change to one place of a file.

    Attributes:
        file: The file, relative to the repository.
        line: The line of the place, from 1.
        column: Its column in bytes, from 0.
        kind: What kind of change it is.
        before: The source of the place.
        after: What stands there instead.
        digest: Of the file's source, so that a result is not taken for one of later code.
    """

    file: str
    line: int
    column: int
    kind: str
    before: str
    after: str
    digest: str

    @property
    def id(self) -> str:
        """What a result is kept under."""
        return f"{self.digest}:{self}"

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.file}:{self.line}:{self.column}: {self.kind}: {before} → {after}"

    def apply(self, source: str) -> str:
        """Return the file's source with the change; line numbers before it stay."""
        data = source.encode()
        lines = data.splitlines(keepends=True)
        begin = sum(map(len, lines[: self.line - 1])) + self.column
        end = begin + len(self.before.encode())
        assert data[begin:end].decode() == self.before
        return (data[:begin] + self.after.encode() + data[end:]).decode()


def mutants(file: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its source."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    lines = source.encode().splitlines(keepends=True)
    found = []
    for node, kind, after in _changes(ast.parse(source)):
        before = _segment(lines, node)
        if after != before:
            found.append(Mutant(file, node.lineno, node.col_offset, kind, before, after, digest))
    return sorted(found, key=lambda one: (one.line, one.column, one.kind))


def _segment(lines: list[bytes], node: ast.expr | ast.stmt) -> str:
    """Return the source of a node; `ast.get_source_segment` splits all of it at each call."""
    assert node.end_lineno is not None
    own = lines[node.lineno - 1 : node.end_lineno]
    own[-1] = own[-1][: node.end_col_offset]
    own[0] = own[0][node.col_offset :]
    return b"".join(own).decode()


_Change = tuple[ast.expr | ast.stmt, str, str]


def _changes(tree: ast.AST) -> Iterator[_Change]:
    """Yield what can stand in place of which node, of all that runs."""
    for node in ast.iter_child_nodes(tree):
        if _is_for_types_alone(node):
            continue
        if isinstance(node, ast.expr):
            yield from _of_expression(node)
        elif isinstance(node, ast.stmt):
            yield from _of_statement(node)
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from _changes(ast.Expression(node.value))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                yield from _changes(ast.Expression(part))
            yield from _changes(ast.Module(node.body, []))
        elif not isinstance(node, ast.JoinedStr):  # its parts have no source of their own
            yield from _changes(node)


def _is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _of_expression(node: ast.expr) -> Iterator[_Change]:
    if isinstance(node, ast.Compare):
        first, *others = node.ops
        changed = ast.Compare(node.left, [_COMPARISONS[type(first)](), *others], node.comparators)
        yield node, "comparison", f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, "boolean", f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, "boolean", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        changed_op = _ARITHMETIC[type(node.op)]()
        yield node, "arithmetic", f"({ast.unparse(ast.BinOp(node.left, changed_op, node.right))})"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, "constant", repr(not node.value)
        elif isinstance(node.value, (int, float)):
            yield node, "constant", repr(node.value + 1)


def _of_statement(node: ast.stmt) -> Iterator[_Change]:
    if isinstance(node, (ast.If, ast.While)) and not _turned_round_already(node.test):
        yield node.test, "boolean", f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Return) and node.value is not None:
        yield node, "return", "return None"
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        changed = ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
        yield node, "arithmetic", ast.unparse(changed)
    elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await)):
        yield node, "removed call", "pass"
    if isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise, ast.Break)) or (
        # Without the first assignment to a name, any test ends in a NameError.
        isinstance(node, ast.Assign)
        and all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    ):
        yield node, "removed statement", "pass"


def _turned_round_already(test: ast.expr) -> bool:
    """Return True if another mutant of a condition is its opposite, or if it has none."""
    opposite = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
    return (
        isinstance(test, ast.Constant)
        or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))
        or (isinstance(test, ast.Compare) and isinstance(test.ops[0], opposite))
    )
