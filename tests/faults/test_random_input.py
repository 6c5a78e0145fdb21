"""Fault 9: bad input at random, to the public API, to the reader of answers, to the collector."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.cli import ROOT
from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tracker import Tracker, TrackerError
from tracker.redaction.own_keys import know
from tracker.sync.destination import Outcome
from tracker.sync.receipts import read_answer
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3_000)]

_IDS = ["e1", "e2", "e3"]


def inputs(full: bool, short: int, long: int) -> settings:
    """Return settings for so many inputs; shrinking them would take longer than finding them."""
    return settings(
        max_examples=long if full else short,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# --- answers --------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([*_IDS, 0, 1, 2, 3]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["event_id", "code", "message", "error", "protocol", "x"]), inner
    ),
    max_leaves=8,
)  # fmt: skip
_RECEIPT = st.fixed_dictionaries(
    {},
    optional={
        "protocol": st.just(1) | _JSON,
        "first_event_id": st.just("e1") | _JSON,
        "last_event_id": st.just("e3") | _JSON,
        "accepted": st.integers(-1, 4) | _JSON,
        "duplicates": st.integers(-1, 4) | _JSON,
        "rejected": st.just([]) | st.lists(_JSON, max_size=4),
        "error": _JSON,
    },
)
_BODY = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | (_JSON | _RECEIPT).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[" * 100_000, b'{"error":' * 50_000, b"9" * 5_000, b"\xff\xfe{}", b"NaN"])
)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location", "content-type"]),
    st.text(max_size=30)
    | st.sampled_from(["1", "9" * 400, "-1", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 99 Foo", "1e9"])
    | st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S -1200")),
)


def check_answer(status: int, headers: dict[str, str], body: bytes) -> None:
    """Check what holds for every answer that a server can give."""
    key = "sk-secret"
    know(key)
    delivery = read_answer(status, headers, body, _IDS)
    if delivery.outcome is Outcome.DELIVERED:
        receipt = json.loads(body)
        assert status == 200
        assert receipt["protocol"] == 1
        assert (receipt["first_event_id"], receipt["last_event_id"]) == ("e1", "e3")
        assert receipt["accepted"] + receipt["duplicates"] + len(receipt["rejected"]) == 3
    else:
        assert delivery.rejected == () or not list(delivery.rejected)
    if delivery.outcome is Outcome.INVALID:
        assert isinstance(json.loads(body)["error"]["code"], str)
    words = [delivery.cause or "", *(f"{r.code}{r.message}" for r in delivery.rejected)]
    assert all(text.isprintable() and len(text) < 2_000 and key not in text for text in words)
    assert delivery.retry_after is None or delivery.retry_after >= 0


def test_no_answer_of_a_server_breaks_its_reader(full: bool, tell: Callable[[str], None]) -> None:
    """Any status, header and body: an outcome, and DELIVERED only for a valid receipt."""
    tried = 0

    @inputs(full, 1_000, 40_000)
    @given(st.sampled_from([200, 400, 413, 422, 401, 429, 503, 302]) | st.integers(100, 999),
           _HEADERS, _BODY)  # fmt: skip
    def run(status: int, headers: dict[str, str], body: bytes) -> None:
        nonlocal tried
        tried += 1
        check_answer(status, headers, body)

    run()
    tell(f"answers at random (Hypothesis) | {tried:,} answers | 0 crashes")


_FUZZER = """
import sys
import atheris
with atheris.instrument_imports(include=["tracker.sync", "json", "email"]):
    from tests.faults.test_random_input import check_answer

def one(data):
    source = atheris.FuzzedDataProvider(data)
    status = source.PickValueInList([200, 400, 413, 422, 401, 429, 503, 302, 599])
    headers = {
        name: source.ConsumeUnicode(30)
        for name in ("retry-after", "date", "location")
        if source.ConsumeBool()
    }
    check_answer(status, headers, source.ConsumeBytes(4096))

