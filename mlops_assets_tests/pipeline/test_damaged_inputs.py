"""Damaged deliveries: each is taken whole with every row accounted for, or set aside whole with a
reason; none is taken in part, and none ends in an error without a message.

A thousand of them in `make nightly`, a quarter otherwise.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.errors import MlopsAssetsError
from mlops_assets.ml.datasets.validation import validate
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.ingestion import Ingestion, ingest, live_rows
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import examples
from mlops_assets_tests.pipeline.test_outcomes import VALUE
from mlops_assets_tests.platform import settle

INPUTS = 1000
ENDINGS = (*(".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet") * 3, ".ndjson", ".txt")

cells = st.one_of(
    st.none(),
    st.sampled_from(["DEU", "FRA", " NOR", "NO", "XXX", "", "2024-02-30", "31/12/2024", "12,5"]),
    st.sampled_from([0, -1, 1e308, float("nan"), float("inf"), True, 10**30, 2**63]),
    st.sampled_from(["null", "NaN", '"', "a\nb", "a;b", "é", "=1+1", "'"]),
    st.sampled_from(["x"] * 15 + ["\u0000"]),
    st.dates().map(str),
    st.floats(),
)
rows = st.fixed_dictionaries(
    {
        "Country": st.one_of(st.sampled_from(["DEU", "FRA", "NOR", "NO"]), cells),
        "Date": st.one_of(st.dates().map(str), cells),
        VALUE: st.one_of(st.floats(0, 1e4), cells),
    }
)
KINDS = ("none",) * 8 + ("cut", "flip", "insert", "double", "utf16")
damages = st.tuples(st.sampled_from(KINDS), st.floats(0, 0.999))
USUAL = ["Country", "Date", VALUE]
headers = st.sampled_from(
    [
        *[USUAL] * 10,
        [VALUE, "Country", "Date"],
        ["Country", "Date", "Date"],
        ["Country", "Date", "other"],
        ["country", "Date", VALUE],
        ["Country", "_source_file", VALUE],
    ]
)


@dataclass(frozen=True)
class Bench:
    """A product and a folder that every input uses anew."""

    product: Product
    root: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("damaged")
    return Bench(load_product(new_product("parcels", folder / "defs")), folder)


def written(records: list[dict[str, object]], columns: list[str], ending: str) -> bytes:
    """The records in the format of the ending, as far as it can hold them."""
    frame = pd.DataFrame(records, columns=["Country", "Date", VALUE])
    frame.columns = pd.Index(columns)
    if ending.startswith(".csv") or ending == ".txt":
        content = frame.to_csv(index=False).encode("utf-8", "surrogatepass")
    elif ending == ".parquet":
        content = _parquet(frame)
    else:
        lines = (json.dumps(dict(zip(columns, r.values(), strict=True))) for r in records)
        content = "\n".join(lines).encode()
    return gzip.compress(content) if ending.endswith(".gz") else content


def _parquet(frame: pd.DataFrame) -> bytes:
    plain = frame.loc[:, ~frame.columns.duplicated()]
    return plain.map(lambda value: None if value is None else str(value)).to_parquet()


def damaged(content: bytes, damage: tuple[str, float]) -> bytes:
    kind, where = damage
    place = int(where * len(content))
    if kind == "cut":
        return content[:place]
    if kind == "flip" and content:
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    if kind == "insert":
        return content[:place] + b'\x00",;\n{' + content[place:]
    if kind == "double":
        return content + content
    if kind == "utf16":
        return content.decode("utf-8", "replace").encode("utf-16")
    return content


@settings(
    max_examples=examples(INPUTS),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    records=st.lists(rows, max_size=8),
    columns=headers,
    ending=st.sampled_from(ENDINGS),
    damage=damages,
)
def test_every_damaged_input_is_taken_whole_or_set_aside_with_a_reason(
    bench: Bench,
    records: list[dict[str, object]],
    columns: list[str],
    ending: str,
    damage: tuple[str, float],
) -> None:
    landing, root = bench.root / "landing", bench.root / "store"
    for folder in (landing, root):
        shutil.rmtree(folder, ignore_errors=True)
    landing.mkdir()
    store, file = SnapshotStore(str(root)), landing / f"delivery{ending}"
    file.write_bytes(damaged(written(records, columns, ending), damage))
    settle(file)
    taken = _taken(bench.product, store, landing)
    if taken is None:
        event("refused as a whole")
        return
    event("set aside" if taken.problems else "taken")
    _require_told_or_taken(taken, store, file)
    for country in bench.product.spec.countries:
        _require_accounted_for(bench.product, store, country)


def _taken(product: Product, store: SnapshotStore, landing: Path) -> Ingestion | None:
    """None when it was refused with an error that says what is to be said."""
    try:
        return ingest(
            ProductContext(product, store), list(product.spec.countries), str(landing), run_id=""
        )
    except MlopsAssetsError as error:
        told = bool(error.problem and error.stored)
    assert told
    assert store.current_all(("parcels", "raw")) == {}
    return None


def _require_told_or_taken(taken: Ingestion, store: SnapshotStore, file: Path) -> None:
    there = store.current_all(("parcels", "raw"))
    assert not taken.refused
    if taken.problems:
        assert file.name in taken.problems[file.name]
        assert taken.problems[file.name].count(".") >= 2, "the reason and the way out"
        assert there == {}, "nothing of a file that was set aside"
        return
    stored = sum(snapshot.rows for snapshot in there.values())
    assert stored + sum(taken.unlisted.values()) == taken.file_rows
    if file.name.endswith(".csv"):
        assert taken.file_rows == _records_of_csv(file)


def _records_of_csv(file: Path) -> int:
    """Counted by another reader."""
    import csv

    with file.open(newline="", encoding="utf-8-sig") as stream:
        first = stream.readline()
        delimiter = Counter({each: first.count(each) for each in ",;\t|"}).most_common(1)[0][0]
        stream.seek(0)
        lines = [row for row in csv.reader(stream, delimiter=delimiter) if row]
    return len(lines) - 1


def _require_accounted_for(product: Product, store: SnapshotStore, country: str) -> None:
    held = store.current(("parcels", "raw"), country)
    if held is None:
        return
    spec, raw = product.resolved(country), store.read(("parcels", "raw"), country)
    live = live_rows(raw)
    result = validate(live, product.contract(), spec.source, spec.country_names)
    assert len(raw) == len(result.accepted) + len(result.quarantine) + result.duplicates
    assert (result.quarantine["_rules"] != "").all()
    assert not result.accepted.duplicated(spec.source.key).any()
