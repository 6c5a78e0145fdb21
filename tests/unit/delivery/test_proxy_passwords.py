"""No message shows a proxy's password, however its URL is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker import APIConfig
from tracker.delivery.proxies import without_passwords
from tracker.sync.destination import Outcome, Upload
from tracker.sync.http import HTTPDestination

if TYPE_CHECKING:
    from pathlib import Path

PROXIES = ["http://user:hunt%40er42@127.0.0.1:9", None, "http://us:ab@127.0.0.1:9"]
UPLOAD = Upload(["e"], [b"{}"])
FORMS = (
    "http://user:hunter42@127.0.0.1:9",
    "http://user:hun%2Fter42@127.0.0.1:9",
    "http://user:hun/ter42@127.0.0.1:9",
    "http://user:/hunter42@127.0.0.1:9",
    "http://us/er:hunter42@127.0.0.1:9",
    "http://user:hun?ter42@127.0.0.1:9",
    "http://user:hun#ter42@127.0.0.1:9",
    "http://user:hun@ter42@127.0.0.1:9",
    "http://user:hun:ter42@127.0.0.1:9",
    "http://user:hun ter42@127.0.0.1:9",
    "http://user:hun[ter42@127.0.0.1:9",
    "http://user:hun]ter42@127.0.0.1:9",
    "http://user:hun\\ter42@127.0.0.1:9",
    "http://user:hun%zzter42@127.0.0.1:9",
    "http://user:80/ter42@127.0.0.1:9",
    "http://user:hunter42@127.0.0.1:port",
    "http://user:hunter42@127.0.0.1:99999",
    "http://user:hunter42@",
    "http://user:hunter42@[::1",
    "http:/user:hunter42@127.0.0.1:9",
    "user:hunter42@127.0.0.1:9",
    "user:hun/ter42@127.0.0.1:9",
    "user:80/ter42@127.0.0.1:9",
    "htp://user:hunter42@127.0.0.1:9",
    "socks5h://user:hunter42@127.0.0.1:9",
    "https://user:hunter42@127.0.0.1:9",
    "http://hunter42@127.0.0.1:9",
    "http://user:hunt\u00e9r42@127.0.0.1:9",
)


@pytest.mark.parametrize("where", ["argument", "environment"])
@pytest.mark.parametrize("url", FORMS)
def test_no_part_of_the_password_is_told(
    url: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the proxy is named in the settings or the environment; the cause is told."""
    for variable in (
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ):
        monkeypatch.delenv(variable, raising=False)
    proxies = None
    if where == "argument":
        proxies = {"https": url}
    else:
        monkeypatch.setenv("HTTPS_PROXY", url)
    config = APIConfig(
        api_key="k", client_id="c", base_url="https://collector.invalid", proxies=proxies,
        outbox_path=tmp_path / "o.sqlite3", connect_timeout=2,
    )  # fmt: skip
    delivery = HTTPDestination(config, "outbox").send(UPLOAD)
    assert delivery.outcome is Outcome.UNAVAILABLE
    said = delivery.cause
    for part in ("hunt", "ter42", "hun/", "'hun", "hun%"):
        assert part not in said.lower(), said
    assert said.startswith("no answer from the server: ")


@pytest.mark.parametrize("shown", ["hunt@er42", "hunt%40er42", "user:hunt@er42", "us:ab"])
def test_a_password_is_not_told_by_itself_either(shown: str) -> None:
    """Libraries show any part of a URL, as it was written or decoded."""
    told = without_passwords(f"label {shown!r} is no port", PROXIES)
    assert told == "label '[secret:proxy_password]' is no port"


def test_a_password_of_two_letters_does_not_mask_every_text() -> None:
    """It would be in most words, and nobody could read why an upload failed."""
    assert without_passwords("unable to abort", PROXIES) == "unable to abort"
