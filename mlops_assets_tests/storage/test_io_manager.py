# Dagster reads the annotations of the assets below at run time: no `annotations` import here.
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import Snapshot, SnapshotIOManager, SnapshotStore, Unchanged
from mlops_assets_tests.storage.conftest import ACCESS
from mlops_assets_tests.storage.frames import prices

# Runs over many partitions rest on the backfill policy, which Dagster still calls beta.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")

KEYS = ["BRA", "Côte d'Ivoire", "DEU"]
COUNTRIES = dg.StaticPartitionsDefinition(KEYS)
RAW = dg.AssetKey(["power_price", "raw"])
ONE_RUN = dg.BackfillPolicy.single_run()
ALL_PARTITIONS = dg.AllPartitionMapping()


@pytest.fixture
def io_manager(store: SnapshotStore) -> SnapshotIOManager:
    return SnapshotIOManager(uri=store.uri)


class Runs:
    """Materializes assets into a store with a real instance."""

    def __init__(self, instance: dg.DagsterInstance, io_manager: SnapshotIOManager) -> None:
        self.instance = instance
        self.io_manager = io_manager

    def one(self, *assets: Any, partition: str | None = None) -> dg.ExecuteInProcessResult:
        return self._run(assets, partition_key=partition)

    def all(self, *assets: Any, keys: list[str] = KEYS) -> dg.ExecuteInProcessResult:
        tags = {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
        return self._run(assets, tags=tags)

    def _run(self, assets: Any, **options: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            assets,
            instance=self.instance,
            resources={"io_manager": self.io_manager},
            raise_on_error=True,
            **options,
        )


@pytest.fixture
def runs(instance: dg.DagsterInstance, io_manager: SnapshotIOManager) -> Runs:
    return Runs(instance, io_manager)


def _events(runs: Runs, key: dg.AssetKey) -> dict[str | None, dg.AssetMaterialization]:
    """The last materialization of each partition."""
    found = runs.instance.fetch_materializations(key, limit=100).records
    events = [record.asset_materialization for record in reversed(found)]
    return {event.partition: event for event in events if event is not None}


def _raw(
    output: Any, annotation: Any = pd.DataFrame, *, at_once: bool = False, **options: Any
) -> dg.AssetsDefinition:
    """The asset `raw`, returning `output` (or what calling it with the context gives)."""

    def raw(context):  # noqa: ANN001, ANN202 (annotated below, differently each time)
        return output(context) if callable(output) else output

    raw.__annotations__ = {"context": dg.AssetExecutionContext, "return": annotation}
    policy = ONE_RUN if at_once else None
    return dg.asset(key=RAW, partitions_def=COUNTRIES, backfill_policy=policy, **options)(raw)


def _by_country(frames: dict[str, Any]) -> Any:
    return _raw(frames, dict[str, Any], at_once=True)


def test_one_partition_is_stored_reported_and_loaded(runs: Runs, store: SnapshotStore) -> None:
    loaded: list[pd.DataFrame] = []

    @dg.asset(
        key=["power_price", "features"], partitions_def=COUNTRIES, ins={"raw": dg.AssetIn(RAW)}
    )
    def features(raw: pd.DataFrame) -> pd.DataFrame:
        loaded.append(raw)
        return raw.assign(double=raw["price"] * 2)

    runs.one(_raw(prices(4)), features, partition="Côte d'Ivoire")
    assert_frame_equal(loaded[0], prices(4))
    snapshot = store.current(("power_price", "raw"), "Côte d'Ivoire")
    assert snapshot is not None
    event = _events(runs, RAW)["Côte d'Ivoire"]
    assert {key: value.value for key, value in event.metadata.items()} == {
        "dagster/partition_row_count": 4,
        "dagster/uri": snapshot.uri,
        "mlops_assets/version": snapshot.version,
        "mlops_assets/content_hash": snapshot.content_hash,
        "mlops_assets/size_bytes": snapshot.size_bytes,
        "mlops_assets/changed": True,
    }
    assert (event.tags or {})["dagster/data_version"] == snapshot.content_hash
    assert list(store.current_all(RAW.path)) == ["Côte d'Ivoire"]


def test_the_run_that_wrote_is_in_the_snapshot(runs: Runs, store: SnapshotStore) -> None:
    run = runs.one(_raw(prices()), partition="DEU")
    snapshot = store.current(RAW.path, "DEU")
    assert snapshot is not None
    assert snapshot.run_id == run.run_id


def test_the_same_rows_again_keep_version_and_data_version(runs: Runs) -> None:
    runs.one(_raw(prices()), partition="DEU")
    first = _events(runs, RAW)["DEU"]
    runs.one(_raw(prices()), partition="DEU")
    second = _events(runs, RAW)["DEU"]
    assert second.metadata["mlops_assets/changed"].value is False
    for name in ("mlops_assets/version", "dagster/uri"):
        assert second.metadata[name] == first.metadata[name]
    assert (second.tags or {})["dagster/data_version"] == (first.tags or {})["dagster/data_version"]


def test_unchanged_writes_nothing_and_keeps_the_data_version(
    runs: Runs, store: SnapshotStore
) -> None:
    before = store.write(RAW.path, "DEU", prices(), run_id="earlier").snapshot
    runs.one(_raw(Unchanged(before), Any), partition="DEU")
    assert store.current(RAW.path, "DEU") == before
    event = _events(runs, RAW)["DEU"]
    assert event.metadata["mlops_assets/changed"].value is False
    assert event.metadata["dagster/partition_row_count"].value == 3
    assert (event.tags or {})["dagster/data_version"] == before.content_hash


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_unchanged_of_another_partition_is_refused(runs: Runs, store: SnapshotStore) -> None:
    other = store.write(RAW.path, "BRA", prices()).snapshot
    with pytest.raises(StorageError, match="Unchanged with a snapshot of"):
        runs.one(_raw(Unchanged(other), Any), partition="DEU")
    assert store.current(RAW.path, "DEU") is None


def test_an_asset_without_partitions_is_stored_and_loaded(runs: Runs, store: SnapshotStore) -> None:
    loaded: list[pa.Table] = []

    @dg.asset(key=["power_price", "pooled_model"])
    def pooled_model() -> pd.DataFrame:
        return prices(2)

    @dg.asset(ins={"pooled": dg.AssetIn(pooled_model.key)})
    def report(pooled: pa.Table) -> pa.Table:
        loaded.append(pooled)
        return pooled.slice(1)

    runs.one(pooled_model, report)
    assert loaded[0].num_rows == 2
    assert len(store.read(("report",), None)) == 1
    event = _events(runs, pooled_model.key)[None]
    assert event.metadata["dagster/row_count"].value == 2


def test_a_run_over_all_partitions_stores_each_frame_of_a_dict(
    runs: Runs, store: SnapshotStore
) -> None:
    loaded: list[dict[str, pd.DataFrame]] = []

    @dg.asset(
        key=["power_price", "features"],
        partitions_def=COUNTRIES,
        backfill_policy=ONE_RUN,
        ins={"raw": dg.AssetIn(RAW)},
    )
    def features(raw: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        loaded.append(raw)
        return {key: frame[["price"]] for key, frame in raw.items()}

    runs.all(_by_country({key: prices(n) for n, key in enumerate(KEYS)}), features)
    assert {key: len(frame) for key, frame in loaded[0].items()} == {
        key: n for n, key in enumerate(KEYS)
    }
    for n, key in enumerate(KEYS):
        snapshot = store.current(RAW.path, key)
        assert snapshot is not None
        event = _events(runs, RAW)[key]
        assert event.metadata["dagster/partition_row_count"].value == n
        assert event.metadata["mlops_assets/content_hash"].value == snapshot.content_hash
        assert list(store.read(features.key.path, key)) == ["price"]


def test_a_run_over_all_partitions_has_one_data_version_that_follows_every_content(
    runs: Runs,
) -> None:
    frames = {key: prices(n) for n, key in enumerate(KEYS)}
    seen = []
    for frame in (prices(2), prices(2), prices(9)):
        runs.all(_by_country({**frames, "DEU": frame}))
        tags = [event.tags or {} for event in _events(runs, RAW).values()]
        assert len({tag["dagster/data_version"] for tag in tags}) == 1
        seen.append(tags[0]["dagster/data_version"])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
@pytest.mark.parametrize("keys", [["BRA", "DEU", "FRA"], ["BRA", "DEU"], []])
def test_a_dict_with_other_keys_than_the_run_writes_nothing(
    runs: Runs, store: SnapshotStore, keys: list[str]
) -> None:
    with pytest.raises(StorageError, match="other partitions than the run is for"):
        runs.all(_by_country({key: prices() for key in keys}))
    assert store.assets() == []
    assert _events(runs, RAW) == {}


def test_one_frame_that_cannot_be_stored_keeps_the_whole_dict_from_being_written(
    runs: Runs, store: SnapshotStore
) -> None:
    frames = {key: prices() for key in KEYS} | {"DEU": pd.DataFrame({"x": [1, "a"]})}
    with pytest.raises(StorageError, match="one type"):
        runs.all(_by_country(frames))
    assert store.assets() == []


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_dict_may_say_unchanged_for_some(runs: Runs, store: SnapshotStore) -> None:
    before = store.write(RAW.path, "BRA", prices(7)).snapshot
    runs.all(_by_country({**{key: prices() for key in KEYS}, "BRA": Unchanged(before)}))
    assert store.current(RAW.path, "BRA") == before
    changed = {k: e.metadata["mlops_assets/changed"].value for k, e in _events(runs, RAW).items()}
    assert changed == {"BRA": False, "Côte d'Ivoire": True, "DEU": True}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_one_frame_for_many_partitions_is_refused(runs: Runs, store: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="one DataFrame for 3 partitions"):
        runs.all(_raw(prices(), at_once=True))
    assert store.assets() == []


def _whole(countries: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "country": countries,
            "n": pd.array(range(len(countries)), "Int64"),
            "note": [None] * (len(countries) - 1) + ["only here"],
            "kind": pd.Categorical(["a"] * len(countries), categories=["a", "b"]),
        }
    )


def test_one_frame_is_split_by_its_partition_column_with_one_schema(
    runs: Runs, store: SnapshotStore
) -> None:
    metadata = {"partition_column": "country"}
    runs.all(_raw(_whole(["BRA", "DEU", "BRA"]), at_once=True, metadata=metadata))
    assert store.read(RAW.path, "BRA")["n"].tolist() == [0, 2]
    assert store.read(RAW.path, "DEU")["n"].tolist() == [1]
    tables = [store.read_table(RAW.path, key) for key in KEYS]
    assert [table.num_rows for table in tables] == [2, 0, 1]
    assert len({str(table.schema.remove_metadata()) for table in tables}) == 1
    empty = store.read(RAW.path, "Côte d'Ivoire")
    assert_frame_equal(empty, _whole(["BRA"]).iloc[:0], check_index_type=False)
    before = store.current(RAW.path, "DEU")
    runs.all(_raw(_whole(["BRA", "DEU", "BRA", "BRA"]), at_once=True, metadata=metadata))
    assert store.current(RAW.path, "DEU") == before, "rows of one country changed another's"


@pytest.mark.parametrize("countries", [["BRA", "FRA"], ["BRA", None]])
def test_rows_of_no_partition_of_the_run_are_never_dropped_silently(
    runs: Runs, store: SnapshotStore, countries: list[str | None]
) -> None:
    with pytest.raises(StorageError, match="which this run is not for"):
        runs.all(_raw(_whole(countries), at_once=True, metadata={"partition_column": "country"}))
    assert store.assets() == []


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_partition_column_that_is_missing_is_named(runs: Runs) -> None:
    with pytest.raises(StorageError, match="'country'"):
        runs.all(_raw(prices(), at_once=True, metadata={"partition_column": "country"}))


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_something_else_than_a_frame_is_refused(runs: Runs) -> None:
    with pytest.raises(StorageError, match="list cannot be stored"):
        runs.one(_raw([1], Any), partition="DEU")


def _reader(
    annotation: Any,
    loaded: list[Any],
    partitions: Any = None,
    name: str = "reader",
    **options: Any,
) -> Any:
    """An asset that keeps what it loads of `raw` and stores its length."""

    def reader(raw):  # noqa: ANN001, ANN202 (annotated below, differently each time)
        loaded.append(raw)
        return pd.DataFrame({"n": [0]})

    reader.__annotations__ = {"raw": annotation, "return": pd.DataFrame}
    ins = {"raw": dg.AssetIn(RAW, **options)}
    return dg.asset(name=name, ins=ins, partitions_def=partitions)(reader)


def _load_all(runs: Runs, *annotations: Any, **options: Any) -> list[Any]:
    """What an asset of each annotation gets of all partitions, in one run."""
    loaded: list[list[Any]] = [[] for _ in annotations]
    readers = [
        _reader(
            annotation,
            loaded[place],
            name=f"reader_{place}",
            partition_mapping=ALL_PARTITIONS,
            **options,
        )
        for place, annotation in enumerate(annotations)
    ]
    raw = dg.AssetSpec(RAW, partitions_def=COUNTRIES)
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            [raw, *readers],
            selection=readers,
            instance=instance,
            resources={"io_manager": runs.io_manager},
        )
    return [got for (got,) in loaded]


