"""Two commands at once on one home, as two people or a person and a cron job start them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient

from mlops_assets.components.loading import load_product
from mlops_assets.file_locks import holding, lock_file
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.platform import sample_of, settle, small_product
from mlops_assets_tests.runtime.serving import environment

_SECONDS = 240.0
LISTED = ["DEU", "FRA", "NOR"]


def begin(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlops_assets.cli", "materialize", "parcels", *arguments]
    more = {"MLOPS_ASSETS_DEFS": str(home.parent / "defs"), "MLOPS_ASSETS_CONCURRENCY": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        env=environment(home, **more),
        cwd=PROJECT_ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def a_home(folder: Path, mlflow_template: Path) -> Path:
    product = small_product("parcels", folder / "defs")
    home = folder / "home"
    for part in ("mlflow", "landing/parcels"):
        (home / part).mkdir(parents=True)
    shutil.copyfile(mlflow_template, home / "mlflow" / "mlflow.db")
    file = home / "landing" / "parcels" / "delivery.parquet"
    sample_of(load_product(product)).to_parquet(file, index=False)
    settle(file)
    return home


def test_two_commands_for_the_same_countries_train_and_decide_once(
    tmp_path: Path, mlflow_template: Path
) -> None:
    home = a_home(tmp_path, mlflow_template)
    both = [begin(home, "--all", "--json"), begin(home, "--country", "FRA", "--json")]
    said = [each.communicate(timeout=_SECONDS) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    waited = [errors for _, errors in said if "Waits for process" in errors]
    assert len(waited) == 1
    assert any(f"Waits for process {each.pid} on " in waited[0] for each in both)
    made = [json.loads(output)[0]["runs"] for output, _ in said]
    assert sum(made) <= 2 + 2 * len(LISTED) + 2
    log = SnapshotStore(str(home / "store")).read_log(("parcels", "decisions"))
    assert sorted(log["country"]) == LISTED
    assert log["decision_id"].is_unique
    client = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    numbers = {each.name: each.version for each in client.search_model_versions()}
    assert set(map(int, numbers.values())) == {1}


def test_a_command_that_does_not_wait_says_who_works_and_runs_nothing(tmp_path: Path) -> None:
    small_product("parcels", tmp_path / "defs")
    home = tmp_path / "home"
    locks = home / "locks" / "commands"
    with holding(lock_file(locks / "parcels", "FRA"), "materialize parcels", None):
        refused = begin(home, "--country", "FRA", "--no-wait")
        _, errors = refused.communicate(timeout=_SECONDS)
        assert refused.returncode == 1
    assert "(materialize parcels), since 20" in errors
    assert "Nothing was run." in errors
    assert not (home / "store").exists()
