"""The chain keys that a command checks with: the configured one, and others from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker.cli.command import Place


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


def chain_keys(place: Place, files: Sequence[Path]) -> tuple[bytes, ...]:
    """Return the chain keys of the configuration and the files.

    Raises:
        ConfigurationError: if one is too short.
    """
    from tracker.config import check_chain_key
    from tracker.config.lookup import look_up

    given: list[tuple[str, str | bytes]] = []
    if configured := look_up(place.config, "chain_key")["chain_key"]:
        given.append(("chain_key (SDK_CHAIN_KEY)", configured))
    for file in files:
        content = file.read_bytes()
        try:  # text as in the variable: white space at the ends is ignored
            given.append((f"--chain-key-file {file}", content.decode()))
        except UnicodeDecodeError:
            given.append((f"--chain-key-file {file}", content))
    checked = (check_chain_key(name, key) for name, key in given)
    return tuple(key for key in checked if key is not None)
