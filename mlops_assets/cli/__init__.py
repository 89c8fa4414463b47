"""`mlops-assets`: the platform from a terminal."""

from __future__ import annotations

import os
import sys

import typer

from mlops_assets.cli import backtest, card, champions, runs, setup, trust, views
from mlops_assets.cli.base import app
from mlops_assets.errors import MlopsAssetsError
from mlops_assets.settings import ONE_THREAD, load_settings

__all__ = ["app", "backtest", "card", "champions", "main", "runs", "setup", "trust", "views"]


def main() -> None:
    """Run the command line; our own errors become one readable paragraph and exit code 1."""
    for name in ONE_THREAD:  # before numpy is imported, whose threads forks would inherit
        os.environ.setdefault(name, "1")
    try:
        app()
    except MlopsAssetsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(
            f"error: {error}. What was whole before is whole still. Check that there is room and "
            f"that {load_settings().home} can be written, or set MLOPS_ASSETS_HOME.",
            err=True,
        )
        sys.exit(1)
