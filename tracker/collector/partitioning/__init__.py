"""The table `events` in PostgreSQL, divided by time: SQLite has one table."""
