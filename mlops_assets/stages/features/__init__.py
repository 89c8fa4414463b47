"""`features`, and those shared by all countries."""
