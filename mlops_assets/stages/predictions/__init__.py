"""`predictions` of what serves."""
