"""Labelled secrets and look-alikes, made anew from the providers' formats by a fixed seed.

No key here was ever anybody's, and none stands in the source, where scanners would find it. Each
format names where it is documented.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[random.Random], str]

ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits

SENTENCES = (
    "{}",
    "My key is {}, please check it.",
    "It stopped working: {}.",
    'export API_KEY="{}"',
    '{{"settings": {{"credential": "{}"}}}}',
    "config:\n  credential: {}\n  debug: true",
    "curl 'https://api.example.com/v1/items?limit=5' -H 'X-Api-Key: {}'",
    "Ключ: {} (не показывайте никому)",
    "<value>{}</value>",
)
NEUTRAL = (
    "{}",
    "My value is {}, please check it.",
    "It stopped working: {}.",
    'export BUILD="{}"',
    '{{"settings": {{"reference": "{}"}}}}',
    "config:\n  reference: {}\n  debug: true",
    "curl 'https://api.example.com/v1/items?limit=5' -H 'X-Request-Id: {}'",
    "Значение: {}",
    "<value>{}</value>",
)
"""For look-alikes: a name that announces a secret would make one of anything."""
EACH = 16


class Format(NamedTuple):
    """How one provider's secrets look, and who says so."""

    kind: str
    source: str
    make: Make
    sentences: tuple[str, ...] = SENTENCES


class Sample(NamedTuple):
    """A text; the secret in it, or None where nothing must be masked."""

    text: str
    secret: str | None
    kind: str
    source: str


def of(alphabet: str, length: int, prefix: str = "", suffix: str = "") -> Make:
    def make(rng: random.Random) -> str:
        return f"{prefix}{''.join(rng.choices(alphabet, k=length))}{suffix}"

    return make


def one_of(*makes: Make) -> Make:
    return lambda rng: rng.choice(makes)(rng)


def joined(*makes: Make) -> Make:
    return lambda rng: "".join(make(rng) for make in makes)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def jwt(rng: random.Random) -> str:
    header = segment({"alg": rng.choice(["HS256", "RS256", "ES256", "none"]), "typ": "JWT"})
    claims = segment({"sub": str(rng.randrange(10**9)), "iat": rng.randrange(2 * 10**9)})
    return f"{header}.{claims}.{of(URLSAFE, 43)(rng)}"


