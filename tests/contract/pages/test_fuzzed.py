"""Whatever a query says, a page answers: never with an error of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings

from tests.support.queries import queries
from tracker.pages.routes import page_routes

if TYPE_CHECKING:
    from tests.support.dashboard import RunningDashboard

PATHS = sorted(
    {route.path for route in page_routes(None)} - {"/static/{file}", "/theme"}  # type: ignore[arg-type]  # it is only kept
    | {"/delivery", "/health", "/open", "/outboxes"}
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=queries(PATHS))
def test_no_query_makes_a_page_fail(
    board: RunningDashboard, asked: tuple[str, list[tuple[str, str]]]
) -> None:
    """Local pages: each route with any of the parameters that some route has."""
    path, query = asked
    answer = board.get(f"{path}?{urlencode(query, errors='surrogatepass')}")
    assert answer.status in {200, 303, 400, 403, 404}
    assert "Traceback" not in answer.text
