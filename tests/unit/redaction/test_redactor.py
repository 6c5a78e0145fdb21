"""Redaction: what is found, what is left alone, what it costs, and the user's own functions."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import re
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conversations import all_calls, needs_data
from tests.unit.redaction.redaction_corpus import Sample, samples
from tracker import APIConfig, ConfigurationError
from tracker.redaction.redactor import FAILED, Redactor, redaction_kind
from tracker.redaction.rules import mask_of
from tracker.redaction.sizes import size

if TYPE_CHECKING:
    from collections.abc import Callable

OPENAI = "sk-proj-" + "aB3" * 20
GITHUB = "ghp_" + "aB3" * 12


def redactor(**settings: Any) -> Redactor:
    return Redactor(
        APIConfig(api_key="k", client_id="c", outbox_path=Path("o.sqlite3"), **settings)
    )


def masked(text: str, **settings: Any) -> tuple[str, dict[str, int]]:
    data, counts = redactor(**settings).apply("message.logged", {"content": text})
    return data["content"], counts


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- secrets ------------------------------------------------------------------------------------


def judge(sample: Sample) -> tuple[bool, int]:
    """Tell whether the secret was masked as what it is, and count the masks that were wrong."""
    text, counts = masked(sample.text)
    if sample.secret is None:
        return False, sum(counts.values())
    hit = sample.secret not in text and counts.get(sample.kind, 0) == 1
    return hit, sum(counts.values()) - hit


def test_recall_and_precision_on_the_corpus() -> None:
    """At least 0.98 each; a secret masked as another kind counts against both."""
    corpus = samples()
    judged = [(sample, *judge(sample)) for sample in corpus]
    secrets = sum(sample.secret is not None for sample in corpus)
    found = sum(hit for _, hit, _ in judged)
    wrong = sum(count for _, _, count in judged)
    recall, precision = found / secrets, found / (found + wrong)
    bad = [s for s, hit, count in judged if count or (s.secret is not None and not hit)]
    print(  # noqa: T201 - the figures, for `pytest -s`
        f"\n{secrets} secrets, {len(corpus) - secrets} look-alikes: "
        f"recall {recall:.4f}, precision {precision:.4f}"
    )
    assert len(corpus) >= 300
    assert recall >= 0.98, bad
    assert precision >= 0.98, bad


@pytest.mark.parametrize("sample", samples()[::16], ids=lambda sample: sample.kind)
def test_the_rest_of_the_text_stays(sample: Sample) -> None:
    """Only the secret gives way to its mask."""
    expected = sample.text
    if sample.secret is not None:
        expected = sample.text.replace(sample.secret, mask_of("secret", sample.kind, sample.secret))
    assert masked(sample.text)[0] == expected


@needs_data
def test_real_conversations_have_no_false_positive() -> None:
    """Nothing is masked in the recorded conversations, which hold no secret."""
    calls = all_calls()
    apply = redactor().apply
    data = [(call.type, call.expected_data) for call in calls]
    assert [d for type_, d in data if apply(type_, d)[1]] == []
    assert len(data) > 4_000


def test_of_a_connection_string_only_the_password_goes() -> None:
    """Who connects where remains readable, an at sign in the password notwithstanding."""
    text, counts = masked("use postgres://app:p@ss:w0rd@db.internal:5432/orders, mongodb://h/x")
    assert text == (
        "use postgres://app:[secret:connection_password:short]@db.internal:5432/orders, mongodb://h/x"
    )
    assert counts == {"connection_password": 1}


def test_a_secret_within_another_is_masked_once() -> None:
    """A JWT after Bearer and a token in a URL keep their own kind."""
    text, counts = masked(f"https://x-access-token:{GITHUB}@github.com/a/b")
    assert text == "https://x-access-token:[secret:github_token:medium]@github.com/a/b"
    assert counts == {"github_token": 1}


def test_every_place_is_reached() -> None:
    """Nested values, list items and keys; what is no text stays as it is."""
    data = {
        "name": "call",
        "arguments": {"deep": [{"k": (f"key {OPENAI}", 5, None)}], OPENAI: True, GITHUB: 1.5},
    }
    clean, _counts = redactor().apply("tool.called", data)
    assert clean == {
        "name": "call",
        "arguments": {
            "deep": [{"k": ["key [secret:openai_key:long]", 5, None]}],
            "[secret:openai_key:long]": True,
            "[secret:github_token:medium]": 1.5,
        },
        "redactions": {"github_token": 1, "openai_key": 2},
    }
    assert OPENAI in str(data), "the caller's own data is not changed"


def test_text_that_lies_about_its_length_is_masked_all_the_same() -> None:
    """A subclass of str may answer anything; what it holds is what would be stored."""

    class Liar(str):
        __slots__ = ()

        def __len__(self) -> int:
            return -1

    data = {"activity": "looked", "details": Liar(f"key {OPENAI}")}
    clean, _ = redactor().apply("agent.activity", data)
    assert clean["details"] == "key [secret:openai_key:long]"
    assert size(Liar("four")) == "[not captured: 4 characters]"


def test_keys_that_become_the_same_mask_stay_apart() -> None:
    """No value is lost because two keys were secrets of one kind."""
    other = OPENAI.replace("aB3", "dE5")
    clean, _ = redactor().apply("tool.called", {"arguments": {OPENAI: 1, other: 2}})
    assert clean["arguments"] == {
        "[secret:openai_key:long]": 1,
        "[secret:openai_key:long] (2)": 2,
    }


def test_a_key_is_the_context_of_its_value() -> None:
    """A bare value is a secret under a key that says so, and not under another."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzz1234abcd"
    clean, counts = redactor().apply(
        "conversation.started", {"metadata": {"secret_access_key": secret, "checksum": secret}}
    )
    assert clean["metadata"] == {
        "secret_access_key": "[secret:aws_secret_access_key:medium]",
        "checksum": secret,
    }
    assert counts == {"aws_secret_access_key": 1}