atheris.Setup(sys.argv, one)
atheris.Fuzz()
"""
_CORPUS = [
    {"protocol": 1, "first_event_id": "e1", "last_event_id": "e3", "accepted": 2, "duplicates": 0,
     "rejected": [{"event_id": "e2", "code": "c", "message": "m"}]},
    {"error": {"code": "c", "message": "m"}},
]  # fmt: skip


_needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: pip install '.[fuzz]', on Linux and Python 3.11 to 3.13",
)


@_needs_atheris
def test_a_coverage_guided_fuzzer_finds_no_answer_that_breaks_the_reader(
    tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """It keeps the inputs that reach new lines and mutates those."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, receipt in enumerate(_CORPUS):
        (corpus / str(number)).write_bytes(json.dumps(receipt).encode() + bytes([0, 255]))
    runs = 300_000 if full else 3_000
    done = subprocess.run(
        [sys.executable, "-c", _FUZZER, corpus, f"-runs={runs}", "-max_len=4096", "-seed=9",
         f"-artifact_prefix={tmp_path}/", "-timeout=10"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=1_200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    tell(f"answers at random (atheris) | {runs:,} answers | 0 crashes")


# --- the public API -------------------------------------------------------------------------------

_CYCLE: dict[str, Any] = {}
_CYCLE["self"] = _CYCLE


class _Liar(str):
    """Text whose methods say something else than it holds."""

    __slots__ = ()

    def __len__(self) -> int:
        return -1

    def encode(self, *_: object, **__: object) -> bytes:
        raise RuntimeError("no")


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300), st.binary(),
    st.sampled_from(["s1", "s2", "agent", "user", "high", "active", 3.5, 2**63, -(2**63) - 1]),
    st.sampled_from([object(), _CYCLE, 1j, ..., int, {1}, 10**4400, float("nan"), "\ud800"]),
    st.sampled_from([_Liar("x"), "x" * 300_000, b"\xff", "\x00", {"a": _Liar("y")}]),
    st.dictionaries(st.text(max_size=5) | st.integers(), st.integers() | st.text(), max_size=3),
    st.recursive(st.text(max_size=3) | st.floats(), lambda i: st.lists(i, max_size=3)),
)  # fmt: skip
_PARTS = ("performance", "operations", "llm", "security", "compliance")
# What they do is checked elsewhere: these end things, or write and read files and whole outboxes.
_NOT_CALLS = {"close", "flush", "update_api_key", "export_audit", "report", "verify_integrity",
              "observe"}  # fmt: skip


def public_calls(tracker: Tracker) -> list[tuple[str, Callable[..., object]]]:
    """Return the trackers' public methods."""
    found: list[tuple[str, Callable[..., object]]] = []
    for part in _PARTS:
        of = getattr(tracker, part)
        for name, method in inspect.getmembers(of, inspect.ismethod):
            if not name.startswith("_") and name not in _NOT_CALLS:
                found.append((f"{part}.{name}", method))
    return found


def arguments(draw: st.DataObject, method: Callable[..., object]) -> dict[str, Any]:
    """Return a value for each required parameter, and for some of the others."""
    parameters = inspect.signature(method).parameters.values()
    return {
        parameter.name: draw.draw(_VALUES)
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (parameter.default is parameter.empty or draw.draw(st.booleans()))
    }


def test_no_argument_breaks_a_call_or_what_is_stored(
    config: MakeConfig, full: bool, tell: Callable[[str], None]
) -> None:
    """Each call stores its event or raises one of the package's own errors; all is delivered."""
    destination = RecordingDestination()
    settings_ = config(durability="process", max_event_bytes=100_000, flush_interval=0.2)
    tried: dict[str, int] = {}
    slowest = 0.0
    with Tracker(settings_, destination=lambda: destination) as tracker:
        calls = public_calls(tracker)
        assert len(calls) > 20

        @inputs(full, 150, 20_000)
        @given(st.sampled_from(calls), st.data())
        def run(call: tuple[str, Callable[..., object]], data: st.DataObject) -> None:
            nonlocal slowest
            name, method = call
            given_ = arguments(data, method)
            tried[name] = tried.get(name, 0) + 1
            begun = time.monotonic()
            try:
                method(**given_)
            except TrackerError:
                pass
            except Exception as error:  # a broken call is to be shown with what broke it
                raise AssertionError(f"{name}({given_!r:.500}): {error!r}") from error
            slowest = max(slowest, time.monotonic() - begun)

        run()
        fresh = tracker.performance.log_user_message("s", "fresh")
        assert tracker.flush(60).pending == 0
        assert tracker.security.verify_integrity().ok
    seqs = [event["seq"] for event in destination.events]
    assert seqs == list(range(1, len(seqs) + 1))
    assert fresh in [event["event_id"] for event in destination.events[-5:]]
    count = sum(tried.values())
    tell(
        f"public API at random | {count:,} calls, {len(seqs):,} events, "
        f"slowest call {slowest:.2f} s | 0 crashes, 0 lost"
    )


