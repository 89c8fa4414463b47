"""Realised error and drift of what serves."""
