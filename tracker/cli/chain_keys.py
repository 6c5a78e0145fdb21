"""The chain keys that a command checks with: from the environment and from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def key_files_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--chain-key-file`` to a command, as its argument `key_files`."""
    return click.option(
        "--chain-key-file",
        "key_files",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Another chain key besides SDK_CHAIN_KEY, such as a former one. Can be repeated.",
    )(command)


def chain_keys(files: Sequence[Path]) -> tuple[bytes, ...]:
    """Return the chain keys of the environment and the files.

    Raises:
        ConfigurationError: if one is too short.
    """
    from tracker.config import check_chain_key

    given: list[tuple[str, str | bytes]] = []
    if variable := os.environ.get("SDK_CHAIN_KEY"):
        given.append(("SDK_CHAIN_KEY", variable))
    for file in files:
        content = file.read_bytes()
        try:  # text as in the variable: white space at the ends is ignored
            given.append((f"--chain-key-file {file}", content.decode()))
        except UnicodeDecodeError:
            given.append((f"--chain-key-file {file}", content))
    checked = (check_chain_key(name, key) for name, key in given)
    return tuple(key for key in checked if key is not None)
