"""Delivered files: listing, reading, splitting by country, versions."""
