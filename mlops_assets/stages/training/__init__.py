"""`pooled_model` and `model`: candidates, tried and judged."""
