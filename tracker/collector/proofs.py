"""Routes that prove to somebody else what the collector has."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from fastapi import APIRouter, Request, Response

from tracker.collector.access import parts_of
from tracker.collector.models import ERRORS
from tracker.collector.refusal import RefusedError

public = APIRouter(tags=["evidence"])


@public.get(
    "/v1/witness-key",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 404: ERRORS[404]},
)
async def show_witness_key(request: Request) -> Response:
    """Answer with the public key that cosigns heads, as ``name+id+base64``."""
    witness = parts_of(request).store.witness
    if witness is None:
        raise RefusedError(404, "not_found", "This collector cosigns nothing.")
    return Response(f"{witness.key}\n", media_type="text/plain")
