"""`tracker-collector`: the reference receiver of the ingest protocol.

It needs the extra ``agent-tracking-sdk[collector]`` and knows nothing of the outbox or the sync
worker: what both sides share is the protocol, ``tracker.canonical`` and ``tracker.errors``.
"""
