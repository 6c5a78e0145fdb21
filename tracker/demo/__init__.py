"""``tracker-sync demo``: a whole run with real processes, and the checks on what arrived."""
