"""Sealed files: what an outbox and a collector exchange by hand, where no network is."""
