"""Damaged, deleted and replaced outboxes: salvage, rescue and a new file."""
