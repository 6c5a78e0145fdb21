"""Help texts are docstrings; under ``python -OO``, which drops them, they are read from source."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def docstring(function: Callable[..., Any] | None) -> str | None:
    """Return a function's docstring, read from its source if the interpreter has dropped it.

    Return None if there is neither a docstring nor a source.
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
