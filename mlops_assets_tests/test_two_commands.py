"""Two commands at once on one home, as two people or a person and a cron job start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from mlops_assets.components.loading import load_product
from mlops_assets.file_locks import holder_of, holding, lock_file
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.called import Call, begin
from mlops_assets_tests.platform import edit, sample_of, settle, small_product
from mlops_assets_tests.runtime.serving import environment

_SECONDS = 240.0
WHOLE, ONE = ("--all",), ("--country", "FRA")
DECIDED, SERVING = ("model", "evidence", "champion"), ("predictions", "performance", "drift")
_ALL_OF_IT = ("raw", "validated", "features", *DECIDED, *SERVING)
ONCE = {("pooled_model", None), *((asset, c) for asset in _ALL_OF_IT for c in ("FRA", "NOR"))}


def materialize(home: Path, *arguments: str) -> Call:
    """`materialize parcels` beside this process."""
    more = {"MLOPS_ASSETS_DEFS": str(home.parent / "defs"), "MLOPS_ASSETS_CONCURRENCY": "1"}
    return begin(["materialize", "parcels", *arguments], environment(home, **more), home.parent)


def made_by(command: Call) -> dict[str, Any]:
    """What it made, once it has ended well."""
    code, output, errors = command.ended(_SECONDS)
    assert code == 0, errors
    (made,) = json.loads(output)
    return made


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process is about to do."""
    end = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def a_home(folder: Path, mlflow_template: Path) -> Path:
    product = small_product("parcels", folder / "defs")
    edit(product / "defs.yaml", ("[DEU, FRA, NOR]", "[FRA, NOR]"))
    home = folder / "home"
    for part in ("mlflow", "landing/parcels"):
        (home / part).mkdir(parents=True)
    shutil.copyfile(mlflow_template, home / "mlflow" / "mlflow.db")
    file = home / "landing" / "parcels" / "delivery.parquet"
    sample_of(load_product(product)).to_parquet(file, index=False)
    settle(file)
    return home


def one_waits(home: Path, *both: tuple[str, ...]) -> list[dict[str, Any]]:
    """What two commands made, of which the second waits for the first.

    The first is stopped from when it has the lock until the second waits for it, so that luck does
    not order them.
    """
    lock = lock_file(home / "locks" / "commands", "parcels")
    first = materialize(home, *both[0], "--json")
    until(lambda: getattr(holder_of(lock), "pid", None) == first.pid)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = materialize(home, *both[1], "--json")
        until(lambda: f"Waits for process {first.pid} on " in second.errors)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert "Waits for" not in first.errors
    return [made_by(first), made_by(second)]


def versions(home: Path) -> Counter[tuple[str, str | None]]:
    """How often each asset of each country was stored; the same again is not stored."""
    store = SnapshotStore(str(home / "store"))
    return Counter({each: len(store.versions(("parcels", each[0]), each[1])) for each in ONCE})


def registered(home: Path) -> Counter[str]:
    address = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(address, address)  # else the registry is what this process used last
    return Counter(each.name for each in client.search_model_versions())


def decisions(home: Path) -> pd.DataFrame:
    log = SnapshotStore(str(home / "store")).read_log(("parcels", "decisions"))
    assert log["decision_id"].is_unique
    return log


def test_two_commands_for_the_same_countries_train_and_decide_once(
    tmp_path: Path, mlflow_template: Path
) -> None:
    home = a_home(tmp_path, mlflow_template)
    made = one_waits(home, WHOLE, ONE)
    # Ingestion, features of both, the pooled model, models of both; and a look for new files.
    assert [each["runs"] for each in made] == [6, 1]
    assert made[1]["unchanged"] == ["FRA"]
    assert versions(home) == Counter(ONCE)
    assert sorted(decisions(home)["country"]) == ["FRA", "NOR"]
    assert registered(home) == {"parcels.NOR": 1, "parcels.FRA": 1, "parcels.pooled-gbm": 1}


def test_a_command_for_all_that_waited_for_one_country_makes_only_what_follows_from_the_others(
    tmp_path: Path, mlflow_template: Path
) -> None:
    home = a_home(tmp_path, mlflow_template)
    made = one_waits(home, ONE, WHOLE)
    # Ingestion of all, FRA's features, a pooled model of FRA alone, FRA's model; then a look for
    # new files, NOR's features, the pooled model of both, and both are judged with that.
    assert [each["runs"] for each in made] == [4, 5]
    log = decisions(home)
    assert sorted(log["country"]) == ["FRA", "FRA", "NOR"]
    promoted = int(((log["country"] == "FRA") & (log["verdict"] == "promoted")).sum())
    again = {("pooled_model", None), *((asset, "FRA") for asset in DECIDED)}
    if promoted == 2:
        again |= {(asset, "FRA") for asset in SERVING}
    assert versions(home) == Counter(ONCE) + Counter(again)
    assert registered(home)["parcels.pooled-gbm"] == 2
    assert registered(home)["parcels.NOR"] == 1


def test_a_command_that_does_not_wait_says_who_works_and_runs_nothing(tmp_path: Path) -> None:
    small_product("parcels", tmp_path / "defs")
    home = tmp_path / "home"
    locks = home / "locks" / "commands"
    with holding(lock_file(locks / "parcels", "FRA"), "materialize parcels", None):
        code, _, told = materialize(home, "--country", "FRA", "--no-wait").ended(_SECONDS)
    assert code == 1
    assert "(materialize parcels), since 20" in told
    assert "Nothing was run." in told
    assert not (home / "store").exists()
