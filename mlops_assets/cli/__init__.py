"""`mlops-assets`: the platform from a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from mlops_assets.cli import backtest, card, champions, deliveries, runs, setup, trust, views
from mlops_assets.cli.base import app
from mlops_assets.errors import MlopsAssetsError
from mlops_assets.settings import ONE_THREAD, load_settings

__all__ = [
    "app",
    "backtest",
    "card",
    "champions",
    "deliveries",
    "runs",
    "setup",
    "trust",
    "views",
]


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


def program() -> NoReturn:
    """`main` as all that a process does.

    One that loaded everything for its workers ends at once. Python would look through all of it
    for garbage first, which takes longer than most commands; files and workers are closed by now.
    """
    code: str | int | None = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    executor = sys.modules.get("mlops_assets.runtime.workers.run_executor")
    if executor is not None and executor.is_loaded() and isinstance(code, int):
        with suppress(OSError):  # nobody reads, or no room: Python says so at its own end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)
