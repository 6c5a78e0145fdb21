"""Roll-ups: sums by day, kept up to date, from which reads are answered in PostgreSQL."""
