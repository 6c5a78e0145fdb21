"""`tracker-collector`: the reference receiver of the ingest protocol.

It needs the extra ``agent-tracking-sdk[collector]`` and imports neither the outbox nor the sync
worker: both sides share only the protocol, ``tracker.canonical`` and ``tracker.errors``.
"""
