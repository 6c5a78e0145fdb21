"""``tracker-sync demo``: a complete run with real processes, and checks of the result."""
