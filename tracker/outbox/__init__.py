"""The outbox: a SQLite file that holds every event until a receipt says it is stored elsewhere."""
