"""Forwarding: what arrives at the collector goes on to another receiver, in order."""
