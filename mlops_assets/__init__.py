"""Country-partitioned data and model products on Dagster."""

from mlops_assets.access import load

__all__ = ["load"]
__version__ = "0.1.0"
