"""Candidate against champion: the decision, and making it or a model again."""
