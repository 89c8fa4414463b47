"""Dagster's history on connections a process keeps: SQLite and PostgreSQL."""
