"""`champion`: decisions, aliases, and what a person does to them."""