class Word(str, Enum):
    NAME = "secret_key"
    TEXT = "of plain_text and = signs"


def test_members_of_enums_count_as_their_text() -> None:
    """However Python's version formats them."""
    data = {"metadata": {Word.NAME: "Zz9/" * 10, "k": Word.TEXT}}
    clean, counts = redactor().apply("conversation.started", data)
    assert clean["metadata"] == {
        "secret_key": "[secret:aws_secret_access_key:medium]",
        "k": "of plain_text and = signs",
    }
    assert counts == {"aws_secret_access_key": 1}


def test_data_without_a_hit_is_returned_as_it_is() -> None:
    """Nothing is copied where nothing is masked."""
    data = {"content": "a plain text - with_signs: and = more", "metadata": {"a": [1]}}
    assert redactor().apply("message.logged", data)[0] is data


def test_names_of_a_free_events_fields_are_masked() -> None:
    """They are the caller's; a field named redactions keeps its value."""
    clean, _ = redactor().apply("cart.kept", {GITHUB: 1, "redactions": "mine"})
    assert clean == {
        "[secret:github_token:medium]": 1,
        "redactions": "mine",
        "tracker.redactions": {"github_token": 1},
    }


def test_off_masks_nothing() -> None:
    """The way out, for those who need the raw text."""
    assert masked(OPENAI, redaction="off") == (OPENAI, {})


HOSTILE = [
    "sk-", "sk-a", "sk-ant-", "sk-proj-a-", "AKIA", "eyJ", "eyJa.", "eyJhbGciOiJub25lIn0.a.", "://",
    "a://b:", "a://b:c", "@", "a@", "a.", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----aaaaaaaaaaaaaaaaaaaaaaaaaaaaa-", "-", "Bearer ", "Bearer a",
    "Basic a",
    "secret key = ", "secret_key=a", "password=a host=", "xoxb-1", "_aaaaaaaaaaaaaaaa", "SG.a", "1",
    "1 ", "1.", "1:", "a:", "+1", "(1", "GB82 WEST ", "DE89", "4111 ", "::1", "A", "é",
    "AccountKey=", "password=", "password=\\", "password='", 'password=\\"', "password: ",
    "token is ", "--token ", "a-", "a.password", "Cookie: ", "Authorization: a ", "<a b",
    "api key ", "[secret:", "curl -u a", "mysql -", "auth=('a',", "%5B",
    "password=,", "k9 ", "\\u0041", "%6B",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("redaction", ["secrets", "pii"])
def test_time_is_linear_in_the_length(piece: str, redaction: str) -> None:
    """Four times as much of the worst takes not much more than four times as long."""
    apply = redactor(redaction=redaction).apply

    def seconds(length: int) -> float:
        data = {"content": (piece * length)[:length]}
        began = time.thread_time()
        apply("message.logged", data)
        return time.thread_time() - began

    short, long = seconds(25_000), seconds(100_000)
    for _ in range(2):  # what else the machine does makes one slow now and then
        if long < min(1.5, 12 * short + 0.02):
            break
        long = min(long, seconds(100_000))
    assert long < 1.5
    assert long < 12 * short + 0.02


# --- personal data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("anna.müller+x@mail.example.co.uk", "email"),
        ("+1 (650) 253-0000", "phone"),
        ("+44 20 7946 0958", "phone"),
        ("650-253-0000", "phone"),
        ("(650) 253-0000", "phone"),
        ("4111 1111 1111 1111", "payment_card"),
        ("5555555555554444", "payment_card"),
        ("3782-822463-10005", "payment_card"),
        ("DE89 3704 0044 0532 0130 00", "iban"),
        ("GB82WEST12345698765432", "iban"),
        ("NO93 8601 1117 947", "iban"),
        ("536-90-4399", "us_ssn"),
        ("203.0.113.77", "ip_address"),
        ("2001:db8::8a2e:370:7334", "ip_address"),
    ],
)
def test_personal_data_is_masked_on_request(text: str, kind: str) -> None:
    """With pii only; in a sentence, and at its end."""
    said = f"It is {text} AND mine, {text}."
    assert masked(said) == (said, {})
    assert masked(said, redaction="pii") == (
        "It is {0} AND mine, {0}.".format(mask_of("pii", kind, text)),
        {kind: 2},
    )


