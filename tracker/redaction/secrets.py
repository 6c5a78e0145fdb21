"""Rules for secrets: keys of well-known providers, tokens, private keys, passwords in URLs.

The formats are those of the providers, from their documentation or their keys; the corpus of the
tests names a source for each.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING

from tracker.redaction.rules import Gate, Gates, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACEHOLDER = re.compile(
    r"your[_-]|[_-]here\b|x{5}|placeholder|redacted|changeme|replace[_-]|insert[_-]|\.{3}|\*{3}",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"\$\{?\w{1,64}\}?|\{\{?[^{}]{0,64}\}?\}|%\w{1,64}%|%s|[*xX.]{1,64}|\[[^\]]*\]"
)
_FILLING = frozenset("x0-_.*")
_START = r"(?<![A-Za-z0-9])"
_END = r"(?![A-Za-z0-9])"


def _key(kind: str, pattern: str, *anchors: str, context: tuple[str, ...] = ()) -> Rule:
    """Return the rule for keys that have a prefix."""
    return Rule(
        kind, re.compile(f"{_START}(?P<secret>{pattern}){_END}"), _is_random, anchors, context
    )


def _is_random(text: str) -> bool:
    """Return True for a key, False for a word or a placeholder of the same form."""
    tail = text[-20:]
    long = len(text) >= 32 and tail.isalnum()  # no word has so many letters
    return (long or _classes(tail) > 1) and _is_real(text)


def _is_mixed(text: str) -> bool:
    """Return True for letters of both cases and digits, as in a key but not in most names."""
    return _classes(text) == 3 and _is_real(text)


def _classes(text: str) -> int:
    return (
        any("a" <= letter <= "z" for letter in text)
        + any("A" <= letter <= "Z" for letter in text)
        + any("0" <= letter <= "9" for letter in text)
    )


def _is_real(text: str) -> bool:
    """Return True for a key of an unmistakable form, False for a placeholder."""
    return not set(text[-16:].lower()) <= _FILLING and not _PLACEHOLDER.search(text)


def _is_token(text: str) -> bool:
    """Return True for a token after ``Bearer``: a digit, or many letters of both cases."""
    if not _is_real(text):
        return False
    if any(letter.isdigit() for letter in text):
        return True
    return len(text) >= 24 and not text.islower() and not text.isupper()


def _is_jwt(text: str) -> bool:
    """Return True if the first segment is a JSON object that names an algorithm, as in a JWT."""
    header = text.partition(".")[0]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and "alg" in decoded


def _is_basic(text: str) -> bool:
    """Return True for base64 of ``user:password``, as in HTTP's basic authentication."""
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in decoded and decoded.isprintable()


def _is_key_material(text: str) -> bool:
    """Return True for a key block with content, not the mention of one."""
    return re.search(r"[A-Za-z0-9+/]{24}", text) is not None


def _is_password(text: str) -> bool:
    """Return True for a password, False for a template or stars in its place."""
    return not _TEMPLATE.fullmatch(text) and not _PLACEHOLDER.search(text)


_JWT = Rule(
    "jwt",
    re.compile(
        r"(?<![A-Za-z0-9_-])"
        r"(?P<secret>eyJ[A-Za-z0-9_-]{8,16384}\.[A-Za-z0-9_-]{2,65536}(?:\.[A-Za-z0-9_-]{0,65536}){1,3})"
    ),
    _is_jwt,
    ("eyJ",),
)
# Up to the end line; without one, as far as it looks like base64.
_PRIVATE_KEY = Rule(
    "private_key",
    re.compile(
        r"(?P<secret>-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:"
        r"[^-]{1,65536}(?:-[^-]{1,65536}){0,40}-----END [A-Z0-9 ]{1,60}-----"
        r"|(?:\\[nr]|[A-Za-z0-9+/=\s]){24,65536}))"
    ),
    _is_key_material,
    ("PRIVATE KEY",),
)

