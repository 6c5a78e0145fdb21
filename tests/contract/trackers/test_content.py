"""What is stored of messages whose content is a list of parts, as the model APIs have it."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.recorded import Recorded
from tracker import ValidationError

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
TEXT = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{TEXT}"
SEALED = {"bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
IMAGE = {"type": "image", "media_type": "image/png", **SEALED}
PDF = {"type": "file", "media_type": "application/pdf", **SEALED}


def kept(recorded: Recorded, part: Any) -> Any:
    """Return what is stored of a part that stands beside a text."""
    recorded.tracker.log_message("s", "user", ["see:", part])
    first, second = recorded.events[-1]["data"]["content"]
    assert first == {"type": "text", "text": "see:"}
    return second


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL, "detail": "auto"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "data": TEXT, "mimeType": "image/png"},
    ],
    ids=["chat", "chat, short", "responses", "anthropic", "raw bytes", "mcp"],
)
def test_an_image_leaves_its_size_and_hash(recorded: Recorded, part: Any) -> None:
    """In whatever shape its bytes came; they are nowhere in the event."""
    assert kept(recorded, part) == IMAGE
    assert TEXT[:40] not in str(recorded.events)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        (f"DATA:image/png;BASE64,{TEXT}", True),
        (f" data:image/png; base64,{TEXT}", True),
        (f"data:image/png;base64,{TEXT.replace('=', '%3D')}", True),
        (f"data:image/png;base64,{TEXT[:-1]}\0!", False),
        (f"data:{TEXT}", False),
    ],
    ids=["capitals", "spaces", "escaped", "damaged", "cut"],
)
def test_bytes_of_an_odd_data_url_are_not_stored_either(
    recorded: Recorded, url: str, whole: bool
) -> None:
    """Where they cannot be read, size and hash are those of the text in their place."""
    image = kept(recorded, {"type": "image_url", "image_url": {"url": url}})
    assert image.keys() == IMAGE.keys()
    assert (image == IMAGE) == whole
    if whole:
        assert kept(recorded, {"type": "note", "of": [url]})["of"] == [{**IMAGE, "type": "file"}]
    assert TEXT[:40] not in str(recorded.events)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "input_audio", "input_audio": {"data": TEXT, "format": "wav"}},
            {"type": "audio", "media_type": "audio/wav", **SEALED},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": TEXT}},
            {**PDF, "name": "a.pdf"},
        ),
        (
            {"type": "input_file", "file_data": f"data:application/pdf;base64,{TEXT}"},
            PDF,
        ),
        (
            {
                "type": "document",
                "title": "Terms",
                "source": {"type": "base64", "media_type": "application/pdf", "data": TEXT},
            },
            {**PDF, "name": "Terms"},
        ),
        (
            {"type": "document", "source": {"type": "text", "data": "All of it."}},
            {"type": "file", "media_type": "text/plain", "text": "All of it."},
        ),
        ({"type": "input_image", "file_id": "file-1"}, {"type": "image", "file_id": "file-1"}),
        (
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            {"type": "image", "url": "https://example.org/a.png"},
        ),
        (PNG, {"type": "file", "media_type": "application/octet-stream", **SEALED}),
    ],
    ids=["audio", "file", "input_file", "document", "text", "file id", "url", "bytes"],
)
def test_other_media_leave_what_names_them(recorded: Recorded, part: Any, expected: Any) -> None:
    """Sounds and files as images; what only a URL, an id or a text says is kept."""
    assert kept(recorded, part) == expected


def test_calls_and_results_of_tools_are_kept_as_json(recorded: Recorded) -> None:
    """Without what only steers the provider's cache, and without the bytes in a result."""
    call = {"type": "tool_use", "id": "t1", "name": "find", "input": {"id": 7, "then": None}}
    assert kept(recorded, {**call, "cache_control": {"type": "ephemeral"}}) == call
    picture = {"type": "image_url", "image_url": {"url": URL}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [picture]}
    assert kept(recorded, result) == {**result, "content": [IMAGE]}


