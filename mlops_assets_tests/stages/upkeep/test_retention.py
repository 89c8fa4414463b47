"""Retention removes what nothing needs, and never anything that something needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from mlops_assets.errors import ConfigurationError, RegistryError, StorageError
from mlops_assets.registry import Registry
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.upkeep.retention import RetentionPlan, apply_retention, plan_retention
from mlops_assets.storage import Snapshot, SnapshotStore, VersionGoneError
from mlops_assets.storage.hashing import content_hash
from mlops_assets_tests.effort import examples
from mlops_assets_tests.stages.history import COUNTRIES, History

TICK = timedelta(microseconds=1)
FAR = timedelta(days=400)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())


@pytest.fixture
def history(registry: Registry) -> History:
    return History(registry)


@pytest.fixture
def on_disk(registry: Registry, tmp_path: Path) -> History:
    return History(registry, SnapshotStore(str(tmp_path / "store")))


def planned(history: History, since: datetime, days: int = 1) -> RetentionPlan:
    """A plan whose as-of window begins at a moment."""
    now = since + timedelta(days=days)
    return plan_retention(
        ProductContext(history.product, history.store, history.registry), now=now, keep_days=days
    )


def late(history: History) -> RetentionPlan:
    """A plan made long after everything."""
    return planned(history, datetime.now(UTC) + FAR)


def carried_out(history: History, made: RetentionPlan) -> set[str]:
    """Versions that executing a plan removed."""
    done = apply_retention(made, ProductContext(history.product, history.store, history.registry))
    return versions(each.snapshot for each in done.removed)


def versions(snapshots: Iterator[Snapshot]) -> set[str]:
    return {snapshot.version for snapshot in snapshots}


def removable(made: RetentionPlan) -> set[str]:
    return versions(each.snapshot for each in made.removable)


def reasons(made: RetentionPlan, asset: str = "features") -> list[str]:
    """Why versions of an asset are kept, newest first."""
    return [each.reason for each in made.kept if each.snapshot.asset[1] == asset]


def stored(history: History) -> set[str]:
    return {each.snapshot.version for each in history.files if not each.removed}


def one_chain(history: History, content: int, country: str = "DEU") -> None:
    """Raw rows and all that is made of them."""
    for asset in ("raw", "validated", "quarantine", "features", "predictions"):
        history.write(asset, country, content)


# What keeps a snapshot


def test_what_is_current_or_made_it_stays_and_what_was_replaced_can_go(history: History) -> None:
    for content in (1, 2, 3):
        one_chain(history, content)
    made = late(history)
    assert len(made.kept) == 5
    assert len(made.removable) == 10
    assert set(reasons(made, "raw")) == {"current"}
    assert {each.reason for each in made.removable} == {
        "replaced more than a day ago; no model, decision or kept snapshot needs it"
    }


def test_a_registered_model_keeps_its_features_and_all_they_were_made_from(
    history: History,
) -> None:
    one_chain(history, 1)
    history.train("DEU", recorded=False)
    for content in (2, 3):
        one_chain(history, content)
    made = late(history)
    assert reasons(made) == ["current", f"{history.name}.DEU version 1 was made from it"]
    assert len(reasons(made, "validated")) == len(reasons(made, "raw")) == 2
    assert "features of DEU, version 2" in reasons(made, "validated")[1]
    assert len(reasons(made, "quarantine")) == len(reasons(made, "predictions")) == 1


def test_a_pooled_model_keeps_the_features_of_every_country(history: History) -> None:
    for content in (1, 2):
        for country in COUNTRIES:
            one_chain(history, content, country)
        if content == 1:
            history.train_pooled()
    told = f"{history.name}.pooled-gbm version 1 was made from it"
    assert reasons(late(history)).count(told) == 2


def test_a_decision_keeps_the_features_it_compared_on(history: History) -> None:
    one_chain(history, 1)
    history.decide("DEU", 0)
    one_chain(history, 2)
    assert reasons(late(history)) == ["current", "decision decision 0 names it"]


def test_the_as_of_window_keeps_what_is_young_and_what_was_current_when_it_begins(
    history: History,
) -> None:
    for content in (1, 2, 3, 4):
        history.write("raw", "DEU", content)
    second, third = history.files[1].snapshot, history.files[2].snapshot
    made = planned(history, third.created_at - TICK, days=7)
    assert reasons(made, "raw") == [
        "current", "written in the last 7 days", "was current 7 days ago",
    ]  # fmt: skip
    assert removable(made) == {history.files[0].snapshot.version}
    assert removable(planned(history, third.created_at)) == {
        history.files[0].snapshot.version,
        second.version,
    }


def test_inputs_of_the_first_and_of_the_last_making_of_a_content_are_kept(
    history: History,
) -> None:
    for content in (1, 2, 3, 4):
        history.write("validated", "DEU", content)
        if content < 4:
            history.write("features", "DEU", 1)  # the same rows from other ones
    history.train("DEU", recorded=False)
    history.write("features", "DEU", 9)
    kept = {each.snapshot.version for each in late(history).kept}
    validated = [f.snapshot.version for f in history.files if f.place[0] == "validated"]
    assert [version in kept for version in validated] == [True, False, True, True]


def test_what_a_model_recorded_is_kept_though_its_features_were_made_again_from_others(
    history: History,
) -> None:
    for content in (1, 2, 3, 4):
        history.write("validated", "DEU", content)
        history.write("features", "DEU", 1)
        if content == 2:
            history.train("DEU", recorded=True)
    kept = {each.snapshot.version for each in late(history).kept}
    validated = [f.snapshot.version for f in history.files if f.place[0] == "validated"]
    assert [version in kept for version in validated] == [True, True, False, True]


def test_a_file_that_a_writer_may_be_about_to_make_current_keeps_what_it_was_made_from(
    history: History,
) -> None:
    for content in (1, 2, 3):
        history.write("raw", "DEU", content)
        if content == 1:
            history.write("validated", "DEU", 1)
        if content == 2:
            history.leave_behind("validated", "DEU", 2)
    made = late(history)
    assert made.removable == ()
    assert reasons(made, "validated")[0].startswith("newer than the current one")
    assert reasons(made, "raw")[1].startswith("validated of DEU, version 2")


def test_a_file_whose_writer_was_killed_is_left_alone(history: History) -> None:
    history.write("raw", "DEU", 1)
    history.leave_behind("raw", "DEU", 2)
    history.write("raw", "DEU", 3)
    made = late(history)
    assert removable(made) == {history.files[0].snapshot.version}
    assert reasons(made, "raw")[1].startswith("never was current")


def test_a_model_whose_run_is_gone_keeps_everything_of_its_country(history: History) -> None:
    for country in COUNTRIES:
        one_chain(history, 1, country)
        one_chain(history, 2, country)
    history.register_from("DEU", "0" * 32)
    made = late(history)
    assert {each.snapshot.partition for each in made.removable} == {"Côte d'Ivoire"}
    told = f"{history.name}.DEU version 1 does not say any more what it was made from"
    assert reasons(made).count(told) == 1
    history.register("pooled-gbm", {}, {})
    assert late(history).removable == ()


def test_a_model_whose_record_is_lost_keeps_everything_of_its_country(history: History) -> None:
    for content in (1, 2, 3):
        one_chain(history, content)
    run = history.register("DEU", {"snapshot.features": "0" * 32}, {"features": {}})
    assert len(late(history).removable) == 10
    root = str(MlflowClient(history.registry.tracking_uri).get_run(run).info.artifact_uri)
    shutil.rmtree(root.removeprefix("file://"))
    assert late(history).removable == ()


def test_a_run_deleted_in_mlflow_still_says_what_its_model_needs(history: History) -> None:
    one_chain(history, 1)
    content = history.files[-2].content
    run = history.register("DEU", {"snapshot.features": content}, {"features": content})
    one_chain(history, 2)
    MlflowClient(history.registry.tracking_uri).delete_run(run)
    assert reasons(late(history))[1] == f"{history.name}.DEU version 1 was made from it"


def test_a_run_of_another_experiment_says_what_its_model_needs(history: History) -> None:
    one_chain(history, 1)
    content = history.files[-2].content
    history.register("DEU", {"snapshot.features": content}, {"features": content})
    client = MlflowClient(history.registry.tracking_uri)
    experiment = client.get_experiment_by_name(history.name)
    assert experiment is not None
    client.rename_experiment(experiment.experiment_id, f"{history.name} of last year")
    one_chain(history, 2)
    assert reasons(late(history))[1] == f"{history.name}.DEU version 1 was made from it"


def test_other_products_are_not_looked_at(history: History) -> None:
    other = History(history.registry, history.store)
    other.name = f"{history.name}x"
    for content in (1, 2):
        one_chain(history, content)
        one_chain(other, content)
    made = late(history)
    assert {each.snapshot.asset[0] for each in (*made.kept, *made.removable)} == {history.name}
    carried_out(history, made)
    assert len(late(other).removable) == 5


# Removing


def test_removing_frees_the_files_and_is_noted(on_disk: History, tmp_path: Path) -> None:
    for content in (1, 2):
        one_chain(on_disk, content)
    files = list(tmp_path.rglob("2*Z-*.parquet"))
    made = late(on_disk)
    going = [file for file in files if file.stem in removable(made)]
    small, all_of_it = (sum(path.stat().st_size for path in some) for some in (going, files))
    assert made.summary() == (
        f"{on_disk.name}: 5 of 10 snapshots ({small / 1000:,.1f} kB of {all_of_it / 1000:,.1f} kB) "
        "can be removed; every moment of the last day stays"
    )
    done = apply_retention(made, ProductContext(on_disk.product, on_disk.store, on_disk.registry))
    assert [file.exists() for file in going] == [False] * 5
    assert sum(file.exists() for file in files) == 5
    assert done.summary() == (f"{on_disk.name}: 5 snapshots removed, {small / 1000:,.1f} kB freed")
    log = on_disk.store.read_log((on_disk.name, "removals"))
    assert set(log["version"]) == removable(made)
    assert log["size_bytes"].sum() == small
    assert late(on_disk).removable == ()


def test_the_plan_is_a_frame_with_a_reason_for_each_snapshot(history: History) -> None:
    for content in (1, 2):
        history.write("raw", "DEU", content)
    history.train_pooled()
    frame = late(history).frame()
    assert frame[["asset", "country", "verdict"]].to_numpy().tolist() == [
        ["raw", "DEU", "removable"],
        ["raw", "DEU", "kept"],
    ]
    assert list(frame) == [
        "asset", "country", "version", "written", "rows", "bytes", "verdict", "why",
    ]  # fmt: skip
    assert (frame["bytes"] > 0).all()
    assert History(history.registry).store.assets() == []
    assert late(History(history.registry)).frame().empty


def test_what_a_model_came_to_need_after_the_plan_is_spared(history: History) -> None:
    for content in (1, 2):
        one_chain(history, content)
    made = late(history)
    features = next(each for each in history.files if each.place[0] == "features")
    made_from = {"snapshot.features": features.content}
    history.register("DEU", made_from, made_from)
    done = apply_retention(made, ProductContext(history.product, history.store, history.registry))
    assert {each.snapshot.asset[1] for each in done.spared} == {"raw", "validated", "features"}
    assert {each.snapshot.asset[1] for each in done.removed} == {"quarantine", "predictions"}
    assert done.summary().endswith("; 3 are needed since the plan")


def test_a_plan_of_another_product_is_refused(history: History) -> None:
    made = late(history)
    other = History(history.registry)
    with pytest.raises(ConfigurationError, match="The plan is of"):
        apply_retention(made, ProductContext(other.product, other.store, other.registry))


def test_carrying_out_a_plan_twice_removes_nothing_more(history: History) -> None:
    for content in (1, 2):
        one_chain(history, content)
    made = late(history)
    assert carried_out(history, made) == removable(made)
    assert carried_out(history, made) == set()


# When it cannot know


@pytest.mark.parametrize("days", [0, -1])
def test_a_window_under_a_day_is_refused(history: History, days: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        planned(history, datetime.now(UTC), days)


def test_the_window_is_that_of_the_product_unless_another_is_given(history: History) -> None:
    now = datetime.now(UTC)
    assert (
        plan_retention(
            ProductContext(history.product, history.store, history.registry), now=now
        ).keep_days
        == 90
    )
    with pytest.raises(StorageError, match="no time zone"):
        plan_retention(
            ProductContext(history.product, history.store, history.registry),
            now=datetime(2025, 1, 1),
        )


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/mlflow.db"])
def test_without_an_answer_of_the_registry_nothing_is_removed(
    history: History, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for content in (1, 2):
        one_chain(history, content)
    made = late(history)
    silent = Registry(uri, "unused")
    with pytest.raises(RegistryError, match="does not answer"):
        plan_retention(ProductContext(history.product, history.store, silent), now=made.now)
    with pytest.raises(RegistryError, match="does not answer"):
        apply_retention(made, ProductContext(history.product, history.store, silent))
    assert not Path("/nowhere").exists()
    assert removable(late(history)) == removable(made)


def test_the_empty_registry_of_another_place_is_not_believed(
    history: History, tmp_path: Path, mlflow_template: Path
) -> None:
    shutil.copyfile(mlflow_template, tmp_path / "other.db")
    other = Registry(f"sqlite:///{tmp_path / 'other.db'}", "unused")
    one_chain(history, 1)
    one_chain(history, 2)
    assert (
        len(
            plan_retention(
                ProductContext(history.product, history.store, other), now=late(history).now
            ).removable
        )
        == 5
    )
    row = {"decision_id": "1", "candidate_version": "1", "features_hash": "0" * 32, "evidence": ""}
    history.store.append((history.name, "decisions"), "DEU", pd.DataFrame([row]))
    with pytest.raises(RegistryError, match=r"has no model of .* another registry"):
        plan_retention(ProductContext(history.product, history.store, other), now=late(history).now)
    trained = History(history.registry)
    frame = pd.DataFrame({"version": ["1"], "evidence": ["0" * 32]})
    trained.store.write((trained.name, "model"), "DEU", frame)
    with pytest.raises(RegistryError, match="another registry"):
        plan_retention(ProductContext(trained.product, trained.store, other), now=datetime.now(UTC))


def test_a_damaged_snapshot_stops_the_plan(on_disk: History) -> None:
    for content in (1, 2, 3):
        on_disk.write("raw", "DEU", content)
    Path(on_disk.files[0].snapshot.uri).write_bytes(b"PAR1")
    with pytest.raises(StorageError, match="damaged"):
        late(on_disk)


# Any history

# Mostly the same rows made again from others, where it is easiest to forget something.
KINDS = ("validated", "features", "validated", "features", "validated", "features", "raw",
         "quarantine", "predictions", "leave behind", "train", "train recorded", "train pooled",
         "decide", "retention", "chain", "chain")  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from([COUNTRIES[0], COUNTRIES[0], COUNTRIES[0], COUNTRIES[1]]),
        st.integers(0, 2),
    ),
    min_size=10,
    max_size=40,
)


def step(history: History, kind: str, country: str, chance: int) -> None:
    if kind == "leave behind":
        history.leave_behind(("raw", "validated", "features")[chance], country, 7)
    elif kind == "train pooled":
        history.train_pooled()
    elif kind.startswith("train"):
        history.train(country, recorded=kind.endswith("recorded"))
    elif kind == "decide":
        history.decide(country, chance)
    elif kind == "chain":
        one_chain(history, chance, country)
    elif kind == "retention":
        if history.files:
            retire(history, history.files[-1 - chance % len(history.files)].snapshot.created_at)
    else:
        history.write(kind, country, chance)


def retire(history: History, since: datetime) -> None:
    """Plan and remove, and check everything that was promised of it."""
    needed, before = history.needed(since), stored(history)
    told = shown(history, since)
    made = planned(history, since)
    left_behind = {f.snapshot.version for f in history.files if not f.was_current}
    assert removable(made) & needed == set()
    assert removable(made) == before - needed - left_behind
    gone = carried_out(history, made)
    assert gone == removable(made)
    for each in history.files:
        each.removed |= each.snapshot.version in gone
        if not each.removed:
            snapshot = each.snapshot
            table = history.store.read_table(
                snapshot.asset, snapshot.partition, version=snapshot.version
            )
            assert content_hash(table) == each.content
    assert shown(history, since) == told
    assert planned(history, since).removable == ()


def shown(history: History, since: datetime) -> list[str]:
    """What is told of each partition at each moment of the window at which it changes."""
    return [
        _told(history, asset, country, at)
        for asset, country in sorted({each.place for each in history.files}, key=str)
        for moment in (since, *changes(history, asset, country))
        for at in (moment, moment + TICK)
        if at >= since
    ]


def changes(history: History, asset: str, country: str | None) -> list[datetime]:
    return [f.snapshot.created_at for f in history.files if f.place == (asset, country)]


def _told(history: History, asset: str, country: str | None, moment: datetime) -> str:
    try:
        return str(history.store.as_of((history.name, asset), country, moment))
    except VersionGoneError:  # by an earlier removal with a shorter window
        return "gone"


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, beginning=st.integers(0, 40), shift=st.sampled_from([-TICK, 0 * TICK, TICK]))
def test_whatever_happened_nothing_needed_is_removed_and_nothing_else_is_left(
    registry: Registry, steps: list[tuple[str, str, int]], beginning: int, shift: timedelta
) -> None:
    history = History(registry)
    for each in steps:
        step(history, *each)
    if history.files:
        chosen = history.files[beginning % len(history.files)].snapshot
        retire(history, chosen.created_at + shift)
