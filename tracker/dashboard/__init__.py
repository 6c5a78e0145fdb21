"""``tracker-sync dashboard``: the pages of `tracker.pages` over the outboxes of this device.

It listens on loopback only, and never writes to an outbox.
"""
