from __future__ import annotations

import gzip
import io
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.reading import list_files, read_by_country, survey

GOOD = b"country,x\nDEU,1\nFRA,2\nDEU,3\n"
NAMES = ["a.csv", "we ird's ü.csv", "p%20x.csv", "g*lob?.csv", "gXlobY.csv", "br[1].csv",
         "br1.csv", "h#x.csv", "q+w.csv", "{a,b}.csv", "k=v/c.csv"]  # fmt: skip


@cache
def _other(**options: Any) -> Any:
    import s3fs

    return s3fs.S3FileSystem(**options, skip_instance_cache=True)


def put(bucket: str, options: dict[str, Any], contents: dict[str, bytes]) -> None:
    """Writes as another process would: the reader's caches learn nothing of it."""
    _other(**options).pipe({f"{bucket}/{name}": content for name, content in contents.items()})


def test_an_object_store_is_read_like_a_folder(bucket: str, s3_options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"country": ["DEU"], "x": ["4"]}), buffer)
    contents = {
        "in/1.csv": GOOD,
        "in/2.csv.gz": gzip.compress(GOOD),
        "in/3.jsonl": b'{"country":"DEU","x":"5"}\n',
        "in/4.parquet": buffer.getvalue(),
        "in/_SUCCESS": b"",
        "other/5.csv": GOOD,
    }
    put(bucket, s3_options, contents)
    listed = list_files(f"s3://{bucket}/in", s3_options)
    assert [file.name for file in listed] == ["1.csv", "2.csv.gz", "3.jsonl", "4.parquet"]
    assert listed[0].uri == f"s3://{bucket}/in/1.csv"
    assert listed[0].modified is not None
    surveys = [survey(file, "country", s3_options) for file in listed]
    assert [found.problem for found in surveys] == [None] * 4
    tables = read_by_country(listed, "country", {"DEU": "DEU"}, s3_options)
    assert sorted(tables["DEU"]["x"].to_pylist()) == ["1", "1", "3", "3", "4", "5"]


def test_odd_object_names_are_read_as_exactly_that_object(
    bucket: str, s3_options: dict[str, Any]
) -> None:
    contents = {name: f"country,x\nDEU,{number}\n".encode() for number, name in enumerate(NAMES)}
    put(bucket, s3_options, contents)
    listed = list_files(f"s3://{bucket}", s3_options)
    table = read_by_country(listed, "country", {"DEU": "DEU"}, s3_options)["DEU"]
    found = zip(table["_source_file"].to_pylist(), table["x"].to_pylist(), strict=True)
    assert dict(found) == {name: str(number) for number, name in enumerate(NAMES)}


def test_a_new_object_is_seen_at_once_and_a_missing_prefix_is_empty(
    bucket: str, s3_options: dict[str, Any]
) -> None:
    assert list_files(f"s3://{bucket}/in", s3_options) == []
    put(bucket, s3_options, {"in/a.csv": GOOD})
    assert len(list_files(f"s3://{bucket}/in", s3_options)) == 1
    put(bucket, s3_options, {"in/b.csv": GOOD})
    assert len(list_files(f"s3://{bucket}/in", s3_options)) == 2


def test_an_object_replaced_since_its_listing_is_left_for_next_time(
    bucket: str, s3_options: dict[str, Any]
) -> None:
    put(bucket, s3_options, {"a.csv": GOOD})
    (file,) = list_files(f"s3://{bucket}", s3_options)
    put(bucket, s3_options, {"a.csv": GOOD + b"FRA,4\n"})
    assert "still growing" in str(survey(file, "country", s3_options).problem)
    with pytest.raises(SourceError, match="still growing"):
        read_by_country([file], "country", {"DEU": "DEU"}, s3_options)


def test_a_damaged_object_is_set_aside(bucket: str, s3_options: dict[str, Any]) -> None:
    put(bucket, s3_options, {"cut.csv.gz": gzip.compress(GOOD * 500)[:-9]})
    (file,) = list_files(f"s3://{bucket}", s3_options)
    assert "cut off or damaged" in str(survey(file, "country", s3_options).problem)
