"""From files of any format to records: exact whole numbers, one country, columns that are told."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.ml.datasets.validation import Validation, validate
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.ingestion import Ingestion, ingest, live_rows
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import examples
from mlops_assets_tests.platform import settle

VALUE = "Demand (parcels)"
COUNTRIES = ("DEU", "FRA")
CONTRACT = """
import pandas as pd
import pandera.pandas as pa


class Orders(pa.DataFrameModel):
    country: str = pa.Field(isin=["DEU", "FRA", "NOR"])
    order: str = pa.Field(nullable=True)
    number: pd.Int64Dtype = pa.Field(nullable=True)
    date: pd.Timestamp = pa.Field()
    demand: float = pa.Field(nullable=True)
    customer: str = pa.Field(nullable=True)
"""
COLUMNS: dict[str, Any] = {
    "country": "Country", "order": "Order", "number": "Number", "date": "Date", "demand": VALUE,
    "customer": "Customer ID",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Product:
    folder = new_product("parcels", tmp_path_factory.mktemp("defs"))
    product = load_product(folder)
    (folder / "contract.py").write_text(CONTRACT)
    return with_source(product, columns=COLUMNS, key=["order"])


def with_source(product: Product, **options: Any) -> Product:
    source = product.spec.source.model_copy(update=options)
    contract = product.spec.contract.model_copy(update={"schema_class": "contract.Orders"})
    spec = product.spec.model_copy(update={"source": source, "contract": contract})
    return Product(product.name, product.folder, spec)


def rows(orders: list[int | None], country: str = "DEU") -> list[dict[str, Any]]:
    return [
        {"Country": country, "Order": one, "Number": one, "Date": "2024-01-02", VALUE: 1.5,
         "Customer ID": "c"}
        for one in orders
    ]  # fmt: skip


def put(home: Path, name: str, content: bytes) -> None:
    path = home / "landing" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    settle(path)


def put_csv(home: Path, name: str, records: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(records, dtype="object")
    put(home, name, frame.to_csv(index=False).encode())


def put_rows(home: Path, name: str, records: list[dict[str, Any]]) -> None:
    if name.endswith(".jsonl"):
        put(home, name, "\n".join(map(json.dumps, records)).encode())
    elif name.endswith(".csv"):
        put_csv(home, name, records)
    else:
        whole = pa.int64()
        table = pa.Table.from_pylist(records)
        for column in ("Order", "Number"):
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, table[column].cast(whole))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        put(home, name, sink.getvalue().to_pybytes())


def take(product: Product, home: Path) -> Ingestion:
    store = SnapshotStore(str(home / "store"))
    taken = ingest(ProductContext(product, store), COUNTRIES, str(home / "landing"), run_id="")
    assert taken.refused == {}
    return taken


def records(product: Product, home: Path, country: str = "DEU") -> Validation:
    store = SnapshotStore(str(home / "store"))
    live = live_rows(store.read(("parcels", "raw"), country))
    spec = product.spec
    return validate(live, product.contract(), spec.source, spec.country_names)


WIDE = st.one_of(st.integers(2**53, 2**63 - 1), st.integers(-(2**63) + 1, -(2**53)), st.integers())


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(WIDE.filter(lambda one: abs(one) < 2**63), min_size=1, max_size=6, unique=True),
    st.sampled_from(["a.parquet", "a.csv", "a.jsonl"]),
    st.booleans(),
)
def test_64_bit_whole_numbers_reach_the_records_digit_by_digit_beside_a_missing_one(
    made: Product, numbers: list[int], name: str, mixed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        put_rows(home, name, rows([*numbers, None]))
        if mixed:
            put_rows(home, "b.csv", rows([numbers[0]]))
        take(made, home)
        found = records(made, home)
    assert found.rejected == 0
    kept = found.accepted.dropna(subset=["order"])
    assert sorted(kept["order"].astype(int)) == sorted(numbers)
    assert sorted(map(int, kept["number"])) == sorted(numbers)
    assert found.duplicates == int(mixed)


def test_a_country_is_the_same_when_files_are_split_and_for_the_contract(
    made: Product, tmp_path: Path
) -> None:
    written = ["DEU", "DEU ", "Germany", "GERMANY ", "de", "XXX", "Congo"]
    each = [{**rows([n])[0], "Country": name} for n, name in enumerate(written)]
    put_csv(tmp_path, "a.csv", each)
    taken = take(made, tmp_path)
    assert taken.deliveries["DEU"].new_rows == 5
    assert taken.unlisted == {"Congo": 1, "XXX": 1}
    found = records(made, tmp_path)
    assert found.rejected == 0
    assert set(found.accepted["country"]) == {"DEU"}


def test_a_file_whose_header_is_other_is_set_aside_with_its_near_columns_and_a_way_out(
    made: Product, tmp_path: Path
) -> None:
    put_csv(tmp_path, "a.csv", rows([1]))
    renamed = pd.DataFrame(rows([2])).rename(columns={"Customer ID": "CustomerID"})
    put(tmp_path, "b.csv", renamed.to_csv(index=False).encode())
    taken = take(made, tmp_path)
    assert taken.deliveries["DEU"].new_files == ("a.csv",)
    told = taken.problems["b.csv"]
    assert "it has no column 'Customer ID' (near: 'CustomerID')" in told
    assert "`customer: [Customer ID, CustomerID]` under `source.columns`" in told
    assert "`optional: [customer]` under `source`" in told
    both = with_source(made, columns={**COLUMNS, "customer": ["Customer ID", "CustomerID"]})
    assert take(both, tmp_path).deliveries["DEU"].new_files == ("b.csv",)
    assert records(both, tmp_path).accepted["customer"].tolist() == ["c", "c"]


def test_a_column_that_files_may_lack_is_empty_where_they_do(made: Product, tmp_path: Path) -> None:
    put_csv(tmp_path, "a.csv", rows([1]))
    put(tmp_path, "b.csv", pd.DataFrame(rows([2])).drop(columns="Customer ID").to_csv().encode())
    said = with_source(made, optional=["customer"])
    assert take(said, tmp_path).problems == {}
    assert records(said, tmp_path).accepted["customer"].tolist() == ["c", None]


def test_of_files_that_are_found_together_the_highest_number_is_the_newest(
    made: Product, tmp_path: Path
) -> None:
    for number in (8, 9, 10, 11):
        put_csv(tmp_path, f"export_{number}.csv", [{**rows([1])[0], VALUE: float(number)}])
    take(made, tmp_path)
    found = records(made, tmp_path)
    assert found.accepted["demand"].tolist() == [11.0]
    assert found.conflicts == 3
    full = with_source(made, delivery="full")
    other = tmp_path / "full"
    for number in (9, 10):
        put_csv(other, f"export_{number}.csv", [{**rows([1])[0], VALUE: float(number)}])
    take(full, other)
    assert records(full, other).accepted["demand"].tolist() == [10.0]


def test_a_file_that_was_read_wrongly_is_taken_again_when_the_yaml_says_how_to_read_it(
    made: Product, tmp_path: Path
) -> None:
    content = pd.DataFrame(rows([1])).replace("c", "Köln").to_csv(index=False)
    put(tmp_path, "a.csv", content.encode())
    wrong = with_source(made, encoding="cp1252")
    take(wrong, tmp_path)
    assert records(wrong, tmp_path).accepted["customer"].tolist() == ["KÃ¶ln"]
    delivery = take(made, tmp_path).deliveries["DEU"]
    assert (delivery.new_rows, delivery.replaced_rows) == (1, 1)
    assert records(made, tmp_path).accepted["customer"].tolist() == ["Köln"]
    assert not take(made, tmp_path).deliveries["DEU"].taken
