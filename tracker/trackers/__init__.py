"""The trackers: they build events from arguments and pass them to the outbox, without I/O."""
