"""Power prices of a few countries, made once from the command line as a person would.

The tests of the command line look at what it said and left; those of the pages and services go on
from a copy of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mlops_assets.components.loading import load_product
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.platform import copy_registry, edit, sample_of
from mlops_assets_tests.runtime.serving import BIN, environment

PRODUCT = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / "power_price")
COUNTRY, DATE, PRICE = "ISO3 Code", "Date", "Price (EUR/MWhe)"
UNDELIVERED = ("CHE", "NOR")
"""Listed, and nobody ever sent a row of them."""
_PART = ("AUT", "DEU", "FRA")
COUNTRIES = [c for c in PRODUCT.spec.countries if c not in UNDELIVERED] if WHOLE else list(_PART)
"""Delivered: all others in `make nightly`; each is a run of its own, whatever the number."""
LISTED = [*COUNTRIES, *UNDELIVERED]
NEW_DAYS = 30
"""Not delivered yet."""
RESTATED = "DEU"
"""A country whose prices are in a file of their own."""
_SECONDS = 900


def make(folder: Path) -> None:
    """`materialize --all` in `folder/home` on `folder/defs`, and in `folder/said` what it said.

    The home has nothing but files that landed, as that of a new user.
    """
    home, defs = folder / "home", folder / "defs"
    quickly_trained(defs / PRODUCT.name, LISTED)
    earlier = published()
    earlier = earlier[~newest(earlier, NEW_DAYS)]
    own = earlier[COUNTRY] == RESTATED
    deliver(home, earlier[~own], "history.parquet")
    deliver(home, earlier[own], f"{RESTATED}.csv")
    # One worker: another one pays for a server of its own, on a machine with more tests to run.
    more = {"MLOPS_ASSETS_DEFS": str(defs), "MLOPS_ASSETS_CONCURRENCY": "1"}
    done = subprocess.run(
        [str(BIN / "mlops-assets"), "materialize", PRODUCT.name, "--all", "--json"],
        env=environment(home, **more),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    (folder / "said").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))


def what_it_said(made: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    code, output, errors = json.loads((made / "said").read_text())
    return code, output, errors


def going_on(made: Path, into: Path) -> Path:
    """A copy of home and product for somebody to go on with; the home."""
    old, home = made / "home", into / "home"
    shutil.copytree(made / "defs", into / "defs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(old, home, ignore=shutil.ignore_patterns("tmp", "mlflow.db*"))
    copy_registry(old / "mlflow", home / "mlflow")
    return home


def quickly_trained(made: Path, countries: Sequence[str]) -> None:
    """The product in another folder, with small models and some of its countries.

    For tests of data, of pages and of processes, to which it is all one how good a model is.
    """
    shutil.copytree(PRODUCT.folder, made, ignore=shutil.ignore_patterns("__pycache__"))
    edit(
        made / "defs.yaml",
        (
            f"countries: [{', '.join(PRODUCT.spec.countries)}]",
            f"countries: [{', '.join(countries)}]",
        ),
        ("max_iter: 200", "max_iter: 15"),
        ("max_iter: 60", "max_iter: 8"),
    )


def published() -> pd.DataFrame:
    """The product's own generated delivery, of the delivered countries."""
    frame = sample_of(PRODUCT)
    return frame[frame[COUNTRY].isin(COUNTRIES)].reset_index(drop=True)


def newest(frame: pd.DataFrame, days: int) -> pd.Series:
    """Which rows are of the last days of their country."""
    day = pd.to_datetime(frame[DATE])
    return day > day.groupby(frame[COUNTRY]).transform("max") - pd.Timedelta(days=days)


def deliver(home: Path, frame: pd.DataFrame, name: str, product: str = PRODUCT.name) -> None:
    """As publishers should: whole under another name first, then renamed."""
    folder = home / "landing" / product
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.part"
    if name.endswith(".csv"):
        frame.to_csv(part, index=False)
    else:
        frame.to_parquet(part, index=False)
    part.rename(folder / name)
