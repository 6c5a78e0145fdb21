"""The queue of events: batches, receipts, dead letters, and lists."""
