"""Appending to an outbox: group commit, transactions, and their bookkeeping."""
