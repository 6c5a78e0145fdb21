"""Secrets that a name announces: what is masked, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.redaction.named_secrets_corpus import CASES, Case
from tests.unit.redaction.redaction_corpus import samples
from tracker import APIConfig, ConfigurationError
from tracker.redaction import assigned
from tracker.redaction.names import Names
from tracker.redaction.redactor import Redactor, redaction_kind


def redactor(**settings: Any) -> Redactor:
    return Redactor(
        APIConfig(api_key="k", client_id="c", outbox_path=Path("o.sqlite3"), **settings)
    )


APPLY = redactor().apply


def masked(value: object, **settings: Any) -> Any:
    apply = redactor(**settings).apply if settings else APPLY
    data, _ = apply("conversation.started", {"metadata": {"x": value}})
    return data["metadata"]["x"]


def judge(case: Case) -> tuple[int, int]:
    """Return how many secrets were found, and how many masks were wrong."""
    data, counts = APPLY("conversation.started", {"metadata": {"x": case.value}})
    shown = json.dumps(data["metadata"], ensure_ascii=False)
    found = sum(json.dumps(each, ensure_ascii=False)[1:-1] not in shown for each in case.secrets)
    # A mapping or list under a name that announces one is masked as a whole.
    more = not isinstance(case.value, str) and bool(case.secrets)
    return found, 0 if more else max(0, sum(counts.values()) - found)


def test_recall_and_precision_of_names() -> None:
    """At least 0.98 each, over these cases and over all that the tests have."""
    secrets = sum(len(case.secrets) for case in CASES)
    judged = [judge(case) for case in CASES]
    found, wrong = sum(hits for hits, _ in judged), sum(count for _, count in judged)
    bad = [
        case
        for case, (hits, count) in zip(CASES, judged, strict=True)
        if count or hits < len(case.secrets)
    ]
    print(  # noqa: T201 - the figures, for `pytest -s`
        f"\n{secrets} secrets, {sum(not case.secrets for case in CASES)} look-alikes: "
        f"recall {found / secrets:.4f}, precision {found / (found + wrong):.4f}"
    )
    assert secrets >= 150
    assert sum(not case.secrets for case in CASES) >= secrets
    assert found / secrets >= 0.98, bad
    assert found / (found + wrong) >= 0.98, bad
    for sample in samples():
        hits, count = judge(Case(sample.text, () if sample.secret is None else (sample.secret,)))
        secrets, found, wrong = secrets + (sample.secret is not None), found + hits, wrong + count
    assert found / secrets >= 0.98
    assert found / (found + wrong) >= 0.98


def test_the_mask_tells_the_name_and_all_else_stays() -> None:
    """Order, keys, other values, flags and None; whatever the depth."""
    value = {
        "user": "anna",
        "dbPassword": "hunter2",
        "enabled": True,
        "list": [{"deep": {"x": [("Authorization", "Key 0c3f9a77"), ("Accept", "*/*")]}}],
        "credentials": {"id": "u7", "valid": True, "expires": None, "uses": 3, "api_key": "k-1"},
        "token": 3,
        "last": "row",
    }
    shown = masked(value)
    assert shown == {
        "user": "anna",
        "dbPassword": "[secret:password]",
        "enabled": True,
        "list": [{"deep": {"x": [["Authorization", "[secret:authorization]"], ["Accept", "*/*"]]}}],
        "credentials": {
            "id": "[secret:credential]",
            "valid": True,
            "expires": None,
            "uses": 3,
            "api_key": "[secret:credential]",
        },
        "token": 3,
        "last": "row",
    }
    assert list(shown) == list(value)
    assert masked("GET /?api_key=0c3f9a&q=x") == "GET /?api_key=[secret:api_key]&q=x"
    assert masked("postgresql://app:s3/cr@et@db/x").endswith("@db/x")


def test_a_secret_that_is_known_keeps_its_kind() -> None:
    """A provider's key says more than the name above it."""
    key = "ghp_" + "aB3" * 12
    assert masked({"token": key}) == {"token": "[secret:github_token:medium]"}
    assert masked(f"TOKEN={key}") == "TOKEN=[secret:github_token:medium]"
    assert masked({"password": f"old {key}"}) == {"password": "[secret:password]"}


def test_what_is_masked_once_stays_as_it_is() -> None:
    """An event may be logged again from what was read."""
    for text in ("password: hunter2", "Authorization: Token 0c3f9a77", '{"api_key": "abc123"}'):
        once = masked(text)
        assert once != text
        assert masked(once) == once
    assert masked(masked({"password": "hunter2"})) == {"password": "[secret:password]"}


