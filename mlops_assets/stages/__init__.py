"""Dagster, thin: one file a stage, each with its assets and their checks."""

from mlops_assets.stages.product import build_product

__all__ = ["build_product"]
