"""The query arguments by which every route that lists or sums events is filtered."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from typing import Annotated

from fastapi import Depends, Query

from tracker.collector.access import Identifier
from tracker.queries.filters import Filters

_MAX_INTEGER = 2**63 - 1
_MAX_TAGS = 20

Moment = Annotated[int | None, Query(ge=0, le=_MAX_INTEGER, description="Unix milliseconds.")]
Tag = Annotated[str, Query(pattern=r"^[^=\x00]+=[^\x00]*$")]


def _filters(
    since: Moment = None,
    until: Moment = None,
    agent_id: Identifier | None = None,
    user_id: Identifier | None = None,
    session_id: Identifier | None = None,
    run_id: Identifier | None = None,
    type: Annotated[
        Identifier | None, Query(description="A type, or its beginning as in `llm.*`.")
    ] = None,
    environment: Identifier | None = None,
    release: Identifier | None = None,
    tag: Annotated[
        tuple[Tag, ...], Query(max_length=_MAX_TAGS, description="As in `site=oslo`; repeatable.")
    ] = (),
) -> Filters:
    tags = tuple((name, value) for name, _, value in (given.partition("=") for given in tag))
    return Filters(
        since, until, agent_id, user_id, session_id, run_id, type, environment, release, tags
    )


Filtered = Annotated[Filters, Depends(_filters)]
