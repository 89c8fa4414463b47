"""Statistics: metrics, the bootstrap of intervals, distances between distributions."""