def test_many_partitions_load_as_dicts_or_under_each_other(
    runs: Runs, store: SnapshotStore
) -> None:
    for n, key in enumerate(KEYS):
        store.write(RAW.path, key, prices(n, offset=n))
    by_country = [dict[str, each] for each in (pd.DataFrame, pa.Table, Snapshot)]
    frames, tables, snapshots, *together = _load_all(runs, *by_country, pd.DataFrame, Any, pa.Table)
    assert_frame_equal(frames["DEU"], prices(2, offset=2))
    assert tables["DEU"].num_rows == 2
    assert snapshots == store.current_all(RAW.path)
    for frame in together[:2]:
        assert frame["_partition"].tolist() == ["Côte d'Ivoire", "DEU", "DEU"]
        assert frame.drop(columns="_partition").dtypes.equals(prices().dtypes)
    assert together[2].column_names == ["_partition", *prices()]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_only_the_columns_in_the_input_metadata_are_loaded(
    runs: Runs, store: SnapshotStore
) -> None:
    for key in KEYS:
        store.write(RAW.path, key, prices())
    metadata = {"columns": ["price"]}
    frames, frame = _load_all(runs, dict[str, pd.DataFrame], pd.DataFrame, metadata=metadata)
    assert [list(each) for each in frames.values()] == [["price"]] * 3
    assert list(frame) == ["_partition", "price"]
    loaded: list[pd.DataFrame] = []
    reader = _reader(pd.DataFrame, loaded, COUNTRIES, metadata=metadata)
    runs.one(_raw(prices()), reader, partition="DEU")
    assert list(loaded[0]) == ["price"]


