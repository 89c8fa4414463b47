"""What stands in for refused deliveries, judged over files as a country took them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.product import Product
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.datasets.ingestion import ingest
from mlops_assets.stages.datasets.judgement import (
    NOT_USED,
    JudgedCountry,
    NotUsed,
    judge_country,
)
from mlops_assets.stages.datasets.quarantine import quarantined, record_release
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.platform import settle

VALUE = "Demand (parcels)"


@dataclass
class Deliveries:
    """A country that takes one file after the other, and is judged after each."""

    product: Product
    home: Path
    seen: str = ""
    not_used: tuple[NotUsed, ...] = ()

    @property
    def country(self) -> CountryContext:
        store = SnapshotStore(str(self.home / "store"))
        return ProductContext(self.product, store).country("DEU")

    def deliver(self, name: str, start: str, values: list[float]) -> None:
        days = pd.date_range(start, periods=len(values)).strftime("%Y-%m-%d")
        file = self.home / "landing" / name
        file.parent.mkdir(exist_ok=True)
        pd.DataFrame({"Country": "DEU", "Date": days, VALUE: values}).to_csv(file, index=False)
        settle(file)
        store = SnapshotStore(str(self.home / "store"))
        context = ProductContext(self.product, store)
        assert not ingest(context, ["DEU"], str(file.parent), run_id="").refused

    def judge(self) -> JudgedCountry:
        """As a run of `validated` does, which accepts what is not refused."""
        ctx = self.country
        raw = ctx.store.read(ctx.path("raw"), "DEU")
        judged = judge_country(ctx, raw, seen=self.seen, before=self.not_used)
        self.not_used = judged.not_used
        if not self.refused:
            self.seen = raw["_ingested_at"].max().isoformat()
        return judged

    @property
    def refused(self) -> list[str]:
        return [each.file for each in self.not_used if each.verdict == "refused"]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return load_product(new_product("parcels", tmp_path_factory.mktemp("judgement")))


@pytest.fixture
def deliveries(product: Product, tmp_path: Path) -> Deliveries:
    return Deliveries(product, tmp_path)


def test_two_bad_versions_of_a_file_in_succession_leave_the_good_one_in_use(
    deliveries: Deliveries,
) -> None:
    deliveries.deliver("f.csv", "2024-01-01", [10.0 + day for day in range(100)])
    assert len(deliveries.judge().result.accepted) == 100
    for value in (500.0, 900.0):
        deliveries.deliver("f.csv", "2024-01-01", [-value] * 60 + [value] * 40)
        deliveries.judge()
    assert deliveries.refused == ["f.csv", "f.csv"]
    deliveries.deliver("g.csv", "2025-01-01", [20.0] * 50)
    accepted = deliveries.judge().result.accepted
    assert len(accepted) == 150
    assert sorted(accepted.loc[accepted["date"] < "2025", "demand"]) == [
        10.0 + day for day in range(100)
    ]
    deliveries.deliver("f.csv", "2024-01-01", [30.0] * 100)
    judged = deliveries.judge()
    assert (deliveries.refused, len(judged.result.accepted)) == ([], 150)
    assert (judged.result.accepted["demand"] == 30.0).sum() == 100


def test_a_run_that_finds_a_column_missing_keeps_in_mind_what_was_refused(
    deliveries: Deliveries, product: Product
) -> None:
    deliveries.deliver("f.csv", "2024-01-01", [10.0] * 100)
    deliveries.judge()
    deliveries.deliver("f.csv", "2024-01-01", [-500.0] * 60 + [500.0] * 40)
    deliveries.judge()
    refused = deliveries.not_used
    columns = {**product.spec.source.columns, "demand": "Demand (parcel)"}
    source = product.spec.source.model_copy(update={"columns": columns})
    spec = product.spec.model_copy(update={"source": source})
    deliveries.product = Product(product.name, product.folder, spec)
    assert deliveries.judge().result.missing_columns == ("Demand (parcel)",)
    assert deliveries.not_used == refused
    deliveries.product = product
    deliveries.deliver("g.csv", "2025-01-01", [20.0] * 50)
    assert len(deliveries.judge().result.accepted) == 150
    gone = replace(refused[0], content_hash="0" * 32)
    deliveries.product, deliveries.not_used = Product(product.name, product.folder, spec), (gone,)
    assert deliveries.judge().not_used == (), "no row of it stands"


def test_records_of_a_delivery_that_is_still_refused_are_not_released_by_a_wider_contract(
    deliveries: Deliveries, tmp_path: Path
) -> None:
    folder = new_product("parcels", tmp_path / "defs")
    contract = folder / "contract.py"
    text = contract.read_text()
    deliveries.deliver("f.csv", "2024-01-01", [10.0] * 99 + [-1.0])
    deliveries.deliver("bad.csv", "2025-01-01", [-1.0] * 30 + [-500.0] * 30 + [20.0] * 40)
    judged = deliveries.judge()
    assert (deliveries.refused, judged.result.rejected) == (["bad.csv"], 61)
    assert set(judged.used["_source_file"].astype(str)) == {"f.csv"}
    country = deliveries.country
    country.store.write(
        country.path("quarantine"), "DEU", judged.result.quarantine, run_id="",
        metadata={NOT_USED: [asdict(each) for each in judged.not_used]},
    )  # fmt: skip
    for least, released, refused in ((-10, 1, ["bad.csv"]), (-1000, 61, [])):
        contract.write_text(text.replace("ge=0", f"ge={least}"))
        deliveries.product = load_product(folder)
        state = quarantined(deliveries.country)
        assert state is not None
        assert (state.rows, state.releasable) == (61, released)
        now = deliveries.judge()
        assert deliveries.refused == refused
        logged = record_release(
            deliveries.country, now.result.quarantine, now.used, ("a", "b"), tags={}, run_id=""
        )
        assert logged == released
