"""SQL and HTTP sources, pulled into the landing folder."""
