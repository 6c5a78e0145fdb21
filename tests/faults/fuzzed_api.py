"""The public API under the coverage-guided fuzzer: ``python -m tests.faults.fuzzed_api OUTBOX …``.

Further arguments are libFuzzer's. Each input becomes a call and its arguments; the call stores its
event or raises one of the package's own errors. Whoever started this looks at the outbox after.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris

with atheris.instrument_imports(include=["tracker"]):
    from tests.faults.test_random_input import public_calls
    from tracker import APIConfig, Tracker, TrackerError

if TYPE_CHECKING:
    from collections.abc import Callable

_ODD = (
    None,
    True,
    False,
    2**63,
    10**4_400,
    float("nan"),
    ...,
    int,
    {1},
    1j,
    "\ud800",
    "x" * 70_000,
)


def value(source: Any, depth: int = 0) -> Any:
    """Return any value, as the input says."""
    kind = source.ConsumeIntInRange(0, 8 if depth < 3 else 6)
    if kind == 0:
        return source.PickValueInList(list(_ODD))
    if kind == 1:
        return source.ConsumeInt(9)
    if kind == 2:
        return source.ConsumeFloat()
    if kind == 3:
        return source.ConsumeBytes(20)
    if kind == 4:
        return source.PickValueInList(["s1", "s2", "user", "agent", "high", "active", "gdpr"])
    if kind <= 6:
        return source.ConsumeUnicode(40)
    members = [value(source, depth + 1) for _ in range(source.ConsumeIntInRange(0, 3))]
    return members if kind == 7 else {source.ConsumeUnicode(8): member for member in members}


def arguments(source: Any, method: Callable[..., object]) -> dict[str, Any]:
    """Return a value for each required parameter, and for some of the others."""
    return {
        name: value(source)
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (parameter.default is parameter.empty or source.ConsumeBool())
    }


def main() -> None:
    """Fuzz until the runs that libFuzzer was told of are over."""
    config = APIConfig(
        api_key="k",
        client_id="test-client",
        base_url="http://127.0.0.1:9",
        outbox_path=Path(sys.argv.pop(1)),
        durability="process",
        max_event_bytes=100_000,
        backoff_base=60,
    )
    calls = public_calls(Tracker(config))

    def one(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        _, method = calls[source.ConsumeIntInRange(0, len(calls) - 1)]
        given = arguments(source, method)
        try:
            method(**given)
        except TrackerError:
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
