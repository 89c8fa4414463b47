"""`python -m mlops_assets.cli`."""

from mlops_assets.cli import program

program()
