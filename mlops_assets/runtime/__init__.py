"""Launching: the Dagster instance, headless runs in warm processes, and everything `up` starts."""
