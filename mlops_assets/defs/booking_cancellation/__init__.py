"""Cancellations of hotel bookings by the guests' country, in 37 countries."""
