"""Deletes what is older than it has to be kept, and archives it before."""
