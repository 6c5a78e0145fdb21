"""The trackers: they build events from arguments and hand them to the outbox; no I/O here."""
