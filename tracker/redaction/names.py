"""Names of secrets: ``password``, ``OPENAI_API_KEY``, ``X-Auth-Token``.

Names are compared word by word, ignoring case and separators; camel case is split into words. A
name is that of a secret if it ends in one of `ENDINGS`, apart from numbers and words such as
``confirmation``. So ``user.password2`` is one, and ``password_policy``, ``token_count`` and
``secretary`` are not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDINGS = (
    "password", "passwd", "pwd", "passphrase", "passcode", "secret", "secret_key",
    "secret_key_base", "secret_access_key", "client_secret", "api_key", "api_token", "private_key",
    "access_key", "account_key", "auth_key", "encryption_key", "signing_key", "master_key",
    "shared_key", "subscription_key", "ssh_key", "token", "access_token", "refresh_token",
    "id_token",
    "session_token", "auth_token", "csrf_token", "csrf", "xsrf", "jwt", "authorization", "auth",
    "cookie", "credential", "creds",
)  # fmt: skip
"""The default endings of names of secrets."""
_UNLIKE_ASCII = "contrase"
"""In every name of a secret that ASCII cannot write."""
_PLURALS = (
    "password", "passphrase", "secret", "api_key", "api_token", "private_key", "access_key",
    "access_token", "refresh_token", "session_token", "auth_token", "cookie", "credential",
)  # fmt: skip
_SAME = {
    "pass_word": "password", "pw": "password", "passwort": "password", "contraseña": "password",
    "mot_de_passe": "password", "pass_phrase": "passphrase", "apikey": "api_key",
    "privatekey": "private_key", "secretkey": "secret_key", "set_cookie": "cookie",
}  # fmt: skip
_IN_A_WORD = {
    "password": "password", "passwd": "passwd", "passphrase": "passphrase", "apikey": "api_key",
    "privatekey": "private_key", "secretkey": "secret_key", "accesskey": "access_key",
    "clientsecret": "client_secret", "authtoken": "auth_token", "accesstoken": "access_token",
    "refreshtoken": "refresh_token", "sessiontoken": "session_token", "idtoken": "id_token",
}  # fmt: skip
"""Endings that may also be part of a longer word, as in ``PGPASSWORD``: no other word has them."""
_LOGINS = (
    r"(?:db|smtp|imap|ftp|user|admin|root|mysql|pg|postgres|redis|proxy|mail|email|http|login|ssh"
    r"|sudo|become|basic)"
)
_AFTER = (
    r"(?:_(?:\d+|confirm|confirmation|value|plain|plaintext|raw|old|new|current|again|repeat|hash"
    r"|pem|header|string|b64|base64))*\d*"
)
_HARMLESS = re.compile(
    r"(?:^|_)(?:next|page|pagination|continuation|eos|bos|pad|unk|mask|sep|cls|stop|stopping|start"
    r"|end|special|cancel|cancellation|first|last|per|sync|max|min|input|output|prompt|completion"
    r"|unexpected|expected|invalid)_token$"
)
"""Tokens that are not secret: positions in a list, and the units that language models read."""
_WORDS = re.compile(r"(?<=[a-z0-9ñ])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_NAME = 128
_MOST_NAMES = 4096
"""Maximum number of cached names; a program uses few of them."""
_LONGEST_WORD = 64
_BESIDE = frozenset({"key", "token", "secret", "phrase", "password", "pass", "sshpass", "auth"})
"""Words that announce a secret together with another one, or as a command."""
_ANCHORS = ("pass", "pw", "secret", "token", "key", "auth", "cook", "cred", "jwt", "srf", "-u")
"""Texts of which one occurs in every name of a secret and in every command with a secret."""

NUMERIC = frozenset({"password", "passwd", "pwd", "passphrase", "passcode"})
"""Kinds for which a number is also secret; with another name, a number is a count."""
KINDS = frozenset(ENDINGS)
"""The kind to count and to use in the mask: the ending that was found."""


def words(name: str) -> str:
    """Return a name as lower-case words with ``_`` between them."""
    return _SEPARATORS.sub("_", _WORDS.sub("_", name)).strip("_").lower()


class Names(dict[str, "str | None"]):
    """Maps a name to its kind of secret, or None; computed once per name. Thread-safe.

    Args:
        more: Additional endings.
        but: Endings and whole names that are not secret.
    """

    def __init__(self, more: Iterable[str] = (), but: Iterable[str] = ()) -> None:
        super().__init__()
        own = [each for each in map(words, more) if each]
        self._without = frozenset(map(words, but))
        plurals = {f"{each}s": each for each in _PLURALS}
        kinds = {**plurals, **_SAME, **{each: each for each in (*ENDINGS, *own)}}
        self._kinds = {end: kind for end, kind in kinds.items() if kind not in self._without}
        self.kinds = KINDS | frozenset(own)
        ends = sorted(self._kinds, key=len, reverse=True)
        self._pattern = re.compile(
            rf"(?:(?:^|_)(?P<end>{'|'.join(map(re.escape, ends))}|{_LOGINS}_pass)"
            rf"|(?P<inner>{'|'.join(_IN_A_WORD)})){_AFTER}$"
        )
        # The first of several words is in the text, however they are separated.
        firsts = (each.partition("_")[0] for each in own)
        self.anchors = tuple(dict.fromkeys((*_ANCHORS, *firsts)))
        self._harmless: set[str] = set()

    def __missing__(self, name: str) -> str | None:
        if len(name) > _LONGEST_NAME:
            return None
        kind = self._kind(words(name))
        if len(self) >= _MOST_NAMES:
            self.clear()
        self[str.__str__(name)] = kind
        return kind

    def _kind(self, said: str) -> str | None:
        found = self._pattern.search(said)
        if found is None or said in self._without or _HARMLESS.search(said):
            return None
        if inner := found["inner"]:
            kind = _IN_A_WORD[inner]
            return None if kind in self._without else kind
        return self._kinds.get(found["end"], "password")

    def anchors_in(self, lowered: str) -> list[str]:
        """Return the anchors in a lower-case text; a text without any names no secret."""
        found = [anchor for anchor in self.anchors if anchor in lowered]
        if not lowered.isascii() and _UNLIKE_ASCII in lowered:
            found.append(_UNLIKE_ASCII)
        return found

    def may_announce(self, text: str, anchors: list[str] | None = None) -> bool:
        """Return True if a text may contain the name of a secret, or a command that takes one.

        More exact than `anchors_in`, which may be given, and dearer: ``passenger`` and ``credit``
        hold what a name of a secret does, and are looked up as the words that they are.
        """
        lowered = text.lower()
        anchors = self.anchors_in(lowered) if anchors is None else anchors
        if len(lowered) != len(text) or _UNLIKE_ASCII in anchors:
            # As where a letter becomes two: places in the one are not those in the other.
            return True
        harmless = self._harmless
        for anchor in anchors:
            at = lowered.find(anchor)
            while at >= 0:
                end = lowered.find(" ", at)
                part = text[lowered.rfind(" ", 0, at) + 1 : end if end >= 0 else None]
                if part not in harmless and self._may_be_named_in(part):
                    return True
                at = lowered.find(anchor, end) if end >= 0 else -1
        return False

    def _may_be_named_in(self, part: str) -> bool:
        """Return True if a part of a text, between two spaces, may name a secret."""
        lowered = part.lower()
        for anchor in self.anchors:
            at = lowered.find(anchor)
            while at >= 0:
                start, end = _word_around(part, at, at + len(anchor))
                if anchor == "-u" or self._may_be_name(part, start, end):
                    return True
                at = lowered.find(anchor, end)
        if len(part) <= _LONGEST_NAME:
            if len(self._harmless) >= _MOST_NAMES:
                self._harmless.clear()
            self._harmless.add(part)
        return False

    def _may_be_name(self, text: str, start: int, end: int) -> bool:
        name = text[start:end].strip("-._")
        if start and text[start - 1] == "%":  # percent-encoded, as in user%5Bpassword%5D
            name = name[2:]
        return name.lower() in _BESIDE or self[name] is not None


def _word_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where the word begins and ends that a place in a text belongs to."""
    least, most = max(0, start - _LONGEST_WORD), min(len(text), end + _LONGEST_WORD)
    while start > least and (text[start - 1].isalnum() or text[start - 1] in "_.-"):
        start -= 1
    while end < most and (text[end].isalnum() or text[end] in "_.-"):
        end += 1
    return start, end


