"""``tracker-collector serve``: the process that receives events."""