def test_a_partition_never_stored_is_named_unless_it_may_be_missing(
    runs: Runs, store: SnapshotStore
) -> None:
    store.write(RAW.path, "DEU", prices())
    annotations = (dict[str, pd.DataFrame], dict[str, Snapshot], pd.DataFrame)
    for annotation in annotations:
        with pytest.raises(StorageError, match=r"for \['BRA', \"Côte d'Ivoire\"\]"):
            _load_all(runs, annotation)
    found = _load_all(runs, *annotations, metadata={"allow_missing_partitions": True})
    assert [len(each) for each in found] == [1, 1, 3]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_snapshot_input_loads_no_rows(runs: Runs, store: SnapshotStore) -> None:
    loaded: list[Snapshot] = []
    runs.one(_raw(prices()), _reader(Snapshot, loaded, COUNTRIES), partition="DEU")
    assert loaded == [store.current(RAW.path, "DEU")]


@pytest.mark.parametrize("annotation", [Snapshot, pd.DataFrame])
def test_an_input_that_was_never_stored_says_what_to_materialize(
    runs: Runs, annotation: Any
) -> None:
    reader = _reader(annotation, [])
    with pytest.raises(StorageError, match="Materialize power_price/raw"):
        dg.materialize(
            [dg.AssetSpec(RAW), reader],
            selection=[reader],
            instance=runs.instance,
            resources={"io_manager": runs.io_manager},
        )


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_an_annotation_that_cannot_be_loaded_is_named(runs: Runs, store: SnapshotStore) -> None:
    store.write(RAW.path, "DEU", prices())
    with pytest.raises(StorageError, match="cannot be loaded as"):
        runs.one(_raw(prices()), _reader(int, [], COUNTRIES), partition="DEU")


