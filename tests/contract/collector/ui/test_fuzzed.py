"""Whatever a query says, a page of the collector answers: never with an error of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.collector.ui.conftest import said
from tests.support.queries import queries

if TYPE_CHECKING:
    from starlette.routing import Route

    from tests.support.collector import CollectorClient
    from tests.support.visitor import TeamVisitor


def test_no_query_makes_a_page_fail(
    routes: list[Route], operator: TeamVisitor, visitor: TeamVisitor, client: CollectorClient
) -> None:
    """Each route, for an operator with a client's name and for the client itself."""
    said(client, "order-7")
    paths = sorted(
        f"/ui{route.path}"
        for route in routes
        if "GET" in (route.methods or ()) and "{" not in route.path
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(asked=queries(paths), is_operator=st.booleans(), names=st.booleans())
    def each(asked: tuple[str, list[tuple[str, str]]], is_operator: bool, names: bool) -> None:
        path, query = asked
        query = [*query, ("client", client.client_id)] if names else query
        who = operator if is_operator else visitor
        answer = who.get(f"{path}?{urlencode(query, errors='surrogatepass')}")
        assert answer.status in {200, 303, 400, 403, 404}, (path, query, answer.text)
        assert "Traceback" not in answer.text

    each()
