"""The memory of the landing folder: what is looked at, how often, and what it costs to lose it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.product import Product
from mlops_assets.sources.files.landing import Listed
from mlops_assets.sources.files.reading import SourceFile, Survey
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets import inventory
from mlops_assets.stages.datasets.ingestion import ingest
from mlops_assets.stages.datasets.inventory import Inventory, take_inventory, unknown_files
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.platform import settle

GOOD = "Country,Date,Demand (parcels)\nDEU,2024-01-01,1\nFRA,2024-01-01,2\nDEU,2024-01-02,3\n"
DAMAGED = "Country,Date,Demand (parcels)\nDEU,2024-01-01\n"
OTHER_COLUMN = ("country: Country", "country: Land")


@dataclass
class Place:
    """A landing folder, the memory of it, and which files were read."""

    product: Product
    store: SnapshotStore
    landing: Path
    hashed: list[str]
    surveyed: list[str]

    def put(self, name: str, text: str = GOOD) -> Path:
        file = self.landing / name
        file.write_text(text)
        settle(file)
        return file

    def take(self) -> Inventory:
        self.hashed.clear()
        self.surveyed.clear()
        return take_inventory(ProductContext(self.product, self.store), str(self.landing))

    def unknown(self) -> list[str]:
        return [
            each.name
            for each in unknown_files(ProductContext(self.product, self.store), str(self.landing))
        ]


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_product("parcels", tmp_path_factory.mktemp("inventory"))


@pytest.fixture
def place(defs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(load_product(defs), SnapshotStore(str(tmp_path / "store")), tmp_path / "landing",
                 [], [])  # fmt: skip
    made.landing.mkdir()
    hash_, survey_ = inventory.hashed, inventory.survey

    def hashed(listed: Listed) -> SourceFile | None:
        made.hashed.append(listed.name)
        return hash_(listed)

    def survey(file: SourceFile, column: str) -> Survey:
        made.surveyed.append(file.name)
        return survey_(file, column)

    monkeypatch.setattr(inventory, "hashed", hashed)
    monkeypatch.setattr(inventory, "survey", survey)
    return made


def test_a_file_is_read_once_and_then_known_by_its_stamp(place: Place) -> None:
    place.put("a.csv")
    first = place.take()
    assert (place.hashed, place.surveyed) == (["a.csv"], ["a.csv"])
    assert list(first.rows.values()) == [{"DEU": 2, "FRA": 1}]
    assert first.names == {"a.csv": next(iter(first.rows))}
    again = place.take()
    assert (place.hashed, place.surveyed) == ([], [])
    assert (again.rows, again.names, again.problems) == (first.rows, first.names, {})
    assert list(again.columns.values()) == [("Country", "Date", "Demand (parcels)")]


def test_a_folder_without_news_leaves_the_memory_as_it_was(place: Place) -> None:
    place.put("a.csv")
    place.take()
    files = sorted((place.landing.parent / "store").rglob("*"))
    written = [file.stat().st_mtime_ns for file in files]
    place.take()
    assert sorted((place.landing.parent / "store").rglob("*")) == files
    assert [file.stat().st_mtime_ns for file in files] == written


def test_a_touched_file_is_hashed_and_its_rows_are_not_taken_again(place: Place) -> None:
    file = place.put("a.csv")
    before = ingest(
        ProductContext(place.product, place.store), ["DEU"], str(place.landing), run_id=""
    )
    settle(file)
    assert place.unknown() == ["a.csv"]
    place.hashed.clear()
    place.surveyed.clear()
    after = ingest(
        ProductContext(place.product, place.store), ["DEU"], str(place.landing), run_id=""
    )
    assert (place.hashed, place.surveyed) == (["a.csv"], [])
    assert after.deliveries["DEU"].snapshot == before.deliveries["DEU"].snapshot
    assert not after.deliveries["DEU"].changed
    assert place.unknown() == []


def test_a_copy_is_hashed_and_not_surveyed(place: Place) -> None:
    place.put("b.csv")
    place.take()
    place.put("a.csv")
    found = place.take()
    assert (place.hashed, place.surveyed) == (["a.csv"], [])
    assert set(found.names) == {"a.csv", "b.csv"}
    assert [file.name for file in found.files.values()] == ["a.csv"]


def test_another_country_column_in_the_yaml_surveys_again_and_the_sensor_hears_of_it(
    place: Place, defs: Path, tmp_path: Path
) -> None:
    place.put("a.csv", GOOD.replace("Country", "Land"))
    assert "no country column 'Country'" in place.take().problems["a.csv"]
    assert place.unknown() == []
    folder = shutil.copytree(defs, tmp_path / "defs" / "parcels")
    yaml = folder / "defs.yaml"
    yaml.write_text(yaml.read_text().replace(*OTHER_COLUMN))
    place.product = load_product(folder)
    assert place.unknown() == ["a.csv"], "its stamp is the same, and nobody looked at that column"
    found = place.take()
    assert place.surveyed == ["a.csv"]
    assert (list(found.rows.values()), found.problems) == ([{"DEU": 2, "FRA": 1}], {})
    assert place.unknown() == []


def test_a_lost_memory_costs_a_survey_of_every_file_and_nothing_else(place: Place) -> None:
    place.put("a.csv")
    place.put("b.csv", GOOD.replace("2024", "2023"))
    before = ingest(
        ProductContext(place.product, place.store), ["DEU", "FRA"], str(place.landing), run_id=""
    )
    remembered = place.take()
    shutil.rmtree(place.landing.parent / "store" / "parcels" / "inventory")
    assert place.unknown() == ["a.csv", "b.csv"]
    assert place.take() == remembered
    assert place.surveyed == ["a.csv", "b.csv"]
    after = ingest(
        ProductContext(place.product, place.store), ["DEU", "FRA"], str(place.landing), run_id=""
    )
    for country, delivery in after.deliveries.items():
        assert (delivery.taken, delivery.changed) == ((), False)
        assert delivery.snapshot == before.deliveries[country].snapshot


def test_the_inventory_of_an_earlier_release_is_a_lost_one(place: Place) -> None:
    """It was a log."""
    row = {"content_hash": "0" * 32, "file": "a.csv", "country_column": "Country",
           "country": "DEU", "rows": 3, "surveyed_at": pd.Timestamp.now(tz="UTC")}  # fmt: skip
    place.store.append(("parcels", "inventory"), None, pd.DataFrame([row]))
    place.put("a.csv")
    assert place.unknown() == ["a.csv"]
    assert list(place.take().rows.values()) == [{"DEU": 2, "FRA": 1}]
    assert place.unknown() == []


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _link_to_nowhere(file: Path) -> None:
    file.symlink_to(file.parent / "nothing.csv")


def _damaged(file: Path) -> None:
    file.write_text(DAMAGED)
    settle(file)


def _not_permitted(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    file.write_text(GOOD)
    settle(file)
    file.chmod(0)


@pytest.mark.parametrize("make", [_pipe, _link_to_nowhere, _damaged, _not_permitted])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_known(
    place: Place, make: Callable[[Path], None]
) -> None:
    make(place.landing / "bad.csv")
    settle_all(place)
    place.put("good.csv")
    found = place.take()
    assert list(found.problems) == ["bad.csv"]
    assert found.problems["bad.csv"].startswith("bad.csv: ")
    assert set(found.names) == {"good.csv"}
    assert place.unknown() == [], "it was looked at since it last changed"


def settle_all(place: Place) -> None:
    settle(*(file for file in place.landing.iterdir() if file.exists()))


def test_a_file_that_was_set_aside_is_looked_at_again_when_it_changes(place: Place) -> None:
    place.put("a.csv", DAMAGED)
    place.take()
    assert place.unknown() == []
    place.put("a.csv")
    assert place.unknown() == ["a.csv"]
    assert place.take().problems == {}


def test_looking_for_unknown_files_opens_none(place: Place) -> None:
    """Opening a named pipe would wait for ever."""
    os.mkfifo(place.landing / "pipe.csv")
    settle_all(place)
    place.put("a.csv")
    assert place.unknown() == ["a.csv", "pipe.csv"]
    assert place.hashed == []


def test_a_changed_content_behind_the_same_stamp_is_not_read(place: Place) -> None:
    file = place.put("a.csv")
    place.take()
    held = file.stat()
    with file.open("r+") as stream:
        stream.write("X")
    os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))
    assert place.unknown() == []
    place.take()
    assert place.hashed == []


def test_a_file_that_changed_just_now_is_unknown_only_once_it_is_quiet(place: Place) -> None:
    file = place.put("a.csv")
    place.take()
    file.write_text(GOOD + "FRA,2024-01-02,4\n")
    assert place.unknown() == []
    settle(file)
    assert place.unknown() == ["a.csv"]


def test_files_that_were_taken_away_are_forgotten_and_their_survey_is_kept(place: Place) -> None:
    file = place.put("a.csv")
    place.put("b.csv", GOOD.replace("2024", "2023"))
    place.take()
    file.rename(place.landing.parent / "a.csv")
    found = place.take()
    assert set(found.names) == {"b.csv"}
    assert len(found.rows) == 2
    (place.landing.parent / "a.csv").rename(file)
    assert set(place.take().names) == {"a.csv", "b.csv"}
    assert place.surveyed == []


def test_a_folder_that_is_not_there_holds_nothing(place: Place) -> None:
    place.landing.rmdir()
    assert place.take() == Inventory({}, {}, {}, {}, ())
    assert place.unknown() == []
