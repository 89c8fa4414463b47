"""Whether customers buy again, by monthly cut-offs, in 43 countries of which one is large."""
