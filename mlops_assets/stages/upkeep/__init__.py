"""Retention of snapshots, and reproduction of registered models."""
