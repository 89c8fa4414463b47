"""Loading a stored model in a process that has never seen it."""
