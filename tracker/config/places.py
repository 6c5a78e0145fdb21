"""The files and names in a configuration: the outbox, its client id, a CA bundle."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.config.kinds import Kind
from tracker.errors import ConfigurationError, ValidationError
from tracker.validation import check_id

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_NAME = 255 - 40
"""Longest file name of an outbox in bytes: file systems allow 255, and files beside it add 40."""
_LONGEST_PATH = 512 - 40
"""Longest path of an outbox in bytes: SQLite allows 512 (``MAX_PATHNAME`` in its os_unix.c)."""


def path(check: Callable[[str, Any], Path | None] | None = None) -> Kind:
    """Return the kind of a path; in a configuration file, a relative one starts at its folder."""

    def from_file(value: object, folder: Path) -> object:
        # What is empty, or begins with the home folder of somebody, is for `check`.
        relative = isinstance(value, str) and value and not value.startswith("~")
        return str(folder / value) if relative else value  # type: ignore[operator]  # it is a str

    return Kind(check or check_path, from_file=from_file)


def check_outbox_path(name: str, value: object) -> Path | None:
    """Return the path of an outbox with the home folder in place of a ``~``; None if not given.

    Raises:
        ConfigurationError: if it cannot be that of a file.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a path")
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        raise ConfigurationError(f"{name} must be text without NUL")
    if text.startswith((":memory:", "file:")):
        raise ConfigurationError(f"{name} is {text!r}; give the path of a file on a disk")
    if not Path(text).name:
        raise ConfigurationError(f"{name} is {text!r}, which names no file; give the path of one")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"{name} is {text!r}, and there is no such user: {error}"
        ) from None


def check_length(name: str, path: Path) -> None:
    """Refuse a path that leaves no room for the names of the files beside the outbox.

    Raises:
        ConfigurationError: if it is too long.
    """
    last, whole = len(os.fsencode(path.name)), len(os.fsencode(path))
    if last > _LONGEST_NAME or whole > _LONGEST_PATH:
        raise ConfigurationError(
            f"{name} is too long: {whole} bytes, {last} of them the file's "
            f"name. Give at most {_LONGEST_PATH} bytes, {_LONGEST_NAME} of them for the name: "
            "files beside the outbox have longer names"
        )


def file_name(base_url: str, client_id: str) -> str:
    """Return the name of the outbox of a client of a collector."""
    import hashlib  # only where no path is given

    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", client_id)[:40].strip(".-") or "outbox"
    unique = hashlib.sha256(f"{base_url}\0{client_id}".encode()).hexdigest()[:12]
    return f"{readable}-{unique}.sqlite3"


def check_client_id(name: str, value: object) -> str | None:
    """Return the client id; None if it is not given.

    Raises:
        ConfigurationError: if an HTTP header cannot carry it, or it is too long.
    """
    if value is None:
        return None
    try:
        text = check_id(name, value)
    except ValidationError as error:
        raise ConfigurationError(str(error)) from None
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ConfigurationError(
            f"{name} is {text!r}; give printable ASCII characters without "
            "white space at the ends: it travels in an HTTP header"
        )
    return text


def check_path(name: str, value: object) -> Path | None:
    """Return an absolute path, whether there is such a file or not; None if it is not given.

    Raises:
        ConfigurationError: if it is no path.
    """
    if value is None:
        return None
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError(f"{name} is {value!r}; give the path of a file")
    return Path(absolute(name, os.path.expanduser(text)))  # noqa: PTH111 - a Path raises


def absolute(name: str, path: str, make: Callable[[str], str] = os.path.abspath) -> str:
    """Return `path` as `make` makes it absolute.

    Raises:
        ConfigurationError: if it is relative and the current folder was deleted.
    """
    try:
        return make(path)
    except OSError as error:
        raise ConfigurationError(
            f"{name} is {path!r}, and the current folder does not exist; give an absolute path"
        ) from error


def check_ca_bundle(name: str, value: object) -> Path | None:
    """Return the absolute path of a file of CA certificates; None if it is not given.

    Raises:
        ConfigurationError: if there is none, or no certificate in it.
    """
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str):
        path = absolute(name, os.path.expanduser(path))  # noqa: PTH111 - a Path raises
    # os.path returns False where a Path raises: for a NUL or a name that is too long.
    if not isinstance(path, str) or not os.path.isfile(path):  # noqa: PTH113
        raise ConfigurationError(f"{name} is {value!r}; give the path of a PEM file")
    import ssl  # seldom needed here, and slow to load

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigurationError(
            f"{name} {path!r} holds no readable PEM certificates: {error}"
        ) from error
    return Path(path)
