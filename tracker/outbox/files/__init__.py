"""What lies beside an outbox: its lock files, and which files are open here."""
