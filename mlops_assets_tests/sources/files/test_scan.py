from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.sources.files.landing import Listed, file_place, hashed, scan
from mlops_assets.sources.files.reading import list_files
from mlops_assets_tests.effort import examples
from mlops_assets_tests.sources.conftest import Put

GOOD = b"country,x\nDEU,1\n"


def test_a_scan_lists_what_would_be_taken_and_reads_nothing(
    put: Put, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.csv", "2024/a.csv"):
        put(name, GOOD)
    for name in ("_SUCCESS", ".pull-x.csv", "c.csv.tmp", "README.md"):
        (landing / name).write_bytes(GOOD)
    expected = [(file.uri, file.name, file.stamp) for file in list_files(str(landing))]
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener", None)
    assert [(each.uri, each.name, each.stamp) for each in scan(str(landing))] == expected
    assert [name for _, name, _ in expected] == ["2024/a.csv", "b.csv"]


def test_a_listed_file_is_hashed_later_and_one_that_is_gone_is_none(
    put: Put, landing: Path
) -> None:
    file = put("a.csv", GOOD)
    (listed,) = scan(str(landing))
    assert hashed(listed) == file
    (landing / "a.csv").unlink()
    assert hashed(listed) is None
    assert scan(str(landing)) == []


def test_a_folder_that_does_not_exist_has_nothing_to_scan(tmp_path: Path) -> None:
    assert scan(str(tmp_path / "nowhere")) == []


@given(contents=st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=4))
@settings(max_examples=examples(30), deadline=None)
def test_another_content_has_another_stamp_even_of_the_same_size(
    contents: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("landing")
    stamps = {}
    for content in contents:
        (folder / "new.tmp").write_bytes(content)
        os.replace(folder / "new.tmp", folder / "a.csv")
        time.sleep(0.005)  # more than a tick of the clock that stamps files
        (listed,) = scan(str(folder))
        stamps[listed.stamp] = content
    assert len(stamps) == len(contents)


def test_a_file_under_another_name_has_another_stamp(put: Put, landing: Path) -> None:
    put("a.csv", GOOD)
    (before,) = scan(str(landing))
    (landing / "a.csv").rename(landing / "b.csv")
    (after,) = scan(str(landing))
    assert after.stamp != before.stamp


NOW = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("ago", "is_settled"),
    [(0.0, False), (1.9, False), (2.0, True), (60.0, True), (-1.0, False), (-86400.0, True)],
)
def test_a_local_file_is_settled_once_it_was_left_alone(ago: float, is_settled: bool) -> None:
    modified = NOW - dt.timedelta(seconds=ago)
    assert Listed("/a.csv", "a.csv", 1, modified, "1").is_settled(NOW, 2.0) is is_settled


def test_an_object_and_a_file_without_a_time_are_settled() -> None:
    assert Listed("s3://b/a.csv", "a.csv", 1, NOW, "1").is_settled(NOW, 2.0)
    assert Listed("/a.csv", "a.csv", 0, None, "").is_settled(NOW, 2.0)


def test_a_link_to_nowhere_is_listed(landing: Path) -> None:
    (landing / "lost.csv").symlink_to("nowhere.csv")
    (listed,) = scan(str(landing))
    assert (listed.size, listed.modified, listed.tag) == (0, None, "")


def test_a_scan_of_a_prefix_is_one_call_a_thousand_objects(
    bucket: str, s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fs: Any = file_place(f"s3://{bucket}", s3_options).fs
    fs.pipe({f"{bucket}/in/{number:04}.csv": GOOD for number in range(40)})
    calls: list[str] = []
    real = type(fs)._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(type(fs), "_call_s3", counted)
    listed = scan(f"s3://{bucket}/in", s3_options)
    assert len(listed) == 40
    assert "head_object" not in calls
    assert "get_object" not in calls
    assert len(calls) <= 2


def test_a_listed_object_has_the_stamp_of_the_hashed_one_and_another_with_other_content(
    bucket: str, s3_options: dict[str, Any]
) -> None:
    place = file_place(f"s3://{bucket}/in/a.csv", s3_options)
    place.fs.pipe_file(place.path, GOOD)
    (listed,) = scan(f"s3://{bucket}/in", s3_options)
    file = hashed(listed, s3_options)
    assert file is not None
    assert (file.stamp, file.uri, file.name) == (listed.stamp, listed.uri, listed.name)
    place.fs.pipe_file(place.path, GOOD.replace(b"1", b"2"))
    (after,) = scan(f"s3://{bucket}/in", s3_options)
    assert (after.size, after.stamp != listed.stamp) == (listed.size, True)


def test_a_store_without_etags_is_stamped_by_time() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/scanned/a.csv", GOOD)
    (before,) = scan("memory://scanned")
    fs.pipe_file("/scanned/a.csv", GOOD.replace(b"1", b"2"))
    (after,) = scan("memory://scanned")
    fs.rm("/scanned", recursive=True)
    assert before.size == after.size
    assert before.stamp != after.stamp