def test_one_text_is_a_text(recorded: Recorded) -> None:
    """However it is wrapped: as a part of either API, or as an object of an SDK."""

    class Block:
        def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
            assert exclude_none, "what the API did not send is no part of it"
            return {"type": "output_text", "text": "Hello!", "annotations": []}

    for content in (
        "Hello!",
        [{"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}}],
        ({"type": "input_text", "text": "Hello!"},),
        [Block()],
    ):
        recorded.tracker.log_message("s", "user", content)
    assert [event["data"]["content"] for event in recorded.events] == ["Hello!"] * 4


def test_roles_of_the_model_apis_are_ours(recorded: Recorded) -> None:
    """So that every reader knows four roles, whoever logged."""
    with recorded.tracker.conversation("a") as c:
        for role in ("assistant", "developer", "function", "agent", "user", "tool", "system"):
            recorded.tracker.log_message(role=role, content="x")
        c.agent([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    roles = [e["data"]["role"] for e in recorded.events if e["type"] == "message.logged"]
    assert roles == ["agent", "system", "tool", "agent", "user", "tool", "system", "agent"]


def test_a_url_is_masked_as_any_text(recorded: Recorded) -> None:
    """Its password is a secret like others."""
    url = "https://kiosk:hunter2-hunter2@example.org/a.png"
    shown = kept(recorded, {"type": "image_url", "image_url": {"url": url}})["url"]
    assert "hunter2" not in shown
    assert shown.endswith("@example.org/a.png")


def test_without_content_only_the_number_of_parts_is_stored(config: MakeConfig) -> None:
    """Neither their texts nor their hashes."""
    recorded = Recorded(config(capture_content=False))
    with recorded.tracker as tracker:
        tracker.log_message("s", "user", [{"type": "text", "text": "secret"}, PNG])
        assert recorded.events[-1]["data"]["content"] == "[not captured: 2 items]"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "text", "text": "x"}, "content: is of type dict; give a str, or a list"),
        ([7], "content[0]: is not a part of a message"),
        ([{"text": "x"}], "content[0]: is not a part of a message"),
        (["a", {"type": "text"}], "content[1].text: is None; give a str"),
        ([{"type": "image"}], "content[0]: has the type 'image', but neither"),
        ([{"type": "image", "data": "not base64!"}], "content[0]: has the type 'image'"),
        ([{"type": "tool_use", "input": {1: 2}}], "content[0].input: has the key 1 of type int"),
        ([{"type": "x", "y": object()}], "content[0].y: object is not JSON-serialisable"),
    ],
)
def test_what_is_no_content_is_refused(recorded: Recorded, content: Any, said: str) -> None:
    """The error says where it is and what is allowed; nothing is stored."""
    with pytest.raises(ValidationError) as raised:
        recorded.tracker.log_message("s", "user", content)
    assert str(raised.value).startswith(said)
    assert recorded.events == []


def test_a_history_shows_parts_readably(recorded: Recorded) -> None:
    """A line for each part that is no text, and the parts themselves for programs."""
    call = {"type": "tool_use", "id": "t1", "name": "find", "input": {"id": 7}}
    content = ["Look:", {"type": "image_url", "image_url": {"url": URL}}, call]
    recorded.tracker.log_message("s", "user", content)
    recorded.tracker.log_message("s", "user", "plain")
    parts, plain = recorded.tracker.get_conversation_history("s")
    assert parts.content is not None
    text, image, tool = parts.content.split("\n")
    assert text == "Look:"
    assert image == f"[image/png, {len(PNG)} bytes, SHA-256 {SEALED['sha256']}]"
    assert tool.startswith("[tool_use: {")
    assert parts.parts == [{"type": "text", "text": "Look:"}, IMAGE, call]
    assert (plain.content, plain.parts) == ("plain", None)
    assert recorded.tracker.get_conversation_history("s", include_content=False)[0].parts is None
