"""How good a model is: on the holdout, by slice, with intervals, beside the baseline."""
