"""The adapter for Microsoft Presidio, with the real thing, by patterns: no language model."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tracker import APIConfig
from tracker.redaction.redactor import Redactor, redaction_kind

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip(
    "presidio_analyzer",
    reason="Presidio is not installed; it is large: pip install 'agent-tracking-sdk[presidio]'",
    exc_type=ImportError,
)

from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine

from tracker.redaction.presidio import PresidioRedactor

KEY = "sk-proj-" + "aB3" * 20


@pytest.fixture(scope="module")
def presidio() -> PresidioRedactor:
    return PresidioRedactor(entities=["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS"])


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("redaction must not use the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_what_it_finds_is_masked_and_counted_by_kind(presidio: PresidioRedactor) -> None:
    """As the built-in rules do it: values, keys, and a report that says personal data."""
    config = APIConfig(api_key="k", client_id="c", redactors=[presidio])
    said = "Write to anna@example.com or bo@example.org, card 4242 4242 4242 4242."
    clean, counts = Redactor(config).apply("cart.sent", {"note": said, "by": {"x@example.com": 1}})
    assert clean["note"] == (
        "Write to [pii:email_address:medium] or [pii:email_address:short], "
        "card [pii:credit_card:medium]."
    )
    assert clean["by"] == {"[pii:email_address:short]": 1}
    assert counts == {"email_address": 3, "credit_card": 1}
    assert clean["redactions"] == counts
    assert redaction_kind(counts) == ("pii_detected", "medium")


def test_masks_that_stand_already_are_left_alone() -> None:
    """Those of the built-in rules, which run first, whatever a recogniser finds in them."""
    config = APIConfig(api_key="k", client_id="c", redactors=[PresidioRedactor()])
    greedy = PresidioRedactor(own_analyzer(0.9, r"[a-z]{6}"), language="de")
    assert greedy("[secret:openai_key:long] openai") == (
        "[secret:openai_key:long] [pii:badge_number:short]"
    )
    clean, counts = Redactor(config).apply("cart.sent", {"note": f"{KEY} of anna@example.com"})
    assert clean["note"] == "[secret:openai_key:long] of [pii:email_address:medium]"
    assert counts == {"openai_key": 1, "email_address": 1}


@pytest.mark.parametrize("text", ["", "nothing to see", "4242 4242 4242 4241", "a@b", "🙂" * 50])
def test_numbers_with_wrong_check_digits_are_no_personal_data(
    presidio: PresidioRedactor, text: str
) -> None:
    """Check digits and domains decide."""
    assert presidio(text) == text


def own_analyzer(score: float, pattern: str = r"\bB-\d{4}\b") -> AnalyzerEngine:
    registry = RecognizerRegistry(supported_languages=["de"])
    badge = Pattern("badge", pattern, score)
    registry.add_recognizer(
        PatternRecognizer("BADGE_NUMBER", patterns=[badge], supported_language="de")
    )
    engine = NoOpNlpEngine([{"lang_code": "de", "model_name": "none"}])
    return AnalyzerEngine(registry, engine, supported_languages=["de"])


@pytest.mark.parametrize(
    ("score", "options", "expected"),
    [
        (0.9, {}, "Ausweis [pii:badge_number:short] 🙂"),
        (0.3, {}, "Ausweis B-1234 🙂"),
        (0.3, {"score_threshold": 0.2}, "Ausweis [pii:badge_number:short] 🙂"),
    ],
)
def test_an_analyzer_of_ones_own(score: float, options: dict[str, Any], expected: str) -> None:
    """With recognisers, a language and a threshold of one's own."""
    redact: Callable[[str], str] = PresidioRedactor(own_analyzer(score), language="de", **options)
    assert redact("Ausweis B-1234 🙂") == expected
