"""What a retraining policy would have been worth in the past."""
