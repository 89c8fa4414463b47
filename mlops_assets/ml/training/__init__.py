"""Choosing a candidate: the search for parameters, local and pooled models, references."""
