"""What the closed loop is worth on generated products whose world changes."""
