"""From records to features of an event, computed from what was known then."""
