"""The pages below ``/ui/``: `tracker.pages` over the events of a collector's clients."""
