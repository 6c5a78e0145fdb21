"""``tracker-collector doctor``: what is wrong with a database, or soon will be."""
