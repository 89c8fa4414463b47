"""What the platform costs beside a plain script that does the same work."""
