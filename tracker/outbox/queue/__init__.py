"""What is pending: batches, receipts, dead letters, and lists of events."""