_PROVIDERS_WITH_DASH = (
    _key("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{16,400}", "sk-ant-"),
    _key("openrouter_key", r"sk-or-(?:v\d-)?[A-Za-z0-9]{32,128}", "sk-or-"),
    _key(
        "openai_key",
        r"sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,400}|[A-Za-z0-9]{20,200})",
        "sk-",
    ),
    _key(
        "gitlab_token",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_-]{20,320}"
        r"(?:\.[a-z0-9]{2}\.[a-z0-9]{9})?",
        "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-",
        "glffct-",
    ),
    _key(
        "slack_token",
        r"(?:xoxe\.)?xox[abeoprs]-[A-Za-z0-9-]{10,300}|xapp-\d-[A-Za-z0-9-]{10,300}",
        "xox", "xapp-",
    ),
    _key("pypi_token", r"pypi-AgE[A-Za-z0-9_-]{32,600}", "pypi-AgE"),
    _key("google_oauth_secret", r"GOCSPX-[A-Za-z0-9_-]{24,40}", "GOCSPX-"),
    _key("xai_key", r"xai-[A-Za-z0-9]{60,100}", "xai-"),
    _PRIVATE_KEY,
)  # fmt: skip
_PROVIDERS_WITH_UNDERSCORE = (
    _key(
        "github_token",
        r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
        "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
    ),
    _key("stripe_key", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}", "k_live_", "k_test_"),
    _key("stripe_webhook_secret", r"whsec_[A-Za-z0-9+/]{24,100}={0,2}", "whsec_"),
    _key("npm_token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _key("huggingface_token", r"(?:hf|api_org)_[A-Za-z]{30,40}|hf_[A-Za-z0-9]{30,40}",
         "hf_", "api_org_"),
    _key("groq_key", r"gsk_[A-Za-z0-9]{48,60}", "gsk_"),
    _key("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
         "shpat_", "shpca_", "shppa_", "shpss_"),
    _key("digitalocean_token", r"do[opr]_v1_[0-9a-f]{64}", "_v1_"),
)  # fmt: skip
_AWS_KEY_ID = Rule(
    "aws_access_key_id",
    re.compile(rf"{_START}(?P<secret>(?:AKIA|ASIA)[A-Z0-9]{{16}}){_END}"),
    _is_real,
    ("AKIA", "ASIA"),
)
_ASSIGNED = r"[\"'`]?\s{0,4}(?:=>|[:=])\s{0,4}[\"'`]?"
_AWS_SECRET = Rule(
    "aws_secret_access_key",
    re.compile(
        r"(?:ecret(?<=[Ss]ecret)|SECRET)[_\- ]?(?:[Aa]ccess|ACCESS)?[_\- ]?(?:[Kk]ey|KEY)?"
        + _ASSIGNED
        + r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
    ),
    _is_mixed,  # a git commit is not
    context=("secret",),
    keyed=True,
)
_SESSION_TOKENS = tuple(
    f"{word}{sign}token" for word in ("session", "security") for sign in ("", "_", "-", " ")
)
_AWS_SESSION = Rule(
    "aws_session_token",
    re.compile(
        r"(?:[Ss]ession|SESSION|[Ss]ecurity)[_\- ]?(?:[Tt]oken|TOKEN)"
        + _ASSIGNED
        + r"(?P<secret>[A-Za-z0-9/+]{100,4096}={0,2})"
    ),
    _is_random,
    context=_SESSION_TOKENS,  # ``token`` alone is in the attributes of each call of a model
    keyed=True,
)
_TWILIO_TOKEN = Rule(
    "twilio_auth_token",
    re.compile(
        r"(?:[Aa]uth|AUTH)[_\- ]?(?:[Tt]oken|TOKEN)"
        + _ASSIGNED
        + rf"(?P<secret>[0-9a-f]{{32}}){_END}"
    ),
    _is_random,
    context=("twilio",),
    keyed=True,
)
_AZURE_KEY = Rule(
    "azure_key",
    re.compile(
        r"(?:[Aa]ccount|[Aa]ccess)Key" + _ASSIGNED + r"(?P<secret>[A-Za-z0-9+/]{42,90}={1,2})"
    ),
    _is_random,
    ("ccountKey", "ccessKey"),
    keyed=True,
)


def _scheme(word: str, kind: str, value: str, check: Callable[[str], bool]) -> Rule:
    """Return the rule for credentials after the name of an authorization scheme."""
    # The search for a pattern that begins with plain letters is several times faster.
    tail = word[1:]
    return Rule(
        kind,
        re.compile(
            rf"{tail}(?<=[{word[0]}{word[0].lower()}]{tail})(?:\s{{1,4}}|%20|\+)(?P<secret>{value})"
        ),
        check,
        (tail,),
    )