_NO_SECRET = frozenset({
    "none", "null", "nil", "true", "false", "yes", "no", "on", "off", "basic", "bearer",
    "digest", "oauth", "oauth2", "ntlm", "kerberos", "saml", "oidc", "jwt", "apikey",
    "required", "optional", "enabled", "disabled", "missing", "invalid", "valid", "expired",
    "incorrect", "wrong", "changed", "reset", "unset", "set", "ok", "failed", "hidden",
    "masked", "redacted", "unknown", "empty", "default", "string", "str", "bytes", "int",
    "bool", "any", "secretstr", "self", "not", "undefined",
})  # fmt: skip
_TEMPLATE = re.compile(
    r"\$\{{0,2}[\w. ]{1,64}\}{0,2}|\{\{?[^{}]{0,64}\}?\}|%\w{1,64}%|%s|%\(\w{1,64}\)s|<[^<>]{0,64}>"
    r"|[*xX.•]{1,64}|\[[^\]]{0,64}\]|\(.{0,64}|\$\(.{0,64}|!\w{1,64}|(?i:your)[ _-].{0,64}"
)
SCHEMES = r"(?i:(?:bearer|basic|token|digest|apikey|key|negotiate)[ ])?"
"""Text that may precede a secret that is already masked."""
_MASKED = re.compile(SCHEMES + r"\[secret:[^\[\]]{1,80}\]")
_PATH = re.compile(r"[/~.][\w/.~+-]*")
_FEW_DIGITS = 6


def is_secret(kind: str, text: str) -> bool:
    """Return False for a placeholder of a secret: a template, stars, ``none``, a mask."""
    value = text.strip()
    if not value or value.lower() in _NO_SECRET or _TEMPLATE.fullmatch(value):
        return False
    if _MASKED.fullmatch(value):
        return False
    if kind == "authorization" and _TEMPLATE.fullmatch(value.rpartition(" ")[2]):
        return False
    if kind == "pwd" and _PATH.fullmatch(value):  # the working directory
        return False
    return kind in NUMERIC or not (value.isdecimal() and len(value) < _FEW_DIGITS)


def mask_named(kind: str) -> str:
    """Return the mask of a secret that was found by its name."""
    return f"[secret:{kind}]"
