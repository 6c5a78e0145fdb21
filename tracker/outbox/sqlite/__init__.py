"""What is known of SQLite: connections, the file format, and what its errors mean."""
