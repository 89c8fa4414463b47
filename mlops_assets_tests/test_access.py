"""`mlops_assets.load`: what is stored, and what was stored, for a notebook."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets import load
from mlops_assets.errors import ConfigurationError, MlopsAssetsError, StorageError
from mlops_assets.storage import Snapshot, SnapshotStore

ASSET = ("parcels", "features")
DECISIONS = ("parcels", "decisions")
FIRST = pd.DataFrame({"entity": ["a"], "demand": [1.0]})
SECOND = pd.DataFrame({"entity": ["a", "b"], "demand": [1.0, 2.0]})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnapshotStore:
    """The store of a deployment in a folder of its own."""
    for name in ("MLOPS_ASSETS_STORAGE", "MLOPS_ASSETS_AS_OF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path))
    return SnapshotStore(str(tmp_path / "store"))


@pytest.fixture
def versions(store: SnapshotStore) -> tuple[Snapshot, Snapshot]:
    """Two versions of one country."""
    written = [store.write(ASSET, "FRA", frame).snapshot for frame in (FIRST, SECOND)]
    return written[0], written[1]


def decide(store: SnapshotStore, country: str, verdict: str) -> dt.datetime:
    """A decision, and a moment after it."""
    store.append(DECISIONS, country, pd.DataFrame({"country": [country], "verdict": [verdict]}))
    return dt.datetime.now(dt.UTC)


@pytest.mark.usefixtures("versions")
def test_without_a_moment_it_is_what_is_current() -> None:
    pd.testing.assert_frame_equal(load("parcels", "features", "FRA"), SECOND)


@pytest.mark.usefixtures("versions")
def test_only_the_columns_asked_for_are_there_in_that_order() -> None:
    found = load("parcels", "features", "FRA", columns=["demand", "entity"])
    pd.testing.assert_frame_equal(found, SECOND[["demand", "entity"]])


def test_a_moment_may_be_aware_in_any_zone_or_naive_or_text_and_is_the_same_one(
    versions: tuple[Snapshot, Snapshot],
) -> None:
    first, second = (each.created_at for each in versions)
    tokyo = dt.timezone(dt.timedelta(hours=9))
    for moment in (first, second - dt.timedelta(microseconds=1)):
        for written in (
            moment,
            moment.astimezone(tokyo),
            moment.replace(tzinfo=None),
            moment.isoformat(),
            moment.astimezone(tokyo).isoformat(),
            moment.replace(tzinfo=None).isoformat(),
            moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        ):
            pd.testing.assert_frame_equal(load("parcels", "features", "FRA", as_of=written), FIRST)
    pd.testing.assert_frame_equal(load("parcels", "features", "FRA", as_of=second), SECOND)
    found = load("parcels", "features", "FRA", as_of=first, columns=["demand"])
    pd.testing.assert_frame_equal(found, FIRST[["demand"]])


def test_before_the_first_snapshot_the_error_says_since_when_and_how_to_compute_it(
    versions: tuple[Snapshot, Snapshot],
) -> None:
    early = versions[0].created_at - dt.timedelta(days=400)
    with pytest.raises(StorageError) as caught:
        load("parcels", "features", "FRA", as_of=early)
    said = str(caught.value)
    assert f"no snapshot of parcels/features of FRA at {early:%Y-%m-%d %H:%M} UTC" in said
    assert f"The first is of {versions[0].created_at:%Y-%m-%d %H:%M} UTC" in said
    assert (
        f"mlops-assets materialize parcels --country FRA --as-of {early:%Y-%m-%dT%H:%M:%SZ}" in said
    )


def test_a_snapshot_that_retention_removed_is_told_from_one_that_never_was(
    store: SnapshotStore, versions: tuple[Snapshot, Snapshot]
) -> None:
    first, _ = versions
    store.remove(first, reason="older than 90 days")
    with pytest.raises(StorageError, match=r"was removed on .*older than 90 days"):
        load("parcels", "features", "FRA", as_of=first.created_at)


def test_a_log_is_loaded_whole_or_of_one_country_as_it_is_or_was(store: SnapshotStore) -> None:
    first = decide(store, "FRA", "promoted")
    second = decide(store, "DEU", "promoted")
    decide(store, "FRA", "kept")
    assert load("parcels", "decisions")["country"].tolist() == ["FRA", "DEU", "FRA"]
    assert load("parcels", "decisions", "FRA")["verdict"].tolist() == ["promoted", "kept"]
    assert load("parcels", "decisions", as_of=second)["country"].tolist() == ["FRA", "DEU"]
    assert load("parcels", "decisions", "FRA", as_of=first)["verdict"].tolist() == ["promoted"]
    assert load("parcels", "decisions", columns=["verdict"]).columns.tolist() == ["verdict"]


@pytest.mark.usefixtures("versions")
def test_a_column_that_is_not_there_is_named_for_snapshots_and_logs_alike(
    store: SnapshotStore,
) -> None:
    decide(store, "FRA", "promoted")
    for asset in ("features", "decisions"):
        with pytest.raises(StorageError, match="nonsense"):
            load("parcels", asset, "FRA", columns=["nonsense"])


def test_before_its_first_entry_a_log_says_so_and_asks_nobody_to_compute_it(
    store: SnapshotStore,
) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    decide(store, "FRA", "promoted")
    for country in ("FRA", None):
        with pytest.raises(StorageError) as caught:
            load("parcels", "decisions", country, as_of=before)
        assert "parcels/decisions" in str(caught.value)
        assert "materialize" not in str(caught.value)


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("product", "asset", "country"),
    [
        ("nonsense", "features", "FRA"),
        ("parcels", "nonsense", "FRA"),
        ("parcels", "features", "DEU"),
        ("parcels", "features", None),
        ("parcels", "decisions", "DEU"),
    ],
)
@pytest.mark.parametrize("as_of", [None, "2099-01-01"])
def test_what_was_never_stored_is_named_and_no_first_time_is_made_up(
    product: str, asset: str, country: str | None, as_of: str | None
) -> None:
    with pytest.raises(StorageError) as caught:
        load(product, asset, country, as_of=as_of)
    said = str(caught.value)
    assert f"{product}/{asset}" in said
    assert "The first is of" not in said
    assert caught.value.way_out


@pytest.mark.usefixtures("versions")
def test_an_asset_that_has_countries_says_which_when_none_is_given(store: SnapshotStore) -> None:
    store.write(ASSET, "DEU", FIRST)
    with pytest.raises(StorageError, match="DEU, FRA"):
        load("parcels", "features")


@pytest.mark.usefixtures("versions")
def test_a_text_that_is_no_time_is_refused_as_such() -> None:
    with pytest.raises(ConfigurationError, match="'yesterday' is not a time"):
        load("parcels", "features", "FRA", as_of="yesterday")


def test_an_asset_without_countries_needs_none(store: SnapshotStore) -> None:
    store.write(("parcels", "pooled_model"), None, FIRST)
    pd.testing.assert_frame_equal(load("parcels", "pooled_model"), FIRST)
    with pytest.raises(MlopsAssetsError, match="parcels/pooled_model"):
        load("parcels", "pooled_model", "FRA")