def private_key(rng: random.Random) -> str:
    label = rng.choice(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
    newline = rng.choice(["\n", "\\n"])
    lines = [of(BASE64, 64)(rng) for _ in range(rng.randrange(3, 28))]
    begin, end = (f"-----{word} {label}PRIVATE KEY-----" for word in ("BEGIN", "END"))
    return newline.join([begin, *lines, of(BASE64, 20, suffix="==")(rng), end])


def basic(rng: random.Random) -> str:
    pair = f"{rng.choice(['admin', 'api', 'u'])}:{of(ALNUM, rng.randrange(6, 24))(rng)}"
    return base64.b64encode(pair.encode()).decode()


def slack_token(rng: random.Random) -> str:
    team, user = of(string.digits, 12)(rng), of(string.digits, 13)(rng)
    return f"{rng.choice(['xoxb', 'xoxp', 'xoxa', 'xoxs'])}-{team}-{user}-{of(ALNUM, 24)(rng)}"


PASSWORD = of(ALNUM + "!$*-_.~", 14)
URLS = tuple(
    f"{scheme}://{user}:{{}}@{host}"
    for scheme, user, host in (
        ("postgres", "app", "db.internal:5432/orders"),
        ("postgresql+psycopg", "app", "10.0.0.5/orders?sslmode=require"),
        ("mongodb+srv", "svc", "cluster0.abcde.mongodb.net/?retryWrites=true"),
        ("amqp", "guest", "rabbit:5672/%2f"),
        ("redis", "", "cache.internal:6379/0"),
        ("mysql", "root", "localhost/shop"),
        ("https", "deploy", "git.example.com/team/repo.git"),
    )
)

FORMATS = (
    Format("openai_key", "platform.openai.com/docs/api-reference/authentication", one_of(
        joined(of(ALNUM, 20, "sk-"), of(ALNUM, 20, "T3BlbkFJ")),
        joined(of(URLSAFE, 74, "sk-proj-"), of(URLSAFE, 74, "T3BlbkFJ")),
        of(URLSAFE, 120, "sk-svcacct-"), of(ALNUM, 48, "sk-"))),
    Format("anthropic_key", "docs.anthropic.com/en/api/getting-started",
           one_of(of(URLSAFE, 93, "sk-ant-api03-", "AA"), of(URLSAFE, 93, "sk-ant-oat01-", "AA"))),
    Format("google_api_key", "cloud.google.com/docs/authentication/api-keys",
           of(URLSAFE, 35, "AIza")),
    Format("aws_access_key_id", "docs.aws.amazon.com/IAM (reference_identifiers)",
           one_of(of(string.ascii_uppercase + "234567", 16, "AKIA"), of(UPPER, 16, "ASIA"))),
    Format("aws_secret_access_key", "docs.aws.amazon.com/cli (configure-files)",
           of(BASE64, 40), ("aws_secret_access_key = {}", "AWS_SECRET_ACCESS_KEY={}",
                            '"SecretAccessKey": "{}",', "AWS secret: {}",
                            "secretAccessKey='{}'")),
    Format("github_token", "docs.github.com/en/authentication (about authentication to GitHub)",
           one_of(*(of(ALNUM, 36, f"gh{letter}_") for letter in "pousr"),
                  joined(of(ALNUM, 22, "github_pat_"), of(ALNUM, 59, "_")))),
    Format("gitlab_token", "docs.gitlab.com/security/tokens/#token-prefixes",
           one_of(of(URLSAFE, 20, "glpat-"), of(URLSAFE, 20, "glrt-"), of(URLSAFE, 20, "gldt-"))),
    Format("slack_token", "api.slack.com/concepts/token-types", slack_token),
    Format("slack_webhook", "api.slack.com/messaging/webhooks",
           joined(of(UPPER, 10, "services/T"), of(UPPER, 10, "/B"), of(ALNUM, 24, "/")),
           ("https://hooks.slack.com/{}", "post to https://hooks.slack.com/{} please")),
    Format("stripe_key", "docs.stripe.com/keys", one_of(
        of(ALNUM, 24, "sk_live_"), of(ALNUM, 99, "rk_live_"), of(ALNUM, 24, "sk_test_"))),
    Format("stripe_webhook_secret", "docs.stripe.com/webhooks/signature", of(ALNUM, 32, "whsec_")),
    Format("twilio_key", "www.twilio.com/docs/iam/api-keys", of(HEX, 32, "SK"),
           ("twilio key {}", "TWILIO_API_KEY={}", "Twilio('AC1', '{}')")),
    Format("twilio_auth_token", "www.twilio.com/docs/iam/api/authtoken", of(HEX, 32),
           ("TWILIO_AUTH_TOKEN={}", "twilio: auth_token: {}", 'twilio {{"authToken": "{}"}}')),
    Format("sendgrid_key", "www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys",
           joined(of(URLSAFE, 22, "SG."), of(URLSAFE, 43, "."))),
    Format("npm_token", "github.blog/changelog/2021-09-23-npm-has-a-new-access-token-format",
           of(ALNUM, 36, "npm_")),
    Format("pypi_token", "PyPI help: API tokens", of(URLSAFE, 150, "pypi-AgEIcHlwaS5vcmc")),
    Format("huggingface_token", "huggingface.co/docs/hub/security-tokens",
           of(string.ascii_letters, 34, "hf_")),
    Format("azure_key", "learn.microsoft.com/azure/storage (storage-configure-connection-string)",
           of(BASE64, 86, suffix="=="),
           ("DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};EndpointSuffix=core",
            '{{"AccountKey": "{}"}}')),
    Format("private_key", "RFC 7468; cloud.google.com/iam/docs/keys-create-delete", private_key,
           ("{}", 'key = """{}"""', '{{"type": "service_account", "private_key": "{}\\n"}}',
            "please use\n{}\nto log in")),
    Format("jwt", "RFC 7519", jwt, (*SENTENCES, "Authorization: Bearer {}", "?token={}&x=1")),
    Format("bearer_token", "RFC 6750", one_of(of(ALNUM + "-._~", 40), of(HEX, 32)),
           ("Authorization: Bearer {}", "-H 'authorization: bearer {}'", "BEARER {}",
            '{{"Authorization": "Bearer {}"}}')),
    Format("basic_auth", "RFC 7617", basic,
           ("Authorization: Basic {}", '"authorization": "basic {}"',
            "Proxy-Authorization: BASIC {}")),
    Format("connection_password", "RFC 3986 3.2.1; postgresql.org/docs (libpq connection strings)",
           PASSWORD, (*URLS, *(f'DATABASE_URL="{url}"' for url in URLS),
                      "Server=db;User Id=app;Password={};Encrypt=true",
                      "jdbc:mysql://db/shop?user=app&password={}&ssl=true")),
    Format("tracker_key", "this project's `keys create`", of(URLSAFE, 43, "trk_")),
)  # fmt: skip


def git_sha(rng: random.Random) -> str:
    return hashlib.sha1(rng.randbytes(8)).hexdigest()  # noqa: S324 - what git names commits by


def made_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


LOOK_ALIKES: tuple[tuple[str, Make], ...] = (
    ("a git commit", git_sha),
    ("a git commit in prose", joined(lambda _: "fixed in ", git_sha, lambda _: " yesterday")),
    ("a SHA-256", lambda rng: "sha256:" + hashlib.sha256(rng.randbytes(8)).hexdigest()),
    ("an MD5 checksum", lambda rng: "md5=" + of(HEX, 32)(rng)),
    ("a UUID", joined(lambda _: "session ", made_uuid)),
    ("a base64 image", of(BASE64, 900, "data:image/png;base64,iVBORw0KGgo", "==")),
    ("a subresource hash", of(BASE64, 64, 'integrity="sha384-', '"')),
    ("an order number", of(string.digits, 12, "order no. ")),
    ("a task's name", lambda rng: f"task-{rng.randrange(10**6)}-risk-review-{of(HEX, 24)(rng)}"),
    ("a URL with a port", lambda rng: f"http://localhost:{rng.randrange(1024, 65535)}/a@b/c:d"),
    ("a URL with an at sign", lambda rng: f"https://social.example/@user{rng.randrange(999)}/1:2"),
    ("a Twilio account without context", of(HEX, 32, "SK")),
    ("a Stripe publishable key", of(ALNUM, 24, "pk_live_")),
    ("a JSON value in base64", lambda rng: segment({"page": rng.randrange(10**6), "sort": "asc"})),
    ("dotted base64 without alg", lambda rng: ".".join(
        [segment({"cursor": rng.randrange(999)}), segment({"a": 1}), of(URLSAFE, 20)(rng)])),
    ("a flight's name", lambda rng: f"flight HAT{rng.randrange(999):03}, reservation "
                                    f"{of(UPPER, 6)(rng)}, certificate_{rng.randrange(10**7)}"),
    ("a file's name", lambda rng: f"hf_transformers_{of(HEX, 12)(rng)}/model_v{rng.random()}"),
    ("a package with a hash", lambda rng: f"npm_config_cache=/tmp/{of(HEX, 40)(rng)}"),
    ("a docker image", lambda rng: f"registry.example/app@sha256:{of(HEX, 64)(rng)}"),
)  # fmt: skip
PROSE = (
    "set OPENAI_API_KEY=sk-... and try again",
    "OPENAI_API_KEY=YOUR_API_KEY",
    "sk-YOUR_API_KEY_GOES_HERE",
    "sk-proj-your-key-goes-right-here-please",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "the sk-learn and sk-SK locale, sk-2 and desk-lamp",
    "ghp_XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
    "AKIAXXXXXXXXXXXXXXXX",
    "Asia and SLOVAKIA, ASIAN MARKETS",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "Authorization: Bearer <token>",
    "Authorization: Bearer ${ACCESS_TOKEN}",
    "the bearer of good news, bearer authentication-required",
    "basic economy tickets and basic information: basic functionality",
    "Basic understanding of networks",
    "postgres://user:${DB_PASSWORD}@localhost/app",
    "postgres://user:<password>@localhost/app",
    "postgres://user:****@localhost/app",
    "mysql://root:{password}@db/shop",
    "postgres://localhost:5432/app",
    "ssh://git@example.com:22/team/repo.git",
    "git@github.com:team/repo.git and mailto:someone@example.com",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq\n-----END CERTIFICATE-----",
    "a file that starts with -----BEGIN RSA PRIVATE KEY----- is a key",
    "eyJust kidding, eyJ is how a JWT begins: eyJhbGciOi...",
    "commit: 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    "secret_key: ask the administrator for it",
    "password=*** host=db",
    "AIzaShort, SG.short.one, npm_run, glpat-, xoxb-",
    "trk_... is what `keys create` printed",
    "the password is on the sticky note: ask Bob",
    "trk_conversion_rate_by_user_segment_daily_2024",
    "sk-proj-my-favourite-project-of-all-times",
    "pypi-attestations and pypi-simple are packages",
    "whsec_... or hf_... go there",
    "SharedAccessKey=<your key>",
    "Please meet me at 12:30:45 at gate B-17, seat 22_A, row -5.",
)


def samples() -> list[Sample]:
    """Return the whole corpus, the same every time."""
    rng = random.Random(20261123)  # noqa: S311 - repeatable, not secret
    made = []
    for form in FORMATS:
        for number in range(EACH):
            secret = form.make(rng)
            sentence = form.sentences[number % len(form.sentences)]
            made.append(Sample(sentence.format(secret), secret, form.kind, form.source))
    for name, make in LOOK_ALIKES:
        for number in range(6):
            text = NEUTRAL[number % len(NEUTRAL)].format(make(rng))
            made.append(Sample(text, None, name, "look-alike"))
    made += [Sample(text, None, "prose", "look-alike") for text in PROSE]
    return made
