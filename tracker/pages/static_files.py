"""The style sheet, the script and the icon, under names that change with their content."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
NAMES = ("app.css", "app.js", "icon.svg")
_FOREVER = "public, max-age=31536000, immutable"
_FOLDER = files("tracker.pages") / "static"
_CONTENT = {name: (_FOLDER / name).read_bytes() for name in NAMES}


def _hashed(name: str) -> str:
    stem, _, kind = name.partition(".")
    return f"{stem}.{hashlib.sha256(_CONTENT[name]).hexdigest()[:12]}.{kind}"


HASHED = {name: _hashed(name) for name in NAMES}
"""The name of each file in an address, by its own."""
_BY_ADDRESS = {address: name for name, address in HASHED.items()}


def serve(request: Request) -> Response:
    """Answer with a file; the browser never asks for it again.

    Raises:
        HTTPException: if there is none of that name.
    """
    name = _BY_ADDRESS.get(request.path_params["file"])
    if name is None:
        raise HTTPException(404, "There is no such file.")
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(_CONTENT[name], media_type=kind, headers={"Cache-Control": _FOREVER})
