"""`raw`, `validated` and `quarantine`: from delivered files to records."""
