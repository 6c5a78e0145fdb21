"""The SDK's own keys are masked in every form that they may come back in."""

from __future__ import annotations

import base64
import html
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest

from tracker import APIConfig, log
from tracker.delivery.words import one_line
from tracker.redaction.lines import clean
from tracker.redaction.own_keys import know
from tracker.redaction.redactor import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = (
    "plainkey4711",
    "trk_aB3dE5gH7-kLm_2pQr",
    "we+ird/k=y\\\"&<'%#?",
    "0123456789abcdef" * 2,
    "onlyletterskey",
    "OnlyLettersOfBothCases",
    "_________",
)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "within a longer text": lambda key: f"x{key}y",
    "percent-encoded": lambda key: quote(key, safe=""),
    "percent-encoded in small letters": lambda key: (
        quote(key, safe="").lower() if key.islower() else quote_plus(key)
    ),
    "every character percent-encoded": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "percent-encoded twice": lambda key: quote(quote(key, safe=""), safe=""),
    "in JSON": json.dumps,
    "in JSON within JSON": lambda key: json.dumps(json.dumps(key)),
    "in JSON with every character escaped": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "in HTML": html.escape,
    "in Python": lambda key: repr(key.encode()),
    "in hexadecimal": lambda key: key.encode().hex(),
    "in hexadecimal capitals": lambda key: key.encode().hex().upper(),
    "base64": b64,
    "base64 of :key": lambda key: b64(f":{key}"),
    "base64 of u:key": lambda key: b64(f"u:{key}"),
    "base64 of us:key": lambda key: b64(f"us:{key}"),
    "base64 of key:": lambda key: b64(f"{key}:"),
    "base64 of user:key and more": lambda key: b64(f"user:{key} and more"),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(f"u:{key}".encode()).decode(),
    "base64 percent-encoded": lambda key: quote(b64(f"user:{key}"), safe=""),
    "base64 in JSON with slashes escaped": lambda key: b64(f"us:{key}").replace("/", "\\/"),
}


def config(**settings: Any) -> APIConfig:
    return APIConfig(**{"client_id": "c", "outbox_path": Path("o.sqlite3"), **settings})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("redaction", ["secrets", "off"])
def test_the_key_is_masked_in_any_form(form: str, key: str, redaction: str) -> None:
    """In an event, a log line and a server's words; what stands around it stays."""
    said = FORMS[form](key)
    apply = Redactor(config(api_key=key, redaction=redaction)).apply
    data = {"content": f"before {said} after", "metadata": {said: [said]}}
    clean_data, counts = apply("message.logged", data)
    shown = json.dumps(clean_data)
    assert counts["tracker_key"] == 3
    assert clean_data["content"].startswith("before ")
    assert clean_data["content"].endswith(" after")
    for text in (clean_data["content"], *clean_data["metadata"], one_line(said), clean(said)):
        assert "[secret:tracker_key:" in text
        assert said not in text
        left = text.replace("tracker_key", "")
        assert not any(said[at : at + 10] in left for at in range(len(said) - 9)), text
    assert said not in shown


def test_a_chain_key_is_masked_too() -> None:
    """As text, or as the hexadecimal or base64 form of its bytes."""
    key = bytes(range(150, 182))
    apply = Redactor(config(api_key="k", chain_key=key)).apply
    for said in (key.hex(), base64.b64encode(key).decode()):
        clean_data, counts = apply("message.logged", {"content": f"chain {said}"})
        assert clean_data["content"].startswith("chain [secret:chain_key:")
        assert counts == {"chain_key": 1}


@pytest.mark.parametrize("key", ["k", "test", "a-key", ""])
def test_a_short_key_masks_nothing(key: str) -> None:
    """It could be part of any word."""
    settings = config(api_key=key) if key else config(disabled=True)
    data = {"content": "take a test of a-key, OK?", "metadata": {"k": "test"}}
    assert Redactor(settings).apply("message.logged", data) == (data, {})


def test_an_event_without_the_key_is_left_alone() -> None:
    """Escapes and base64 of other things are no sign of it."""
    apply = Redactor(config(api_key="plainkey4711")).apply
    data = {"content": f"100 % of \\n {b64('u:plain-key' * 3)} %70%6Cain &amp; plain key 4711"}
    assert apply("message.logged", data) == (data, {})


def test_a_key_that_takes_the_place_of_another_is_masked_as_well() -> None:
    """By trackers that were made with the old one, too, and in log lines both."""
    old = Redactor(config(api_key="the-old-key-1"))
    Redactor(config(api_key="the-new-key-2"))
    data, _ = old.apply("message.logged", {"content": "the-old-key-1 and the-new-key-2"})
    assert data["content"] == "[secret:tracker_key:short] and [secret:tracker_key:short]"
    for _ in range(10):
        Redactor(config(api_key=f"another-key-{_}"))
    assert "old-key" not in old.apply("message.logged", {"content": "the-old-key-1"})[0]["content"]


def test_what_the_sdk_logs_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments and tracebacks, whoever's exception it was."""
    know("own-key-4711")
    with caplog.at_level(logging.DEBUG, logger="tracker"):
        try:
            raise ValueError("own-key-4711 and sk-proj-" + "aB3dE5gH" * 5)
        except ValueError as error:
            log.error("it failed: %s, %d times", error, 3, exc_info=True)
        log.info("connecting to %s", "postgres://app:s3cr/et@db/x?y=a@b")
    said, url = (record.getMessage() for record in caplog.records)
    assert said.startswith(
        "it failed: [secret:tracker_key:short] and [secret:openai_key:medium], 3 t"
    )
    assert "Traceback (most recent call last)" in said
    assert "own-key" not in caplog.text.replace('"own-key-4711 and', "").replace('("own-key', "")
    assert "s3cr" not in url
    assert "et@" not in url
