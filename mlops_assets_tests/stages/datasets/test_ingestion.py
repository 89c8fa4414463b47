"""What stands in `raw` is what lies in the landing folder, however its files were moved about."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.delivery_checks import check_limits
from mlops_assets.stages.datasets.ingestion import (
    Delivered,
    Ingestion,
    deliveries_of,
    ingest,
    live_rows,
)
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import examples
from mlops_assets_tests.platform import Platform, checks, settle

COUNTRIES = ("DEU", "FRA")
START = dt.datetime(2026, 3, 6, 12, tzinfo=dt.UTC)
RAW = ("parcels", "raw")
VALUE = "Demand (parcels)"
NAMES = ("a.csv", "b.csv", "c.csv", "d.csv")
Record = tuple[str, int, int]
"""Published country, day, value."""


def records(country: str, first: int, last: int) -> list[Record]:
    return [(country, day, day * 10) for day in range(first, last)]


CONTENTS: Mapping[str, list[Record]] = {
    "early": records("DEU", 0, 3),
    "grown": records("DEU", 0, 4),
    "restated": [("DEU", 0, 5), *records("DEU", 1, 3)],
    "both": records("DEU", 4, 6) + records("FRA", 4, 5),
    "french": records("FRA", 0, 2),
    "twice": records("FRA", 0, 2) * 2,
    "strangers": records("XXX", 0, 2),
    "empty": [],
    "damaged": [],
}


def text_of(content: str) -> str:
    if content == "damaged":
        return f"Country,Date,{VALUE}\nDEU\n"
    rows = [f"{country},2024-01-{day + 1:02},{value}" for country, day, value in CONTENTS[content]]
    return "\n".join([f"Country,Date,{VALUE}", *rows]) + "\n"


@dataclass
class Folder:
    """A landing folder and what was taken from it."""

    product: Product
    home: Path
    taken: list[Ingestion] = field(default_factory=list)

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def store(self) -> SnapshotStore:
        return SnapshotStore(str(self.home / "store"))

    def put(self, **contents: str) -> None:
        """Drop or replace files by name, without their ending."""
        for name, content in contents.items():
            self.lay({f"{name}.csv": content})

    def lay(self, contents: Mapping[str, str | None]) -> None:
        """Files by name; None takes one away."""
        self.landing.mkdir(exist_ok=True)
        for name, content in contents.items():
            (self.landing / name).unlink(missing_ok=True)
            if content is not None:
                (self.landing / name).write_text(text_of(content))
                settle(self.landing / name)

    def rename(self, new_names: Mapping[str, str]) -> None:
        """All at once, as where each file of a series gets the name of the next."""
        held = {name: self.landing / name for name in new_names}
        there = {name: path.rename(f"{path}.tmp") for name, path in held.items() if path.exists()}
        for name, path in there.items():
            path.rename(self.landing / new_names[name])

    def take(self) -> Ingestion:
        taken = ingest(
            ProductContext(self.product, self.store), COUNTRIES, str(self.landing), run_id=""
        )
        assert taken.refused == {}
        self.taken.append(taken)
        return taken

    def standing(self, country: str = "DEU") -> Counter[Record]:
        if self.store.current(RAW, country) is None:
            return Counter()
        rows = live_rows(self.store.read(RAW, country))
        days = pd.to_datetime(rows["Date"]).dt.day - 1
        values = rows[VALUE].astype(float).astype(int)
        return Counter(zip(rows["Country"], days.tolist(), values.tolist(), strict=True))

    def stands_for(self, country: str = "DEU") -> dict[str, int]:
        """Rows that stand by the name of their file."""
        rows = live_rows(self.store.read(RAW, country))
        return dict(Counter(rows["_source_file"].astype(str)))


def expected(contents: set[str], country: str) -> Counter[Record]:
    rows = [row for content in contents for row in CONTENTS[content] if row[0] == country]
    return Counter(rows)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Product]:
    """The scaffolded product by its kind of delivery."""
    found = {}
    for kind in ("increment", "full"):
        folder = new_product("parcels", tmp_path_factory.mktemp("defs") / kind)
        yaml = folder / "defs.yaml"
        text = yaml.read_text().replace("  source:\n", f"  source:\n    delivery: {kind}\n")
        yaml.write_text(text)
        found[kind] = load_product(folder)
    return found


@pytest.fixture
def folder(products: dict[str, Product], tmp_path: Path) -> Folder:
    return Folder(products["increment"], tmp_path)


@pytest.fixture
def full(products: dict[str, Product], tmp_path: Path) -> Folder:
    """A landing folder in which every file is the whole history."""
    return Folder(products["full"], tmp_path)


@contextmanager
def new_folder(product: Product) -> Iterator[Folder]:
    with tempfile.TemporaryDirectory() as home:
        yield Folder(product, Path(home))


names = st.sampled_from(NAMES)
laid = st.dictionaries(names, st.sampled_from(sorted(CONTENTS)), min_size=1, max_size=4)
renamed = st.permutations(NAMES).map(lambda order: dict(zip(NAMES, order, strict=True)))
changes = st.lists(st.tuples(renamed, laid), min_size=1, max_size=4)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
@settings(max_examples=examples(20), deadline=None)
@given(happened=changes)
def test_every_content_that_lies_there_stands_once_whatever_files_were_renamed_or_overwritten(
    products: dict[str, Product], happened: list[tuple[dict[str, str], dict[str, str]]]
) -> None:
    """Overwriting and renaming leave no file out, so that nothing else can stand."""
    with new_folder(products["increment"]) as folder:
        newest: dict[str, str] = {}
        for renames, contents in happened:
            contents = {n: c for n, c in contents.items() if c != "damaged"}
            if set(newest) == set(NAMES):  # else a name would be left without a file
                folder.rename(renames)
                newest = {renames[name]: content for name, content in newest.items()}
            folder.lay(contents)
            newest |= contents
            folder.take()
            for country in COUNTRIES:
                assert folder.standing(country) == expected(set(newest.values()), country)
                _require_sum(folder, country)


@settings(max_examples=examples(15), deadline=None)
@given(
    happened=st.lists(
        st.tuples(renamed, st.dictionaries(names, st.sampled_from([None, *sorted(CONTENTS)]))),
        min_size=1,
        max_size=5,
    )
)
def test_a_file_taken_away_or_damaged_takes_nothing_with_it_and_no_content_stands_twice(
    products: dict[str, Product],
    happened: list[tuple[dict[str, str], dict[str, str | None]]],
) -> None:
    with new_folder(products["increment"]) as folder:
        ever: set[str] = set()
        newest: dict[str, str | None] = {}
        for renames, contents in happened:
            folder.lay({})
            folder.rename(renames)
            newest = {renames[name]: content for name, content in newest.items()}
            folder.lay(contents)
            newest |= contents
            there = {each for each in newest.values() if each} - {"damaged"}
            ever |= there
            folder.take()
            for country in COUNTRIES:
                stands = folder.standing(country)
                assert expected(there, country) <= stands <= expected(ever, country)
                _require_sum(folder, country)


def _require_sum(folder: Folder, country: str) -> None:
    """All rows of a country are the rows it took, and what is replaced is told."""
    raw = folder.store.current(RAW, country)
    if raw is not None:
        every = deliveries_of(raw)
        assert raw.rows == sum(each.appended for each in every)
        stands = sum(folder.standing(country).values())
        assert raw.rows - stands == sum(each.replaced for each in every)


@pytest.mark.nightly  # any files; those of one whole history and the next are below, one by one
@settings(max_examples=examples(12), deadline=None)
@given(happened=st.lists(laid, min_size=1, max_size=5))
def test_of_files_that_are_the_whole_history_one_stands_and_a_new_one_is_it(
    products: dict[str, Product], happened: list[dict[str, str]]
) -> None:
    with new_folder(products["full"]) as folder:
        ever: set[str] = set()
        for contents in happened:
            folder.lay(contents)
            folder.take()
            new = set(contents.values()) - ever - {"damaged"}
            ever |= set(contents.values()) - {"damaged"}
            for country in COUNTRIES:
                stands = folder.standing(country)
                assert stands in [Counter(), *(expected({each}, country) for each in ever)]
                if len(contents) == 1 and expected(new, country):
                    assert stands == expected(new, country)
                _require_sum(folder, country)


def test_a_series_of_files_that_move_on_by_one_name_each_day_keeps_every_row_once(
    folder: Folder,
) -> None:
    folder.lay({"log.csv": "both", "log.1.csv": "early", "log.2.csv": "restated"})
    folder.take()
    folder.rename({"log.csv": "log.1.csv", "log.1.csv": "log.2.csv", "log.2.csv": "log.3.csv"})
    folder.lay({"log.csv": "grown"})
    taken = folder.take()
    assert folder.stands_for() == {"log.csv": 4, "log.1.csv": 2, "log.2.csv": 3, "log.3.csv": 3}
    assert taken.deliveries["DEU"].new_rows == 4
    assert taken.deliveries["DEU"].replaced_rows == 0


def test_a_file_that_becomes_a_copy_of_another_one_leaves_nothing_of_its_own(
    folder: Folder,
) -> None:
    folder.put(a="early", b="both")
    folder.take()
    folder.put(b="early")
    delivery = folder.take().deliveries["DEU"]
    assert folder.stands_for() == {"a.csv": 3}
    assert (delivery.new_rows, delivery.replaced_rows, delivery.changed) == (0, 2, True)
    assert not folder.take().deliveries["DEU"].taken, "and it is not looked at again"
    folder.put(a="grown")
    folder.take()
    assert folder.stands_for() == {"a.csv": 4, "b.csv": 3}, "the copy stands for itself now"


def test_a_file_moved_onto_another_one_replaces_its_rows(folder: Folder) -> None:
    folder.put(current="early", archived="both")
    folder.take()
    folder.rename({"current.csv": "archived.csv"})
    folder.put(current="grown")
    delivery = folder.take().deliveries["DEU"]
    assert folder.stands_for() == {"archived.csv": 3, "current.csv": 4}
    assert (delivery.new_rows, delivery.replaced_rows) == (4, 2)


def test_many_whole_histories_at_once_are_all_kept_and_the_last_name_stands(full: Folder) -> None:
    full.lay({"2024-01.csv": "early", "2024-02.csv": "restated", "2024-03.csv": "grown"})
    full.take()
    assert full.standing() == expected({"grown"}, "DEU")
    raw = full.store.read(RAW, "DEU")
    assert len(raw) == 3 + 1 + 2, "rows that were delivered before are not stored again"
    assert not full.take().deliveries["DEU"].changed


def test_a_whole_history_without_a_country_empties_it_only_if_it_is_newer(full: Folder) -> None:
    full.put(b="early")
    full.take()
    full.put(a="both")
    for _ in range(2):
        full.take()
        assert full.standing("FRA") == expected({"both"}, "FRA"), "b.csv is older than a.csv"
    full.put(c="restated")
    after = time.time() + 60
    os.utime(full.landing / "c.csv", (after, after))
    full.take()
    assert full.standing("FRA") == Counter()
    assert full.standing("DEU") == expected({"restated"}, "DEU")


def test_a_whole_history_that_was_archived_or_copied_does_not_come_back(full: Folder) -> None:
    full.put(current="early")
    full.take()
    full.rename({"current.csv": "z-archived.csv"})
    full.put(current="grown")
    full.take()
    full.put(current="restated", zz="grown")
    full.take()
    assert full.standing() == expected({"restated"}, "DEU")
    full.put(current="early")
    full.take()
    assert full.standing() == expected({"early"}, "DEU"), "the file itself may be changed back"


def test_a_country_name_added_to_the_yaml_brings_the_rows_that_were_left_out(
    products: dict[str, Product], folder: Folder
) -> None:
    folder.put(a="early", b="strangers", c="both")
    assert folder.take().unlisted == {"XXX": 2}
    renamed = _with_alias(products["increment"], "XXX", "FRA")
    again = Folder(renamed, folder.home)
    assert again.take().unlisted == {}
    assert sum(again.standing("FRA").values()) == 3
    assert folder.take().unlisted == {"XXX": 2}
    assert folder.standing("FRA") == expected({"both"}, "FRA"), "a removed name takes them away"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_name_added_to_the_yaml_brings_rows_of_files_that_were_taken(
    products: dict[str, Product], folder: Folder
) -> None:
    folder.landing.mkdir()
    file = folder.landing / "mixed.csv"
    file.write_text(f"Country,Date,{VALUE}\nFRA,2024-01-01,1\nXXX,2024-01-02,2\n")
    settle(file)
    folder.take()
    again = Folder(_with_alias(products["increment"], "XXX", "FRA"), folder.home)
    delivery = again.take().deliveries["FRA"]
    assert (delivery.new_rows, delivery.replaced_rows) == (1, 0)
    assert sum(again.standing("FRA").values()) == 2
    assert not again.take().deliveries["FRA"].taken


def _lay_below(folder: Folder, *names: str) -> None:
    """Files of the same bytes in folders that say whose rows they are."""
    for name in names:
        file = folder.landing / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"Date,{VALUE}\n2024-01-01,0\n2024-01-02,10\n")
        settle(file)


@pytest.mark.parametrize("at_once", [True, False])
def test_files_of_the_same_bytes_in_folders_of_two_countries_are_rows_of_both(
    products: dict[str, Product], tmp_path: Path, *, at_once: bool
) -> None:
    folder = Folder(_reading(products["increment"], folder_columns=["Country"]), tmp_path)
    names = [f"Country={country}/w1.csv" for country in COUNTRIES]
    for each in [names] if at_once else [names[:1], names[1:]]:
        _lay_below(folder, *each)
        folder.take()
    for country in COUNTRIES:
        assert folder.standing(country) == Counter([(country, 0, 0), (country, 1, 10)])
    assert not any(each.taken for each in folder.take().deliveries.values())


def test_a_file_moved_to_the_folder_of_another_country_has_rows_of_that_one(
    products: dict[str, Product], tmp_path: Path
) -> None:
    folder = Folder(_reading(products["increment"], folder_columns=["Country"]), tmp_path)
    _lay_below(folder, "Country=D/Country=DEU/w1.csv")
    folder.take()
    (folder.landing / "Country=FRA").mkdir()
    folder.rename({"Country=D/Country=DEU/w1.csv": "Country=FRA/w1.csv"})
    folder.take()
    assert folder.standing("FRA") == Counter([("FRA", 0, 0), ("FRA", 1, 10)])


def test_files_that_are_read_in_another_way_stay_in_the_order_in_which_they_came(
    products: dict[str, Product], tmp_path: Path
) -> None:
    folder = Folder(_reading(products["increment"], encoding="latin-1"), tmp_path)
    for names in ("z", "a", "mn"):
        _lay_in_euros(folder, *names)
        folder.take()
    again = Folder(_reading(products["increment"], encoding="cp1252"), tmp_path)
    _lay_in_euros(again, "b")
    delivery = again.take().deliveries["DEU"]
    assert delivery.new_files == ("z.csv", "a.csv", "m.csv", "n.csv", "b.csv")
    moments = [pd.Timestamp(each.at) for each in delivery.taken]
    assert moments == sorted(moments)
    assert [len({*moments[: n + 1]}) for n in range(5)] == [1, 2, 3, 3, 4]
    rows = again.store.read(RAW, "DEU")
    stands = live_rows(rows).sort_values("_delivered")
    assert list(stands["_source_file"].astype(str)) == list(delivery.new_files)
    assert set(stands["Note"]) == {"\u20ac"}
    assert sorted(rows["_replaced_at"].dropna()) == moments[:4]
    assert not again.take().deliveries["DEU"].taken


def _lay_in_euros(folder: Folder, *names: str) -> None:
    """Files with a sign that is another one in another encoding."""
    folder.landing.mkdir(exist_ok=True)
    for name in names:
        file = folder.landing / f"{name}.csv"
        text = f"Country,Date,{VALUE},Note\nDEU,2024-01-01,{ord(name)},\u20ac\n"
        file.write_bytes(text.encode("cp1252"))
        settle(file)


def test_of_whole_histories_read_in_another_way_the_one_that_stood_stands(
    products: dict[str, Product], full: Folder
) -> None:
    full.put(z="early")
    full.take()
    full.put(a="grown")
    full.take()
    assert full.standing() == expected({"grown"}, "DEU")
    again = Folder(_reading(products["full"], encoding="latin-1"), full.home)
    assert again.take().deliveries["DEU"].new_files == ("a.csv",)
    assert again.standing() == expected({"grown"}, "DEU")
    assert not again.take().deliveries["DEU"].taken
    newer = Folder(_reading(products["full"], encoding="cp1252"), full.home)
    newer.lay({"0.csv": "restated"})
    assert newer.take().deliveries["DEU"].new_files == ("a.csv", "0.csv")
    assert newer.standing() == expected({"restated"}, "DEU")


def test_a_country_none_of_whose_counted_rows_was_read_is_refused_not_missing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops_assets.stages.datasets import ingestion

    folder.put(a="early")
    monkeypatch.setattr(ingestion, "read_by_country", lambda *_: {})
    taken = ingest(
        ProductContext(folder.product, folder.store), ["DEU"], str(folder.landing), run_id=""
    )
    assert "a.csv has 3, 0 were read" in taken.refused["DEU"]
    assert taken.missing == ()


def _reading(product: Product, **said: Any) -> Product:
    """The product with other options of how its files are read."""
    source = product.spec.source.model_copy(update=said)
    spec = product.spec.model_copy(update={"source": source})
    return Product(product.name, product.folder, spec)


def _with_alias(product: Product, name: str, country: str) -> Product:
    spec = product.spec.model_copy(update={"aliases": {**product.spec.aliases, name: country}})
    return Product(product.name, product.folder, spec)


def test_files_that_are_moved_are_no_small_or_large_delivery(folder: Folder) -> None:
    day = [
        Delivered("log.csv", f"{n}", 10, 10, 0, f"2026-03-0{n}T00:00:00+00:00") for n in range(1, 7)
    ]
    moved = [replace(each, name=f"{each.name}.1", appended=0, moved_from="log.csv", at=next_.at)
             for each, next_ in pairwise(day)]  # fmt: skip
    frame = pd.DataFrame({"country": ["DEU"], "date": [pd.Timestamp("2026-03-06")], "demand": 1.0})
    found = {
        each.check_name: each
        for each in check_limits(folder.product, "DEU", frame, [*day, *moved], moment=START)
    }
    assert found["volume"].passed
    assert found["volume"].metadata["rows"].value == 10
    assert found["volume"].metadata["median_before"].value == 10.0
    assert "0 days ago" in str(found["freshness"].description), "as of the moment, not of today"


def test_one_country_whose_rows_are_not_those_that_were_counted_is_refused_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops_assets.stages.datasets import ingestion

    read = ingestion.read_by_country

    def loses_a_row(*arguments: Any) -> dict[str, pa.Table]:
        return {c: rows[1:] if c == "DEU" else rows for c, rows in read(*arguments).items()}

    folder.put(a="both")
    monkeypatch.setattr(ingestion, "read_by_country", loses_a_row)
    taken = ingest(
        ProductContext(folder.product, folder.store), COUNTRIES, str(folder.landing), run_id=""
    )
    assert "a.csv has 2, 1 were read" in taken.refused["DEU"]
    assert folder.store.current(RAW, "DEU") is None
    assert folder.standing("FRA") == expected({"both"}, "FRA")


def test_of_many_files_that_are_set_aside_the_first_are_told_and_how_many_more(
    platform: Platform,
) -> None:
    platform.landing.mkdir(parents=True)
    for number in range(7):
        file = platform.landing / f"bad{number}.csv"
        file.write_text("a,b\n1,2\n")
        settle(file)
    result = platform.run_range("DEU", "NOR")
    told = checks(result)["raw.files_readable"]
    assert " and 2 more: `set_aside` of this check has every one." in told.description
    assert len(told.metadata["set_aside"].value) == 7
