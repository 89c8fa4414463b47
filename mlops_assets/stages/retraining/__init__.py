"""The retraining sensor and the periodic schedule."""
