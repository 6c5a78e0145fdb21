"""Appending to an outbox: group commit, transactions, and the bookkeeping of each."""
