"""Requests over HTTP with one outcome each, and when to try again: for uploads and forwarding."""
