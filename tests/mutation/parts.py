"""Which fast tests are to notice a fault in which part; the most likely to notice come first."""

from __future__ import annotations

_STORE = ("unit/test_writer.py", "unit/test_buffer.py", "contract/test_outbox.py",
          "contract/test_tampering.py", "contract/test_lifecycle.py",
          "contract/test_one_file_one_outbox.py", "contract/test_salvage.py")  # fmt: skip
_GROUP = ("unit/test_writer.py", "unit/test_group_commit.py", "unit/test_group_commit_model.py",
          "contract/test_outbox.py")  # fmt: skip
_QUEUE = ("unit/test_uploader.py", "unit/test_cli_dead.py", "unit/test_cli_events.py",
          "contract/test_lifecycle.py", "contract/test_outbox.py", "contract/test_answers.py",
          "unit/test_cli_status.py")  # fmt: skip
_SYNC = ("unit/test_uploader.py", "unit/test_receipts.py", "unit/test_retry.py",
         "unit/test_sizing.py", "unit/test_rate_limit.py", "unit/test_compression.py",
         "unit/test_proxy_passwords.py", "contract/test_http.py", "contract/test_deadline.py",
         "contract/test_connections.py", "contract/test_damaged_rows.py",
         "contract/test_lifecycle.py", "contract/test_answers.py")  # fmt: skip

_PARTS = {
    "tracker/outbox/store/group_commit.py": _GROUP,
    "tracker/outbox/store/leadership.py": _GROUP,
    "tracker/outbox/store/": _STORE,
    "tracker/outbox/queue/": _QUEUE,
    "tracker/sync/": _SYNC,
}


def fast_tests_of(file: str) -> list[str]:
    """Return the tests of a file, by the longest beginning of its name that is listed."""
    known = [part for part in _PARTS if file.startswith(part)]
    if not known:
        raise SystemExit(f"{file}: parts.py lists no tests for it; name them with --tests")
    return [f"tests/{name}" for name in _PARTS[max(known, key=len)]]
