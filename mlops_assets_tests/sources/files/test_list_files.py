from __future__ import annotations

import datetime as dt
import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from mlops_assets.sources.files.reading import list_files, survey
from mlops_assets_tests.sources.conftest import Put


def names(landing: Path) -> list[str]:
    return [file.name for file in list_files(str(landing))]


def test_a_landing_folder_that_does_not_exist_holds_no_files(tmp_path: Path) -> None:
    assert list_files(str(tmp_path / "nowhere")) == []


def test_files_in_folders_are_found_and_sorted_by_name(put: Put, landing: Path) -> None:
    for name in ("b.csv", "2024/c.csv", "a.csv", "x.csv/part-0.csv"):
        put(name, b"country\nDEU\n")
    assert names(landing) == ["2024/c.csv", "a.csv", "b.csv", "x.csv/part-0.csv"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.csv",
        ".cache/a.csv",
        "a.csv.tmp",
        "a.csv.part",
        "a.CSV.crdownload",
        "_SUCCESS",
        "_temporary/a.csv",
        "README.md",
        "readme",
        "deep/README.txt",
    ],
)
def test_unfinished_hidden_and_explaining_files_are_passed_over(name: str, landing: Path) -> None:
    (landing / name).parent.mkdir(exist_ok=True)
    (landing / name).write_bytes(b"country\nDEU\n")
    assert names(landing) == []


def test_a_file_is_known_by_the_hash_of_its_content_and_not_by_its_name(put: Put) -> None:
    content = b"country\nDEU\n"
    one, two, other = put("one.csv", content), put("two.csv", content), put("o.csv", b"country\n")
    assert one.content_hash == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert one.content_hash == two.content_hash != other.content_hash
    assert (one.size, Path(one.uri).read_bytes()) == (len(content), content)
    assert one.modified is not None
    assert abs(dt.datetime.now(dt.UTC) - one.modified) < dt.timedelta(minutes=5)


def test_a_large_file_is_hashed_in_constant_memory(put: Put, landing: Path) -> None:
    put("large.csv", b"country\n" + b"DEU\n" * 8_000_000)
    tracemalloc.start()
    list_files(str(landing))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_link_to_a_file_is_taken_and_one_to_nowhere_is_set_aside(put: Put, landing: Path) -> None:
    target = put("real.csv", b"country\nDEU\n")
    (landing / "good.csv").symlink_to("real.csv")
    (landing / "lost.csv").symlink_to("nowhere.csv")
    good, lost, _ = list_files(str(landing))
    assert good.content_hash == target.content_hash
    assert lost.content_hash == ""
    assert "lost.csv: it is gone, or not a regular file." in str(survey(lost, "country").problem)


def test_a_named_pipe_is_set_aside_instead_of_waited_for(landing: Path) -> None:
    os.mkfifo(landing / "pipe.csv")
    (pipe,) = list_files(str(landing))
    assert "not a regular file" in str(survey(pipe, "country").problem)


def test_a_folder_linked_into_itself_ends(put: Put, landing: Path) -> None:
    put("sub/a.csv", b"country\nDEU\n")
    (landing / "sub" / "loop").symlink_to(landing)
    assert "sub/a.csv" in names(landing)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_nobody_may_read_is_listed_and_set_aside(put: Put, landing: Path) -> None:
    Path(put("secret.csv", b"country\nDEU\n").uri).chmod(0)
    (file,) = list_files(str(landing))
    assert "Permission denied" in str(survey(file, "country").problem)