@_needs_atheris
def test_a_coverage_guided_fuzzer_finds_no_call_that_breaks(
    tmp_path: Path, config: MakeConfig, full: bool, tell: Callable[[str], None]
) -> None:
    """What it stored is whole, and all of it can be delivered."""
    runs = 60_000 if full else 1_000
    settings_ = config(base_url="http://127.0.0.1:9", max_event_bytes=100_000)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzzed_api", settings_.outbox_path, f"-runs={runs}",
         "-max_len=512", "-len_control=0", "-seed=9", "-timeout=20",
         f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT, capture_output=True, text=True, timeout=2_400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    destination = RecordingDestination()
    with Tracker(settings_, destination=lambda: destination) as tracker:
        assert tracker.flush(300).pending == 0
        assert tracker.security.verify_integrity().ok
    assert destination.events
    tell(
        f"public API (atheris) | {runs:,} calls, {len(destination.events):,} events stored and "
        "delivered | 0 crashes"
    )


# --- the collector --------------------------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("schemathesis", path=str(Path(sys.executable).parent)) is None,
    reason="schemathesis is not installed: pip install '.[fuzz]'",
)
def test_the_collectors_own_description_finds_no_500(
    tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """Requests made from ``/openapi.json``, right and wrong ones: no answer is a server's error."""
    with CollectorProcess(tmp_path, arguments=["--rate", "1000000"]) as collector:
        command = [
            str(Path(sys.executable).parent / "schemathesis"),
            "run", f"{collector.url}/openapi.json",
            "--checks", "not_a_server_error", "--phases", "fuzzing", "--no-color", "--seed", "9",
            "--max-examples", "500" if full else "3", "--suppress-health-check", "all",
            "--generation-database", "none",
        ]  # fmt: skip
        for name, value in collector.headers.items():
            command += ["-H", f"{name}: {value}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2_400, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3_000:]
        assert CollectorClient(collector.url, collector.client_id, collector.api_key).get(
            "/v1/ping"
        )
        assert "Traceback" not in collector.stderr
    figures = [line for line in done.stdout.splitlines() if " generated" in line]
    assert figures, done.stdout[-3_000:]
    tell(f"collector by its description (schemathesis) | {' '.join(figures).strip()} | 0 x 500")


def mutated(rng: random.Random, body: bytes) -> bytes:
    """Return a body with some bytes changed, cut out, doubled, or put in."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randint(1, 30)]
        elif kind == 2:
            changed[place:place] = changed[place : place + rng.randint(1, 30)]
        else:
            changed[place:place] = rng.choice(
                [b"null", b"1e999", b"-1", b"[]", b'"\\ud800"', b"\x00", b"9" * 5_000, b"{}" * 9]
            )
    return bytes(changed)


def test_damaged_batches_do_the_collector_no_harm(
    tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """Good batches with a few bytes changed: refused or stored, never a 500, never a hang."""
    rng = random.Random(9)  # noqa: S311 - repeatable
    count = 20_000 if full else 100
    answers: dict[int, int] = {}
    with CollectorProcess(tmp_path, arguments=["--rate", "10000000"]) as collector:
        client = CollectorClient(collector.url, collector.client_id, collector.api_key)
        chain = EventChain()
        body = json.dumps(chain.batch(chain.events(3), collector.client_id)).encode()
        for _ in itertools.repeat(None, count):
            answer = client.post(mutated(rng, body))
            answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
            assert answer.status_code in (200, 400, 403, 409, 413, 422), answer.text
        assert client.send(chain, [chain.event()])["accepted"] == 1
        assert "Traceback" not in collector.stderr
    tell(f"damaged batches | {count:,} bodies, answered {answers} | 0 x 500")
