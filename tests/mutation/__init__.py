"""A mutation check: which small faults in a part of `tracker` its fast tests notice."""
