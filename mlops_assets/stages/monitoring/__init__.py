"""`performance` and `drift`."""
