from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.reading import list_files, survey
from mlops_assets.sources.pulled import http as module
from mlops_assets.sources.pulled.http import masked
from mlops_assets.sources.pulled.pull import Pulled, pull
from mlops_assets.spec import HttpSpec, SourceSpec
from mlops_assets_tests.sources.publisher import Publisher, Reply, publishing

CSV = b"country,x\nDEU,1\nFRA,2\n"
# Without the time: it would be in names of tests, which are the same in all processes.
ZIPPED = gzip.compress(CSV, mtime=0)
OTHER = b"country,x\nDEU,1\nFRA,3\nNOR,4\n"


@pytest.fixture
def web() -> Iterator[Publisher]:
    with publishing() as publisher:
        yield publisher


@pytest.fixture(autouse=True)
def _no_proxies_and_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.01)


@pytest.fixture
def fetch(landing: Path) -> Callable[..., Pulled]:
    """Pulls addresses into the landing folder."""

    def run(*urls: str, attempts: int = 3, timeout: float = 5.0, **headers: str) -> Pulled:
        named = {name.replace("_", "-"): variable for name, variable in headers.items()}
        http = HttpSpec(
            urls=list(urls), attempts=attempts, timeout_seconds=timeout, header_env=named
        )
        return pull(source_of(http), str(landing))

    return run


def source_of(http: HttpSpec) -> SourceSpec:
    return SourceSpec(
        kind="http",
        http=http,
        columns={"country": "country", "x": "x"},
        country="country",
        key=["country"],
        event_time="x",
    )


def files(landing: Path) -> dict[str, bytes]:
    return {file.name: Path(file.uri).read_bytes() for file in list_files(str(landing))}


Fetch = Callable[..., Pulled]