def test_metadata_of_the_asset_under_our_prefix_is_stored_with_the_snapshot(
    runs: Runs, store: SnapshotStore
) -> None:
    def output(context: dg.AssetExecutionContext) -> pd.DataFrame:
        context.add_output_metadata(
            {
                "mlops_assets/inputs": dg.MetadataValue.json({"raw": "abc"}),
                "mlops_assets/seed": 7,
                "rows_seen": 3,
            }
        )
        return prices()

    runs.one(_raw(output), partition="DEU")
    snapshot = store.current(RAW.path, "DEU")
    assert snapshot is not None
    assert snapshot.metadata == {"mlops_assets/inputs": {"raw": "abc"}, "mlops_assets/seed": 7}
    event = _events(runs, RAW)["DEU"]
    assert event.metadata["mlops_assets/inputs"].value == {"raw": "abc"}
    assert event.metadata["rows_seen"].value == 3


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_metadata_for_one_partition_of_many_is_stored_with_that_partition(
    runs: Runs, store: SnapshotStore
) -> None:
    def output(context: dg.AssetExecutionContext) -> dict[str, pd.DataFrame]:
        for key in KEYS:
            context.add_asset_metadata({"mlops_assets/inputs": f"of {key}"}, partition_key=key)
        return {key: prices() for key in KEYS}

    runs.all(_raw(output, dict[str, pd.DataFrame], at_once=True))
    for key, snapshot in store.current_all(RAW.path).items():
        assert snapshot.metadata == {"mlops_assets/inputs": f"of {key}"}
        assert _events(runs, RAW)[key].metadata["mlops_assets/inputs"].value == f"of {key}"


def test_a_failed_write_fails_the_run_and_keeps_what_was_there(
    runs: Runs, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    runs.one(_raw(prices()), partition="DEU")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="unchanged and whole"):
            runs.one(_raw(prices(9)), partition="DEU")
    assert_frame_equal(store.read(RAW.path, "DEU"), prices())
    assert _events(runs, RAW)["DEU"].metadata["dagster/partition_row_count"].value == 3


def test_the_same_assets_work_over_an_object_store(
    instance: dg.DagsterInstance, bucket: str
) -> None:
    io_manager = SnapshotIOManager(uri=f"{bucket}/x", storage_options=ACCESS)
    runs = Runs(instance, io_manager)
    loaded: list[pd.DataFrame] = []
    runs.one(_raw(prices()), _reader(pd.DataFrame, loaded, COUNTRIES), partition="DEU")
    assert_frame_equal(loaded[0], prices())
    assert io_manager.store.assets() == [("power_price", "raw"), ("reader",)]
    uri = _events(runs, RAW)["DEU"].metadata["dagster/uri"].value
    assert str(uri).startswith(f"{bucket}/x/power_price/raw/country=DEU/")
