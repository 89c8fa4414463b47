"""What Dagster remembers of runs, sensors and schedules."""
