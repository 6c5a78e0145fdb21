"""Keeping an outbox small: retention, the size limit, and erasure."""
