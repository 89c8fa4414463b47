"""Which countries are trained again, and why the others are not."""
