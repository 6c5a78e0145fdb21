"""Which fast tests are to notice a fault in which part; the most likely to notice come first."""

from __future__ import annotations

_STORE = (
    "unit/outbox/store/test_write_connection.py",
    "unit/outbox/store/test_memory_buffer.py",
    "unit/outbox/store/test_intake.py",
    "unit/outbox/store/test_connections.py",
    "unit/outbox/store/test_trouble.py",
    "contract/outbox/test_file_taken_away.py",
    "contract/outbox/test_outbox.py",
    "contract/outbox/test_tampering.py",
    "contract/test_lifecycle.py",
    "contract/outbox/test_one_file_one_outbox.py",
    "contract/outbox/test_salvage.py",
)
_GROUP = (
    "unit/outbox/store/test_write_connection.py",
    "unit/outbox/store/test_group_commit.py",
    "unit/outbox/store/test_group_commit_model.py",
    "contract/outbox/test_outbox.py",
)
_HANDOVER = (
    "unit/outbox/files/test_pipe.py",
    "unit/outbox/store/test_handover.py",
    "contract/outbox/test_crowd.py",
    "unit/outbox/store/test_handover_model.py",
)
_QUEUE = (
    "unit/outbox/queue/test_batches.py",
    "unit/outbox/queue/test_browse.py",
    "unit/sync/test_uploader.py",
    "unit/cli/test_dead.py",
    "unit/cli/test_events.py",
    "unit/cli/test_status.py",
    "contract/test_lifecycle.py",
    "contract/outbox/test_outbox.py",
    "contract/sync/test_answers.py",
    "contract/sync/test_no_answer.py",
    "contract/sync/test_requests.py",
)
_SYNC = (
    "unit/sync/test_uploader.py",
    "unit/sync/test_receipts.py",
    "unit/delivery/test_retry.py",
    "unit/delivery/test_sizing.py",
    "unit/sync/test_rate_limit.py",
    "unit/delivery/test_compression.py",
    "unit/sync/test_made.py",
    "unit/delivery/test_proxy_passwords.py",
    "contract/test_lifecycle.py",
    "contract/sync/test_http.py",
    "contract/outbox/test_damaged_rows.py",
    "contract/sync/test_connections.py",
    "contract/sync/test_deadline.py",
    "contract/sync/test_answers.py",
    "contract/sync/test_no_answer.py",
    "contract/sync/test_requests.py",
)

_OTLP = (
    "unit/otlp/test_ids.py",
    "unit/otlp/test_mapping.py",
    "unit/otlp/test_mapper.py",
    "unit/otel/test_round_trip.py",
    "contract/sync/otlp/test_answers.py",
    "contract/sync/otlp/test_verbatim.py",
)
_GIVEN_UP = (
    "unit/test_discards.py",
    "contract/outbox/test_outbox.py",
    "unit/outbox/integrity/test_compare.py",
    "contract/outbox/test_against_collector.py",
    "contract/outbox/test_salvage.py",
)

_PARTS = {
    "tracker/discards.py": _GIVEN_UP,
    "tracker/outbox/store/discards.py": _GIVEN_UP,
    "tracker/outbox/integrity/compare.py": _GIVEN_UP,
    "tracker/outbox/store/gaps.py": ("contract/outbox/test_proofs.py", *_GIVEN_UP),
    "tracker/outbox/integrity/proofs.py": ("contract/outbox/test_proofs.py",),
    "tracker/collector/forks.py": ("contract/outbox/test_copies.py",),
    "tracker/collector/integrity.py": ("unit/collector/test_integrity.py",),
    "tracker/outbox/store/group_commit.py": _GROUP,
    "tracker/outbox/store/leadership.py": _GROUP,
    "tracker/outbox/store/handover.py": _HANDOVER,
    "tracker/outbox/files/pipe.py": _HANDOVER,
    "tracker/outbox/store/ballast.py": ("unit/outbox/store/test_ballast.py", *_STORE),
    "tracker/outbox/store/erasures.py": (
        "unit/outbox/queue/test_batches.py",
        "contract/outbox/test_erasure.py",
    ),
    "tracker/outbox/store/": _STORE,
    "tracker/outbox/queue/": _QUEUE,
    "tracker/sync/": _SYNC,
    "tracker/delivery/": _SYNC,
    "tracker/otlp/": _OTLP,
}


def fast_tests_of(file: str) -> list[str]:
    """Return the tests of a file, by the longest beginning of its name that is listed."""
    known = [part for part in _PARTS if file.startswith(part)]
    if not known:
        raise SystemExit(f"{file}: parts.py lists no tests for it; name them with --tests")
    return [f"tests/{name}" for name in _PARTS[max(known, key=len)]]
