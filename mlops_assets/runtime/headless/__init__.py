"""Runs without a daemon: phases, worker processes, the demo."""
