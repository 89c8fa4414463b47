"""A product of generated orders."""
