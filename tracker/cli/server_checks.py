"""The checks of ``tracker-sync doctor`` of the clock and of the server."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tracker.cli.check import OK, PROBLEM, WARNING, Check
from tracker.cli.context import (
    opened_to_read,
)
from tracker.cli.output import duration, moment
from tracker.config import APIConfig, is_loopback

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.cli.context import Target

_YEARS = range(2024, 2100)
_MOST_SKEW_SECONDS = 120
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0


def server_clock(config: APIConfig) -> datetime | None:
    """Return the server's time, from the ``Date`` of any answer to a request without a key."""
    import requests

    from tracker.delivery.transport import Adapter

    with requests.Session() as session:
        # As for uploads: no proxy is used for a server on this machine.
        session.trust_env = not is_loopback(urlsplit(config.base_url).hostname or "")
        session.mount("https://", Adapter(config.ca_bundle))
        try:
            with session.get(
                f"{config.base_url}/v1/ping",
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                proxies=_proxies(config),
                allow_redirects=False,
                stream=True,
            ) as answer:
                said = parsedate_to_datetime(answer.headers.get("date", ""))
        except (requests.RequestException, TypeError, ValueError, IndexError, OverflowError):
            return None
    return said if said.tzinfo else None


def clock(server: datetime | None) -> Check:
    """Check the clock, by that of the server if it answered."""
    now = time.time()
    shown = moment(int(now * 1000))
    action = "set the clock (NTP); logged events keep their time"
    if time.gmtime(now).tm_year not in _YEARS:
        return Check("clock", PROBLEM, f"{shown} cannot be right", action)
    if server is None:
        return Check("clock", OK, f"{shown}, not compared with the server's")
    skew = now - server.timestamp()
    if abs(skew) > _MOST_SKEW_SECONDS:
        relation = "ahead of" if skew > 0 else "behind"
        return Check(
            "clock", WARNING, f"{shown}, {duration(abs(skew))} {relation} the server's", action
        )
    return Check("clock", OK, f"{shown}, like the server's")


def server(target: Target, config: APIConfig) -> list[Check]:
    """Check that the server answers and accepts the key."""
    if config.protocol == "otlp":
        return [_receiver(target, config)]
    from tracker.sync.destination import Outcome
    from tracker.sync.http import HTTPDestination

    destination = HTTPDestination(config, "")
    try:
        answer = destination.ping()
    finally:
        destination.close()
    reachable = Check("server", OK, f"{config.base_url} answers")
    if answer.outcome is Outcome.DELIVERED:
        return [reachable, Check("key accepted", OK, f"for client {config.client_id}")]
    if answer.outcome is not Outcome.REFUSED:
        return [
            Check(
                "server",
                PROBLEM,
                f"{config.base_url}: {answer.cause}",
                "check SDK_BASE_URL, the network and the server; events are kept in the outbox",
            )
        ]
    if not target.settled:
        return [
            reachable,
            Check(
                "key accepted",
                WARNING,
                "unknown: no client id was made yet",
                "set SDK_CLIENT_ID to the client id of the key",
            ),
        ]
    return [
        reachable,
        Check(
            "key accepted",
            PROBLEM,
            answer.cause,
            f"set SDK_API_KEY to a key for client {config.client_id}: "
            f"`tracker-collector keys create --client {config.client_id}`",
        ),
    ]


def _receiver(target: Target, config: APIConfig) -> Check:
    """Check that an OTLP receiver accepts the span that uploads try it with, too."""
    from tracker.cli.command import extra
    from tracker.outbox import Earlier
    from tracker.sync.destination import Outcome

    if not target.exists:
        return Check("receiver", OK, f"{config.base_url}: not tried, since there is no outbox yet")
    with extra("otel"):
        from tracker.sync.otlp import OTLPDestination
    with opened_to_read(target) as outbox:
        owner = outbox.owner
        destination = OTLPDestination(
            config, owner.outbox_id, owner.created_at_ms, Earlier(outbox.snapshot)
        )
        try:
            answer = destination.ping()
        finally:
            destination.close()
    if answer.outcome is Outcome.DELIVERED:
        said = f"{config.base_url} accepts spans (the span tracker.connected was sent)"
        return Check("receiver", OK, said)
    return Check(
        "receiver",
        PROBLEM,
        f"{config.base_url}: {answer.cause}",
        "check SDK_BASE_URL, otlp_headers, the network and the receiver; events are kept in the "
        "outbox",
    )


def _proxies(config: APIConfig) -> dict[str, Any] | None:
    """Return the configured proxies, so that those of the environment count no more; or None."""
    if config.proxies is None:
        return None
    return {"http": None, "https": None, "all": None, **config.proxies}