_BEARER_VALUE = r"[A-Za-z0-9\-._~+/]{12,8192}={0,3}"
_BASIC_VALUE = r"[A-Za-z0-9+/]{6,1024}={0,2}"
_BEARER = _scheme("Bearer", "bearer_token", _BEARER_VALUE, _is_token)
_BEARER_CAPITALS = _scheme("BEARER", "bearer_token", _BEARER_VALUE, _is_token)
_BASIC = _scheme("Basic", "basic_auth", _BASIC_VALUE, _is_basic)
_BASIC_CAPITALS = _scheme("BASIC", "basic_auth", _BASIC_VALUE, _is_basic)
_WEBHOOKS = (
    Rule(
        "slack_webhook",
        re.compile(
            r"hooks\.slack\.com/(?P<secret>(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,200})"
        ),
        _is_random,
        ("hooks.slack.com/",),
    ),
    Rule(
        "discord_webhook",
        re.compile(r"/api/webhooks/(?P<secret>\d{17,20}/[A-Za-z0-9_-]{60,90})"),
        _is_random,
        ("/api/webhooks/",),
    ),
)
# Only the password is masked: the user and the host are useful to a reader.
_URL_PASSWORD = Rule(
    "connection_password",
    re.compile(
        r"(?<=[A-Za-z0-9])://[^\s:@/\"'`<>]{0,256}:"
        # With a slash, which should be percent-encoded, unless it follows a port.
        r"(?P<secret>[^\s/\"'`<>]{1,256}|(?!\d{1,5}[/?#])[^\s\"'`<>]{1,256}?)"
        r"@(?=[A-Za-z0-9\[._-])"
    ),
    _is_password,
    ("@",),
)
_DSN_PASSWORD = Rule(
    "connection_password",
    re.compile(
        r"(?:[?&;\s\"']|^)(?:[Pp]assword|PASSWORD|[Pp]wd|PWD) ?= ?(?P<secret>[^\s;&\"'<>]{1,256})"
    ),
    _is_password,
    ("assword", "PASSWORD", "pwd", "Pwd", "PWD"),
    ("host=", "server=", "data source=", "user id=", "uid=", "user=", "dbname=", "database=",
     "username="),
)  # fmt: skip

_TRACKER_KEY = Rule(
    "tracker_key",
    re.compile(rf"{_START}(?P<secret>trk_[A-Za-z0-9_-]{{20,100}})"),
    _is_mixed,
    ("trk_",),
)
_ASSIGNED_RULES = (_AWS_SECRET, _AWS_SESSION, _TWILIO_TOKEN)

GATES = Gates(
    Gate("J", (_JWT,)),
    Gate("-", _PROVIDERS_WITH_DASH, re.compile(r"-[A-Za-z0-9_-]{9}")),
    Gate("_", _PROVIDERS_WITH_UNDERSCORE, re.compile(r"_[A-Za-z0-9+/]{14}")),
    Gate("_", (_TRACKER_KEY,)),
    Gate("AI", (_key("google_api_key", r"AIza[A-Za-z0-9_-]{33,39}", "AIza"),)),
    Gate("AKIA", (_AWS_KEY_ID,)),
    Gate("ASIA", (_AWS_KEY_ID,)),
    Gate("SG", (_key("sendgrid_key", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}", "SG."),)),
    Gate("SK", (_key("twilio_key", r"SK[0-9a-f]{32}", "SK", context=("twilio",)),)),
    Gate("29", (_key("google_oauth_token", r"ya29\.[A-Za-z0-9_.-]{20,2048}", "ya29."),)),
    Gate("=", _ASSIGNED_RULES),
    Gate(":", _ASSIGNED_RULES),
    Gate("K", (_AZURE_KEY,)),
    Gate("://", (*_WEBHOOKS, _URL_PASSWORD)),
    Gate("=", (_DSN_PASSWORD,)),
    # Last, so that more specific kinds take precedence.
    Gate("", (_BEARER, _BASIC)),
    Gate("BEARER", (_BEARER_CAPITALS,)),
    Gate("BASIC", (_BASIC_CAPITALS,)),
)
"""The rules for secrets."""