@pytest.mark.parametrize(
    "text",
    [
        "order 4111 1111 1111 1112",
        "order 9780201379624000",
        "ISBN 978-0-201-37962-4",
        "IBAN DE89 3704 0044 0532 0130 01",
        "000-12-3456 and 666-12-3456",
        "version 1.2.3.4.5 or 300.1.1.1",
        "127.0.0.1 and 0.0.0.0 and ::1",
        "at 12:30:45 on 2026-11-23T02:53:50Z",
        "+1 111 111 1111",
        "user@localhost, @mention, a@b",
        "550e8400-e29b-41d4-a716-446655440000",
        "std::string and Foo::bar",
        "flight HAT039 for $1,234.56, 1790000000000 ms",
    ],
)
def test_what_only_looks_personal_is_left(text: str) -> None:
    """Check digits, numbering plans and address ranges decide, not the look."""
    assert masked(text, redaction="pii") == (text, {})


def test_what_follows_a_card_does_not_hide_it() -> None:
    """Its expiry date and security code stand beside it as a rule."""
    text, _ = masked("4242 4242 4242 4242 12/29 123", redaction="pii")
    assert text == "[pii:payment_card:medium] 12/29 123"


def test_pii_includes_secrets() -> None:
    """One setting more, not another."""
    text, counts = masked(f"{OPENAI} of anna@example.com", redaction="pii")
    assert text == "[secret:openai_key:long] of [pii:email:medium]"
    assert counts == {"openai_key": 1, "email": 1}


def test_pii_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the configuration is made, not when something is logged."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=re.escape("'agent-tracking-sdk[pii]'")):
        redactor(redaction="pii")
    redactor()


# --- the user's own -----------------------------------------------------------------------------


def hide_names(text: str) -> str:
    return text.replace("Anna", "[name]")


def test_own_functions_see_every_string_after_the_masks() -> None:
    """Values and keys, each counted where it changed."""
    seen: list[str] = []

    def look(text: str) -> str:
        seen.append(text)
        return hide_names(text)

    clean, counts = redactor(redactors=[look]).apply(
        "conversation.started", {"run_id": "r", "metadata": {"Anna": ["of Anna", OPENAI, 5]}}
    )
    assert clean["metadata"] == {"[name]": ["of [name]", "[secret:openai_key:long]", 5]}
    assert seen == ["r", "Anna", "of Anna", "[secret:openai_key:long]"]
    assert counts == {"openai_key": 1, "custom": 2}


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        ("[pii:badge_number:short]", "badge_number"),
        ("[secret:badge_number:short]", "custom"),
        ("[pii:badge_number]", "custom"),
    ],
)
def test_masks_of_ones_own_are_counted_by_kind(mask: str, kind: str) -> None:
    """Those for personal data, in the form that the built-in ones have; what stood there is not."""
    own = redactor(redactors=[lambda text: text.replace("B-1234", mask)])
    said = {"metadata": {"note": f"B-1234, {mask} and B-1234"}}
    clean, counts = own.apply("conversation.started", said)
    assert clean["metadata"]["note"] == f"{mask}, {mask} and {mask}"
    assert counts == {kind: 2 if kind != "custom" else 1}
    assert redaction_kind(counts)[0] == ("pii_detected" if kind != "custom" else "content_redacted")


