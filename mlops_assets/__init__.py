"""Country-partitioned data and model products on Dagster."""

__version__ = "0.1.0"
