"""A home with one product and one delivered file: what every case begins with."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

PRODUCT = "power_price"
SEED = 7
PROJECT = Path(__file__).resolve().parents[2]
COUNTRY, DATE, PRICE = "ISO3 Code", "Date", "Price (EUR/MWhe)"
EIGHT = ("DEU", "ESP", "FRA", "ITA", "NLD", "NOR", "POL", "SWE")
"""Large markets that the features name, all with a long history."""
_FILE = "european_wholesale_electricity_price_daily.parquet"
_NOISE = 0.02
"""Of a repeated country's prices: standard deviation as a share of each price."""
_LEFT_OUT = ("MLOPS_ASSETS_", "MLFLOW_", "DAGSTER_")
_FIXED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Source:
    """What is delivered.

    Attributes:
        frame: rows as published, of every country of the product.
        countries: the product's own, as its YAML lists them.
        told: where the rows are from, in words.
    """

    frame: pd.DataFrame
    countries: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class World:
    """One home, not used yet.

    Attributes:
        home: its folder.
        countries: that its product lists, all of them delivered.
    """

    home: Path
    countries: tuple[str, ...]

    @property
    def defs(self) -> Path:
        """The folder with the product's folder."""
        return self.home / "defs"

    @property
    def product(self) -> Path:
        """The folder of the product."""
        return self.defs / PRODUCT

    @property
    def landing(self) -> Path:
        """The folder with the one delivered file."""
        return self.home / "landing" / PRODUCT

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """This environment with nothing of the platform in it but the home and its product."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_LEFT_OUT)}
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        own = {
            "MLOPS_ASSETS_HOME": str(self.home),
            "MLOPS_ASSETS_DEFS": str(self.defs),
            "TMPDIR": str(temporary),
        }
        return {**kept, **_FIXED, **own, **(more or {})}


def source(data: Path | None) -> Source:
    """The published file of a folder; without one, what the product itself generates."""
    from mlops_assets.defs.power_price.sample import generate

    text = (PROJECT / "mlops_assets" / "defs" / PRODUCT / "defs.yaml").read_text()
    listed = re.findall(r"[A-Z]{3}", _countries_line(text).group())
    if data is None:
        return Source(generate(SEED), tuple(listed), f"generated, seed {SEED}")
    file = data / _FILE
    return Source(pd.read_parquet(file), tuple(listed), f"{_FILE}, as published")


def make(home: Path, delivered: Source, number: int) -> World:
    """A home with a product of so many countries.

    Eight are large markets with a long history; up to the product's own number they are the first
    of its list; above it they are repeated under other names with a little noise on the prices.

    Args:
        home: a folder that is not there yet.
        delivered: the rows.
        number: of countries, at least 1.
    """
    countries = _names(delivered.countries, number)
    world = World(home, countries)
    shutil.copytree(
        PROJECT / "mlops_assets" / "defs" / PRODUCT,
        world.product,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    _list_countries(world.product, countries)
    world.landing.mkdir(parents=True)
    file = world.landing / "delivery.parquet"
    _rows(delivered, countries).to_parquet(file, index=False)
    long_ago = time.time() - 3600  # a file of just now would be waited for
    os.utime(file, (long_ago, long_ago))
    return world


def told(delivered: Source, number: int) -> str:
    """What the countries of a home are, in a sentence."""
    own = len(delivered.countries)
    if number <= own:
        return f"{number} real countries ({delivered.told})"
    return (
        f"the {own} real countries ({delivered.told}) repeated to {number} under other names, with "
        f"{_NOISE:.0%} noise on the prices: alike in size and difficulty, not new markets"
    )


def _names(own: Sequence[str], number: int) -> tuple[str, ...]:
    if number <= len(EIGHT):
        return EIGHT[:number]
    names = [
        country if again == 0 else f"{country}_{again + 1}"
        for again in range(-(-number // len(own)))
        for country in own
    ]
    return tuple(sorted(names[:number]))


def _countries_line(text: str) -> re.Match[str]:
    found = re.search(r"^  countries: \[.*?\]$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "defs.yaml lists its countries in one line"
    return found


def _list_countries(product: Path, countries: Sequence[str]) -> None:
    file = product / "defs.yaml"
    text = file.read_text()
    line = _countries_line(text).group()
    file.write_text(text.replace(line, f"  countries: [{', '.join(countries)}]"))
    contract = product / "contract.py"
    # Names of repeated countries are longer than a code.
    contract.write_text(contract.read_text().replace("str_length=3", 'str_length={"min_value": 3}'))


def _rows(delivered: Source, countries: Sequence[str]) -> pd.DataFrame:
    """The rows of the countries in the order of the file: by day, as published."""
    by_country = dict(tuple(delivered.frame.groupby(COUNTRY, sort=False)))
    parts = [_renamed(by_country[name.partition("_")[0]], name) for name in countries]
    return pd.concat(parts).sort_values([DATE, COUNTRY], kind="stable", ignore_index=True)


def _renamed(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    if "_" not in name:
        return rows
    import numpy as np

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    noise = 1 + _NOISE * np.random.default_rng(seed).standard_normal(len(rows))
    return rows.assign(**{COUNTRY: name, PRICE: (rows[PRICE] * noise).round(2)})
