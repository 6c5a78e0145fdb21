"""The command ``tracker-sync``."""
