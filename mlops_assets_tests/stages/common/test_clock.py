"""Up to when records are known, whatever is damaged of one country."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from mlops_assets.product import Product
from mlops_assets.stages.common.clock import INGESTED_UNTIL, clock_metadata, clock_of, clock_of_all
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.ml.scenarios import product

INGESTED = "2024-06-15T00:00:00+00:00"


def context(root: Path, *, recorded: bool) -> ProductContext:
    spec = product(cutoffs={"every": "month", "first": "2024-01-01", "grace": "1d"})
    store = SnapshotStore(str(root))
    for month, country in enumerate(("DEU", "FRA", "LUX"), start=4):
        times = pd.date_range("2024-01-03", f"2024-{month:02}-10")
        rows = pd.DataFrame({"date": times, "country": country})
        said = clock_metadata(rows["date"], INGESTED, None) if recorded else {}
        metadata = {INGESTED_UNTIL: INGESTED, **said}
        store.write(("test", "validated"), country, rows, metadata=metadata)
    made = SimpleNamespace(name="test", spec=spec)
    return ProductContext(cast(Product, made), store)


def damage(root: Path, country: str, file: str) -> None:
    (path,) = [each for each in root.rglob(file) if country in str(each)]
    path.write_bytes(b"PAR1" + bytes(100))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_file_of_one_country_stops_no_other_countrys_clock(
    tmp_path: Path, recorded: bool
) -> None:
    ctx = context(tmp_path, recorded=recorded)
    assert clock_of_all(ctx) == dt.datetime(2024, 5, 2)
    damage(tmp_path, "DEU", "_current.json" if recorded else "*.parquet")
    assert clock_of(CountryContext(ctx, "LUX")) == dt.datetime(2024, 6, 2)
    assert clock_of_all(ctx) == clock_of_all(ctx.read_once()) == dt.datetime(2024, 5, 2)


def test_a_look_at_many_countries_reads_the_times_of_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, read = context(tmp_path, recorded=False), []
    whole = SnapshotStore.read

    def counted(store: SnapshotStore, *args: Any, **named: Any) -> pd.DataFrame:
        read.append(named["columns"])
        return whole(store, *args, **named)

    monkeypatch.setattr(SnapshotStore, "read", counted)
    look = ctx.read_once()
    for country in ctx.countries:
        clock_of(CountryContext(look, country))
    assert read == [["date"]] * 3
