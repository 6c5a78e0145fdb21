"""The hash chain: its key, its verification, and the comparison with a collector."""