@pytest.mark.parametrize("value", [["a", "Zq0001kXWv7rT"], ["Zq0001kXWv7rT"]])
def test_a_list_under_a_name_is_masked_in_a_json_text_too(value: Any) -> None:
    """As it is where it stands in an event as such."""
    for text in (
        json.dumps({"n": 1, "password": value, "m": 2}),
        json.dumps(json.dumps({"password": value})),
    ):
        once = masked(text)
        assert "Zq0001kXWv7rT" not in once
        assert masked(once) == once


def test_fields_of_the_trackers_own_are_never_masked() -> None:
    """Their names are known not to announce one; those of free events may."""
    data = {"name": "f", "arguments": {"max_tokens": 9}, "call_id": "c"}
    assert APPLY("tool.called", data) == (data, {})
    usage = {"provider": "openai", "prompt_tokens": 900, "completion_tokens": 120}
    assert APPLY("llm.used", usage) == (usage, {})
    clean, counts = APPLY("user.signed_in", {"user": "anna", "password": "hunter2"})
    assert clean["password"] == "[secret:password]"
    assert counts == {"password": 1}
    assert redaction_kind(counts) == ("secret_detected", "high")


def test_names_of_ones_own() -> None:
    """More, as whole endings, and fewer."""
    own = {"secret_names": ["door code"], "not_secret_names": ["auth", "build_token"]}
    value = {"front.doorCode": "4711", "auth": "x9", "build_token": "b-1", "api_token": "a-1"}
    assert masked(value, **own) == {
        "front.doorCode": "4711",
        "auth": "x9",
        "build_token": "b-1",
        "api_token": "[secret:api_token]",
    }
    value["front.doorCode"] = "blue-4711"
    assert masked(value, **own)["front.doorCode"] == "[secret:door_code]"
    assert masked("door_code=blue-4711", **own) == "door_code=[secret:door_code]"
    assert redaction_kind({"door_code": 1}, frozenset({"door_code"}))[0] == "secret_detected"
    assert masked({"password": "hunter2"}, redaction="off") == {"password": "hunter2"}


@pytest.mark.parametrize("names", ["pin", [5], ["--"], None])
@pytest.mark.parametrize("setting", ["secret_names", "not_secret_names"])
def test_impossible_names_are_refused(setting: str, names: Any) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match=setting):
        redactor(**{setting: names})


def test_more_names_than_are_remembered_change_nothing() -> None:
    """What a program makes up as keys does not fill the memory."""
    names = Names()
    assert [names[f"k{number}_password"] for number in range(10_000)] == ["password"] * 10_000
    assert len(names) < 5_000
    assert names["x" * 1_000 + "_password"] is None


AROUND = (
    "{}",
    "Passengers have credit. {}",
    "x%5B{}",
    "{} …",
    "é {}",
    "(\\n{})",
    "a.{}",
    '{{"q": "{}"}}',
)


def test_no_text_with_a_secret_is_passed_over_for_want_of_a_name() -> None:
    """The first, cheap questions about a text must not say no where a rule finds something."""
    names = Names()
    found = 0
    for text in {each for case in CASES for each in texts_of(case.value)}:
        for shape in AROUND:
            shaped = shape.format(text)
            if assigned.hide(shaped, names, {}) != shaped:
                found += 1
                assert names.may_announce(shaped), shaped
                assert APPLY("message.logged", {"role": "user", "content": shaped})[1], shaped
    assert found > 500


@pytest.mark.parametrize(
    "text", ["machine host login anna password hushhush", "aws configure set secret hushhush"]
)
def test_a_command_reveals_a_secret_without_digit_or_sign(text: str) -> None:
    """Plain words are all that some commands consist of."""
    data, counts = APPLY("message.logged", {"role": "user", "content": text})
    assert counts == {"password": 1}
    assert data["content"].endswith(" [secret:password]")


@pytest.mark.parametrize(
    "text",
    ["Passenger 7 has credit: 3 bags.", "compass = north", "cookbook: soup", "keyboard=de"],
)
def test_words_that_only_look_like_names_cost_no_search(text: str) -> None:
    """As ``passenger`` does, which every message of an airline holds."""
    assert not Names().may_announce(text)


def texts_of(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items()
                for text in (f"{key}: {item}", f"{key}={item}", *texts_of(item))]  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [" ".join(map(str, value)), *(text for item in value for text in texts_of(item))]
    return []
