"""A product's folder: read strictly, checked, made into definitions, scaffolded."""

from mlops_assets.components.model_product import ModelProduct

__all__ = ["ModelProduct"]