def test_a_file_lands_under_the_last_part_of_its_path_or_the_name_after_the_hash(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    one = web.put("/2024/a%20b.csv", Reply(CSV))
    two = web.put("/export?country=DEU", Reply(CSV))
    three = web.put("/export?country=FRA", Reply(OTHER))
    pulled = fetch(one, f"{two}#DEU.csv", f"{three}#FRA.csv")
    assert pulled == Pulled(("a b.csv", "DEU.csv", "FRA.csv"))
    assert files(landing) == {"a b.csv": CSV, "DEU.csv": CSV, "FRA.csv": OTHER}


@pytest.mark.parametrize(
    ("kind", "ending", "content"),
    [
        ("text/csv; charset=utf-8", ".csv", CSV),
        ("Application/X-NDJSON", ".jsonl", b'{"country":"DEU"}\n'),
    ],
)
def test_a_name_without_a_format_gets_that_of_the_content_type(
    kind: str, ending: str, content: bytes, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/export", Reply(content, headers={"Content-Type": kind}))
    assert fetch(url).files == (f"export{ending}",)
    assert files(landing) == {f"export{ending}": content}
    assert fetch(url).files == ()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_file_is_checked_in_the_encoding_that_the_source_says(
    encoding: str, web: Publisher, landing: Path
) -> None:
    content = "country,x\nCôte d'Ivoire,1\n".encode(encoding)
    http = HttpSpec(urls=[web.put("/prices.csv", Reply(content))])
    with pytest.raises(SourceError, match=f"`encoding: {encoding}`"):
        pull(source_of(http), str(landing))
    said = source_of(http).model_copy(update={"encoding": encoding})
    assert pull(said, str(landing)) == Pulled(("prices.csv",))
    assert files(landing) == {"prices.csv": content}


def test_a_file_of_no_format_taken_is_refused(web: Publisher, fetch: Fetch, landing: Path) -> None:
    url = web.put("/export", Reply(CSV, headers={"Content-Type": "text/plain"}))
    with pytest.raises(SourceError, match=r"Content-Type \(text/plain\) tells one of the formats"):
        fetch(url)
    assert files(landing) == {}


def test_a_name_that_listings_pass_over_is_refused(web: Publisher, fetch: Fetch) -> None:
    with pytest.raises(SourceError, match=r"a file called README\.csv is passed over"):
        fetch(web.put("/README.csv", Reply(CSV)))


def test_two_addresses_that_land_under_one_name_are_refused(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    plain = web.put("/x", Reply(OTHER, headers={"Content-Type": "text/csv"}))
    with pytest.raises(SourceError, match=r"another address landed as x\.csv too"):
        fetch(web.put("/x.csv", Reply(CSV)), plain)
    assert files(landing) == {"x.csv": CSV}


# Unchanged and changed


def test_an_unchanged_file_is_not_fetched_again(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv?key=1", Reply(CSV, etag='"1"'))
    assert fetch(url) == Pulled(("a.csv",))
    (before,) = list_files(str(landing))
    assert fetch(url) == Pulled(unchanged=(f"{web.address}/a.csv?key=***",))
    assert list_files(str(landing)) == [before]
    assert web.asked[1].headers["If-None-Match"] == '"1"'


def test_the_time_of_the_last_change_is_asked_with_where_there_is_no_tag(
    web: Publisher, fetch: Fetch
) -> None:
    when = "Mon, 01 Jan 2024 00:00:00 GMT"
    url = web.put("/a.csv", Reply(CSV, headers={"Last-Modified": when}), Reply(b"", 304))
    fetch(url)
    assert fetch(url).unchanged == (url,)
    assert web.asked[1].headers["If-Modified-Since"] == when


def test_the_same_content_without_any_tag_is_no_new_version(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv", Reply(CSV))
    fetch(url)
    (before,) = list_files(str(landing))
    assert fetch(url) == Pulled(unchanged=(url,))
    assert list_files(str(landing)) == [before]


def test_other_content_replaces_the_file_under_its_name(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv", Reply(CSV, etag='"1"'), Reply(OTHER, etag='"2"'))
    fetch(url)
    (before,) = list_files(str(landing))
    assert fetch(url) == Pulled(("a.csv",))
    (after,) = list_files(str(landing))
    assert (after.name, Path(after.uri).read_bytes()) == ("a.csv", OTHER)
    assert after.stamp != before.stamp
    assert fetch(url).unchanged == (url,)


@pytest.mark.parametrize("harm", ["removed", "edited", "other address", "memo damaged"])
def test_a_file_that_is_not_the_fetched_one_any_more_is_fetched_again(
    harm: str, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv", Reply(CSV, etag='"1"'))
    fetch(url)
    if harm == "removed":
        (landing / "a.csv").unlink()
    elif harm == "edited":
        (landing / "a.csv").write_bytes(OTHER)
    elif harm == "memo damaged":
        (landing / ".a.csv.http.json").write_text("{")
    else:
        url = web.put("/b/a.csv", Reply(OTHER, etag='"1"'))
    assert fetch(url).files == ("a.csv",)
    assert files(landing) == {"a.csv": OTHER if harm == "other address" else CSV}


# Failures that pass


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(
    status: int, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv", Reply(b"", status), Reply(b"", status), Reply(CSV))
    assert fetch(url).files == ("a.csv",)
    assert len(web.asked) == 3


def test_a_server_is_given_the_time_it_asks_for(web: Publisher, fetch: Fetch) -> None:
    url = web.put("/a.csv", Reply(b"", 503, {"Retry-After": "1"}), Reply(CSV))
    start = time.monotonic()
    fetch(url)
    assert time.monotonic() - start >= 1
    assert len(web.asked) == 2


@pytest.mark.parametrize("asked", ["99999", "in an hour", "tomorrow"])
def test_a_server_that_asks_for_too_much_time_is_given_some(
    asked: str, web: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.1)
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    value = email.utils.format_datetime(tomorrow) if asked == "tomorrow" else asked
    url = web.put("/a.csv", Reply(b"", 503, {"Retry-After": value}), Reply(CSV))
    start = time.monotonic()
    assert fetch(url).files == ("a.csv",)
    assert time.monotonic() - start < 60, "not what was asked for"


@pytest.mark.parametrize(
    ("cut", "headers"),
    [
        (10, {}),
        (0, {}),
        (10, {"Transfer-Encoding": "chunked", "Content-Length": ""}),
    ],
    ids=["content_length_not_met", "nothing_sent", "chunks_cut_off"],
)
def test_an_answer_that_is_cut_off_is_asked_for_again_and_never_landed_half(
    cut: int, headers: dict[str, str], web: Publisher, fetch: Fetch, landing: Path
) -> None:
    half = Reply(b"%x\r\n%b\r\n" % (len(CSV), CSV) if headers else CSV, 200, headers, cut)
    url = web.put("/a.csv", half, half, Reply(CSV))
    assert fetch(url, attempts=3).files == ("a.csv",)
    assert files(landing) == {"a.csv": CSV}
    web.put("/a.csv", half)
    with pytest.raises(SourceError, match=r"after 3 attempts"):
        fetch(url, attempts=3)
    assert files(landing) == {"a.csv": CSV}
    assert len(web.asked) == 6


def test_a_server_that_does_not_answer_in_time_is_asked_again(web: Publisher, fetch: Fetch) -> None:
    url = web.put("/a.csv", Reply(CSV, delay=1.0), Reply(CSV))
    assert fetch(url, timeout=0.3).files == ("a.csv",)
    web.put("/a.csv", Reply(CSV, delay=1.0))
    with pytest.raises(SourceError, match="Read timed out"):
        fetch(url, timeout=0.3, attempts=1)


# Failures that stay


@pytest.mark.parametrize(
    ("status", "way_out"), [(401, "credentials"), (403, "credentials"), (404, "address")]
)
def test_a_refusal_is_told_at_once_with_address_status_and_way_out(
    status: int, way_out: str, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    url = web.put("/a.csv?token=hunter2", Reply(CSV), Reply(b"no", status))
    fetch(url)
    with pytest.raises(SourceError) as caught:
        fetch(url)
    error = caught.value
    assert f"{web.address}/a.csv?token=***: the server answered {status}" in error.problem
    assert "at attempt 1" in error.problem
    assert way_out in error.way_out
    assert error.culprits == {"url": f"{web.address}/a.csv?token=***"}
    assert "hunter2" not in told(error)
    assert len(web.asked) == 2
    assert files(landing) == {"a.csv": CSV}


def test_a_server_that_stays_busy_is_told_with_the_number_of_attempts(
    web: Publisher, fetch: Fetch
) -> None:
    url = web.put("/a.csv?token=hunter2", Reply(b"", 500))
    with pytest.raises(SourceError, match=r"answered 500 \(.*\) after 4 attempts") as caught:
        fetch(url, attempts=4)
    assert "hunter2" not in told(caught.value)
    assert len(web.asked) == 4


def test_a_server_that_is_not_there_is_told_without_secrets(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    with pytest.raises(SourceError, match=r"Connection refused after 2 attempts") as caught:
        fetch("http://127.0.0.1:1/a.csv?key=hunter2", attempts=2, Authorization="TOKEN")
    assert "http://127.0.0.1:1/a.csv?key=***" in caught.value.problem
    assert "hunter2" not in told(caught.value)


def told(error: BaseException) -> str:
    """All texts of an error and of those it is shown to come from."""
    above = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    own = f"{error} {error.args!r} {getattr(error, 'culprits', '')}"
    return own + (told(above) if above else "")


def test_one_address_that_fails_keeps_no_other_from_landing(
    web: Publisher, fetch: Fetch, landing: Path
) -> None:
    good, other = web.put("/a.csv", Reply(CSV)), web.put("/c.csv", Reply(OTHER))
    with pytest.raises(SourceError) as caught:
        fetch(good, f"{web.address}/b.csv", other, f"{web.address}/d.csv")
    assert files(landing) == {"a.csv": CSV, "c.csv": OTHER}
    assert caught.value.culprits == {
        "urls": [f"{web.address}/b.csv", f"{web.address}/d.csv"],
        "landed": ["a.csv", "c.csv"],
    }
    assert "landed: a.csv, c.csv" in caught.value.stored


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"<!DOCTYPE html><p>Down for maintenance", "HTML or XML page"),
        ("a.csv", b"", "it is empty"),
        ("a.csv", b"country,x\nD\xc4U,1\n", "not UTF-8"),
        ("a.csv.gz", ZIPPED[:-5], "cut off or damaged"),
        ("a.parquet", b"PAR1 and no footer", "no Parquet file"),
    ],
)
def test_what_is_not_what_its_name_says_does_not_replace_what_was_landed(
    name: str, content: bytes, says: str, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"country": ["DEU"]}), buffer)
    good = {"a.csv": CSV, "a.csv.gz": ZIPPED, "a.parquet": buffer.getvalue()}[name]
    url = web.put(f"/{name}", Reply(good), Reply(content))
    fetch(url)
    with pytest.raises(SourceError, match=says):
        fetch(url)
    assert files(landing) == {name: good}


# Headers, redirects, compression


def test_headers_come_from_the_environment(
    web: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "Bearer hunter2\n")
    fetch(web.put("/a.csv", Reply(CSV)), Authorization="TOKEN", X_Api_Key="TOKEN")
    assert web.asked[0].headers["Authorization"] == "Bearer hunter2"
    assert web.asked[0].headers["X-Api-Key"] == "Bearer hunter2"


@pytest.mark.parametrize("value", ["", "hunter2\nX-Other: 1", "hunter2é", "hunter2\t x"])
def test_a_header_whose_variable_holds_no_value_for_it_is_told_by_name_alone(
    value: str, web: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", value)
    with pytest.raises(SourceError, match="environment variable TOKEN") as caught:
        fetch(web.put("/a.csv", Reply(CSV)), Authorization="TOKEN")
    assert "hunter2" not in told(caught.value)
    assert web.asked == []


def test_secret_headers_do_not_follow_a_redirect_to_another_host(
    web: Publisher, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    with publishing() as elsewhere:
        there = elsewhere.put("/b.csv", Reply(CSV)).replace("127.0.0.1", "localhost")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        moved = web.put("/a.csv", Reply(b"", 302, {"Location": there}))
        fetch(moved, Authorization="TOKEN", X_Api_Key="TOKEN")
        assert elsewhere.asked[0].headers.keys().isdisjoint({"Authorization", "X-Api-Key"})
    same = web.put("/c.csv", Reply(b"", 302, {"Location": "/d.csv"}))
    web.put("/d.csv", Reply(CSV))
    fetch(same, X_Api_Key="TOKEN")
    assert web.asked[-1].headers["X-Api-Key"] == "hunter2"


@pytest.mark.parametrize(("name", "landed"), [("a.csv", CSV), ("a.csv.gz", ZIPPED)])
def test_compression_on_the_way_is_undone_and_that_of_a_file_is_kept(
    name: str, landed: bytes, web: Publisher, fetch: Fetch, landing: Path
) -> None:
    zipped = ZIPPED
    url = web.put(f"/{name}", Reply(zipped, headers={"Content-Encoding": "gzip"}))
    fetch(url)
    (file,) = list_files(str(landing))
    assert survey(file, "country").rows == 2
    assert Path(file.uri).read_bytes() == (CSV if name == "a.csv" else zipped)


def test_a_redirect_without_end_is_told(web: Publisher, fetch: Fetch) -> None:
    url = web.put("/a.csv", Reply(b"", 302, {"Location": "/a.csv"}))
    with pytest.raises(SourceError, match="cannot be asked for"):
        fetch(url)


def test_a_large_file_is_never_in_memory(web: Publisher, fetch: Fetch, landing: Path) -> None:
    import tracemalloc

    large = b"country,x\n" + b"DEU,1\n" * 5_000_000
    url = web.put("/a.csv", Reply(large))
    tracemalloc.start()
    fetch(url)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert os.path.getsize(landing / "a.csv") == len(large)
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a?x=1&y=b%20c&z", "https://h/a?x=***&y=***&z"),
        ("https://h/a#n.csv", "https://h/a#n.csv"),
        ("https://h/a?key=a=b", "https://h/a?key=***"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_an_object_store_gets_the_files_and_remembers_them(
    web: Publisher, bucket: str, s3_options: dict[str, Any]
) -> None:
    url = web.put("/a.csv", Reply(CSV, etag='"1"'), Reply(CSV, etag='"1"'), Reply(OTHER))
    source, uri = source_of(HttpSpec(urls=[url])), f"s3://{bucket}/in"
    assert pull(source, uri, s3_options) == Pulled(("a.csv",))
    assert pull(source, uri, s3_options) == Pulled(unchanged=(url,))
    assert web.asked[1].headers["If-None-Match"] == '"1"'
    assert pull(source, uri, s3_options) == Pulled(("a.csv",))
    (file,) = list_files(uri, s3_options)
    assert survey(file, "country", s3_options).rows_by_country == {"DEU": 1, "FRA": 1, "NOR": 1}
