"""Country-partitioned data and model products on Dagster."""

import os

# Arrow's usual allocator hands memory back early and takes it again in large pieces: a fifth of
# the CPU time of ingesting many rows. It is chosen once, before Arrow is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from mlops_assets.access import load

__all__ = ["load"]
__version__ = "0.1.0"
