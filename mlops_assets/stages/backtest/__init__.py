"""Stored features for a backtest."""
