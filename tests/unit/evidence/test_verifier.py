"""What the verifier is made of: signatures, keys and notes, with what is wrong refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tracker.evidence.verifier import (
    NotProvenError,
    is_signed,
    parse_checkpoint,
    parse_key,
    parse_note,
    signers,
)

KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
LINE = (
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3m"
    "FXmRKuwHjG1Yu72IneyaQM=\n"
)
NOTE = f"This is an example message.\n\n{LINE}"
ORDER = 2**252 + 27742317777372353535851937790883648493
ROOT = base64.b64encode(bytes(32)).decode()


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 511))
def test_a_signature_is_taken_as_the_library_makes_it_and_in_no_other_form(
    seed: bytes, message: bytes, bit: int
) -> None:
    """Nor for another message or key, or with one bit changed."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert is_signed(public, message, signature)
    flipped = int.from_bytes(signature, "big") ^ 1 << bit
    assert not is_signed(public, message, flipped.to_bytes(64, "big"))
    assert not is_signed(public, message + b"\0", signature)
    other = int.from_bytes(public, "big") ^ 1 << bit % 256
    assert not is_signed(other.to_bytes(32, "big"), message, signature)


def test_a_signature_has_one_form() -> None:
    """A scalar plus the order of the group is refused, as RFC 8032 asks; so is another length."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = private.public_key().public_bytes_raw(), private.sign(b"")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not is_signed(public, b"", signature[:32] + scalar.to_bytes(32, "little"))
    assert not is_signed(public, b"", signature + b"\0")
    assert not is_signed(public[:31], b"", signature)


@pytest.mark.parametrize(
    "point",
    [
        (2**255 - 19 + 1).to_bytes(32, "little"),  # y is not below p
        (1 | 1 << 255).to_bytes(32, "little"),  # x is 0 and said to be odd
        (2).to_bytes(32, "little"),  # no x belongs to it
    ],
)
def test_bytes_that_are_no_point_are_no_key(point: bytes) -> None:
    """They sign nothing, though the first two could be taken for the neutral element."""
    neutral = (1).to_bytes(32, "little")
    assert is_signed(neutral, b"", neutral + bytes(32))
    assert not is_signed(point, b"", neutral + bytes(32))


@pytest.mark.parametrize("at", range(len(KEY)))
def test_a_key_with_any_character_changed_or_cut_is_refused(at: int) -> None:
    """Its id, which is made of all the rest, does not match."""
    for text in (KEY[:at] + chr(ord(KEY[at]) + 1) + KEY[at + 1 :], KEY[:at], KEY[at + 1 :]):
        with pytest.raises(NotProvenError):
            parse_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "++",
        "name+00000000+",
        "a\udce9b" + KEY[11:],
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_what_is_no_key_of_ours_is_refused(text: str) -> None:
    """Of another length or type, or text that no encoding has."""
    with pytest.raises(NotProvenError):
        parse_key(text)


def test_the_note_of_the_specification_is_read() -> None:
    """Signed by its key; with another text it is not, and an unknown key says nothing."""
    key = parse_key(KEY)
    assert signers(parse_note(NOTE.encode()), [key]) == {key: None}
    assert signers(parse_note(NOTE.encode()), [key._replace(name="example.com/bar")]) == {}
    with pytest.raises(NotProvenError, match=r"signature of example\.com/foo does not match"):
        signers(parse_note(NOTE.replace("This", "That").encode()), [key])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        NOTE[:-1],
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("This", "\tThis"),
        NOTE.replace("\u2014", "-"),
        NOTE.replace("example.com/foo ", "example.com/ foo "),
        NOTE.replace("example.com/foo", "example.com+foo"),
        NOTE.replace("aQM=", "aQN="),  # base64 in a form that no encoder writes
        NOTE.replace("aQM=", "aQM"),
        f"text\n\n{LINE[:22]}Og==\n",
        "text\n\n" + 65 * LINE,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    """Cut, of another form, or with more signatures than anybody needs."""
    with pytest.raises(NotProvenError):
        parse_note(note.encode())


def test_bytes_that_are_no_text_are_no_note() -> None:
    """A note is UTF-8."""
    with pytest.raises(NotProvenError, match="UTF-8"):
        parse_note(NOTE.encode("utf-16"))


@pytest.mark.parametrize(
    "text",
    [
        f"origin\n1\n{ROOT}\n",
        f"origin\n0\n{ROOT}\nan extension\n",
    ],
)
def test_a_checkpoint_is_read(text: str) -> None:
    """With extension lines, too, which the signatures cover."""
    checkpoint = parse_checkpoint(f"{text}\n{LINE}".encode())
    assert checkpoint[:3] == ("origin", int(text[7]), bytes(32))
    assert checkpoint.note.text == text


@pytest.mark.parametrize(
    "text",
    [
        f"origin\n1\n{ROOT[4:]}\n",
        f"origin\n01\n{ROOT}\n",
        f"origin\n-1\n{ROOT}\n",
        f"origin\n{2**63}\n{ROOT}\n",
        f"origin\n\u0661\n{ROOT}\n",
        f"origin\n1\n{ROOT[:-1]}\n",
        f"\n1\n{ROOT}\n",
        "origin\n1\n",
        f"origin\n1\n{ROOT}\n\nmore\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Numbers have one form, and the root 32 bytes."""
    with pytest.raises(NotProvenError):
        parse_checkpoint(f"{text}\n{LINE}".encode())
