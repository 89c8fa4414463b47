"""Readers of what publishers deliver: files in landing folders."""
