"""Audit exports: files of events that can be verified without their outbox."""
