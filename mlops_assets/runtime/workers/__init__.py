"""Runs in warm processes: queues, sizes, heartbeats, lost runs."""
