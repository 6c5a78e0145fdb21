"""Help texts are docstrings, which ``python -OO`` drops; here they are found again."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def docstring(function: Callable[..., Any] | None) -> str | None:
    """Return a function's docstring, from its source where the interpreter has dropped it.

    None if there is none, or no source either.
    """
    if function is None or function.__doc__ or sys.flags.optimize < 2:
        return None if function is None else function.__doc__
    name = inspect.unwrap(function).__name__
    try:
        source = inspect.getsource(sys.modules[function.__module__])
    except OSError:
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node)
    return None