@pytest.mark.parametrize(
    ("length", "word"), [(15, "short"), (16, "medium"), (63, "medium"), (64, "long")]
)
def test_a_mask_tells_the_length_class(length: int, word: str) -> None:
    """As the README says it."""
    assert mask_of("secret", "x", "s" * length) == f"[secret:x:{word}]"


def _raise(text: str) -> str:
    raise LookupError(f"cannot deal with {text}")


@pytest.mark.parametrize(
    ("function", "said"),
    [(_raise, "raised LookupError"), (len, "returned no text"), (lambda _: "\ud800", "raised Uni")],
)
def test_a_function_that_fails_leaks_nothing(
    function: Callable[[str], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The field says so, the log says it once and not what the text was."""
    with caplog.at_level(logging.DEBUG, logger="tracker"):
        own = redactor(redactors=[function])
        for _ in range(3):
            clean, counts = own.apply("message.logged", {"content": "Anna's text"})
    assert clean == {"content": FAILED, "redactions": {"redaction_failed": 1}}
    assert counts == {"redaction_failed": 1}
    assert len(caplog.records) == 1
    assert said in caplog.text
    assert "Anna" not in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"redaction": "all"},
        {"redactors": "x"},
        {"redactors": [5]},
        {"redactors": hide_names},
        {"capture_content": "perhaps"},
        {"report_redactions": None},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        redactor(**settings)


def test_a_configuration_with_functions_is_a_value() -> None:
    """Equal, hashable and picklable, as without them."""
    make: dict[str, Any] = {"api_key": "k", "client_id": "c", "outbox_path": Path("o.sqlite3")}
    one = APIConfig(**make, redactors=[hide_names])
    same = APIConfig(**make, redactors=(hide_names,))
    assert one == same
    assert hash(one) == hash(same)
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own
    assert one != APIConfig(**make)


# --- sizes in the place of content --------------------------------------------------------------


def test_without_content_only_sizes_are_stored() -> None:
    """What was said goes; roles, names, numbers and keys stay; hits are still counted."""
    own = redactor(capture_content=False)
    said = f"Hello {OPENAI}"
    assert own.apply(
        "message.logged",
        {"role": "user", "content": said, "tokens_used": 3, "metadata": {"a": "bcd", GITHUB: [1]}},
    )[0] == {
        "role": "user",
        "content": f"[not captured: {len(said)} characters]",
        "tokens_used": 3,
        "metadata": {
            "a": "[not captured: 3 characters]",
            "[secret:github_token:medium]": "[not captured: 1 items]",
        },
        "redactions": {"github_token": 1, "openai_key": 1},
    }
    assert own.apply("tool.called", {"name": "f", "arguments": {"x": 1}, "result": 12.5})[0] == {
        "name": "f",
        "arguments": "[not captured: 1 members]",
        "result": "[not captured: number]",
    }
    assert own.apply("cart.kept", {"note": "text", "ok": True})[0] == {
        "note": "[not captured: 4 characters]",
        "ok": True,
    }
    call = {"name": "f", "duration_ms": 1.5, "call_id": "c", "depth": 0, "error_type": "KeyError"}
    assert own.apply("function.observed", {**call, "arguments": {"a": 1}, "error": "oh"})[0] == {
        **call,
        "arguments": "[not captured: 1 members]",
        "error": "[not captured: 2 characters]",
    }
    line = {"level": "INFO", "logger": "app"}
    assert own.apply("log.recorded", {**line, "message": "sent"})[0] == {
        **line,
        "message": "[not captured: 4 characters]",
    }
    evidence = {"kind": "k", "severity": "low", "details": {"why": "because"}}
    assert own.apply("security.reported", evidence)[0] == evidence


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"jwt": 1, "email": 1}, ("secret_detected", "high")),
        ({"email": 1, "custom": 1}, ("pii_detected", "medium")),
        ({"custom": 1}, ("content_redacted", "low")),
    ],
)
def test_a_report_says_the_worst(counts: dict[str, int], expected: tuple[str, str]) -> None:
    """Secrets before personal data before what only the user's functions know."""
    assert redaction_kind(counts) == expected
