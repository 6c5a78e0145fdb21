"""Forms that were sent: small, and only from a page of this site."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

    from tracker.pages.site import Site

_MOST_BYTES = 16_384
_SECONDS = 10.0
"""How long a form may take to arrive: nobody has to be signed in to send one."""


async def fields(request: Request) -> dict[str, str]:
    """Return the fields of a form, the last one of each name.

    Raises:
        HTTPException: if it is too large, not text, or does not arrive.
    """
    try:
        body = await asyncio.wait_for(_body(request), _SECONDS)
    except asyncio.TimeoutError as error:
        raise HTTPException(408, "This form did not arrive.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "This form did not arrive.") from error
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=50))
    except ValueError as error:
        raise HTTPException(400, "This is not a form of this site.") from error


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, "This form is too large.")
    return body


async def posted(request: Request, site: Site) -> dict[str, str]:
    """Return the fields of a form that carries this visitor's CSRF value.

    Raises:
        HTTPException: if it does not.
    """
    form = await fields(request)
    wanted = site.csrf(request)
    if not wanted or not hmac.compare_digest(wanted.encode(), form.get("csrf", "").encode()):
        raise HTTPException(403, "This form is not from a page of this session. Reload the page.")
    return form
