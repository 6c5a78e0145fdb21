"""What we know about SQLite: how to connect, and its file format."""
