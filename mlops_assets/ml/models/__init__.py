"""Fitting and predicting, naive baselines, and which rows are for what."""
