"""Audit exports: files of events that can be checked without the outbox that they came from."""
