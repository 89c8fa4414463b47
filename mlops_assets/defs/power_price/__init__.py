"""Next-day wholesale electricity prices in 31 countries."""
