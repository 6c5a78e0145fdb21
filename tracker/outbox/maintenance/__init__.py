"""Keeping an outbox small: retention, the bound on its size, erasure."""
