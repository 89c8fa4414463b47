"""A process that has never seen a model loads it, and what becomes of one that cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from mlflow.artifacts import download_artifacts
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mlops_assets.ml.estimators import FrameEncoder
from mlops_assets.registry import LoggedModel, ModelVersion, Registry
from mlops_assets.registry.isolated import check as checking
from mlops_assets.registry.isolated import process as fresh_processes
from mlops_assets.registry.isolated.check import IsolatedCheck, check_isolated, largest_difference
from mlops_assets.registry.models import DIGEST_TAG, _digest
from mlops_assets_tests.registry.conftest import ROWS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
Store = Callable[..., LoggedModel]
KIND = pd.Series(["base", "peak", None, "base"] * 30, dtype="object")
FRAME = pd.DataFrame(
    {
        "entity": "FRA",
        "event_time": pd.date_range("2024-01-01", periods=120, tz="UTC"),
        "price": np.random.default_rng(0).normal(size=120),
        "temperature": np.r_[np.nan, np.arange(119.0)],
        "kind": KIND,
        "holiday": pd.array([True, False, None] * 40, dtype="boolean"),
    }
)
FEATURES = ["price", "temperature", "kind", "holiday"]


@pytest.fixture(autouse=True, scope="module")
def _one_server() -> Iterator[None]:
    """The server of every test that does not harm it: each start imports scikit-learn anew.

    It is started where much is set that it must not see.
    """
    with pytest.MonkeyPatch.context() as around:
        around.setenv("PYTHONWARNINGS", "error")
        around.setenv("WAREHOUSE_PASSWORD", "secret")
        fresh_processes.start_server()
    yield
    fresh_processes.close()


def version_of(registry: Registry, logged: LoggedModel) -> ModelVersion:
    return registry.register("fresh", "FRA", logged, run_id="", kind="local", tags={})


def files(logged: LoggedModel) -> Path:
    return Path(download_artifacts(logged.uri))


def registered_as_it_is(version: ModelVersion, logged: LoggedModel) -> ModelVersion:
    """As if somebody who may write the registry had registered these files."""
    return replace(version, tags={**version.tags, DIGEST_TAG: _digest(files(logged))})


def server_id() -> int:
    server = fresh_processes._state.server
    assert server is not None
    return server.process.pid


def is_alive(process: int) -> bool:
    """Whether there is such a process, other than one that only waits to be reaped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(process: int, patience: float = 20.0) -> bool:
    deadline = time.monotonic() + patience
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(process)


def nothing_of(check: IsolatedCheck) -> bool:
    return not len(check.batch) and not len(check.single) and not check.bytes


@pytest.fixture(scope="module")
def classifier() -> Pipeline:
    core = HistGradientBoostingClassifier(max_iter=5).set_params(categorical_features=[2])
    return make_pipeline(FrameEncoder(), core).fit(
        FRAME[FEATURES], (FRAME["price"] > 0).astype("int64")
    )


def test_another_process_predicts_what_this_one_does_at_once_and_row_by_row(
    registry: Registry, stored: Store, classifier: Pipeline
) -> None:
    version = registered_with_text(registry, stored, classifier)
    check = check_isolated(version, FRAME, "classification", registry)
    assert check.problem == ""
    here = classifier.predict_proba(FRAME[FEATURES].head(100))[:, 1]
    np.testing.assert_array_equal(check.batch, here)
    np.testing.assert_array_equal(check.single, here[:20])
    assert check.rows_agree
    folder = Path(download_artifacts(version.uri))
    assert check.bytes == sum((folder / n).stat().st_size for n in ("model.skops", "MLmodel"))
    assert min(check.load_seconds, check.row_milliseconds, check.batch_milliseconds) > 0


def registered_with_text(registry: Registry, stored: Store, model: object) -> ModelVersion:
    """With a signature of these features: the fixture's has that of plain numbers."""
    import mlflow

    from mlops_assets.registry.models import log_model
    from mlops_assets_tests.registry.conftest import open_run

    typed = FRAME[FEATURES].astype({"kind": str, "holiday": "float64"})
    with open_run(registry):
        logged = log_model(model, typed, np.zeros(len(typed)), "model")
    assert mlflow.active_run() is None
    return version_of(registry, logged)


def test_one_server_serves_every_check_and_no_child_of_it_is_left(
    registry: Registry, ridge: LoggedModel
) -> None:
    version = version_of(registry, ridge)
    first = check_isolated(version, ROWS, "regression", registry)
    server = server_id()
    second = check_isolated(version, ROWS.head(3), "regression", registry)
    assert server_id() == server
    assert [len(first.single), len(second.single), len(second.batch)] == [20, 3, 3]
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    assert children == []


def test_the_server_has_imported_what_the_model_is_made_of_but_no_orchestrator(
    registry: Registry, ridge: LoggedModel
) -> None:
    check = check_isolated(version_of(registry, ridge), ROWS, "regression", registry)
    assert check.problem == ""
    maps = Path(f"/proc/{server_id()}/maps").read_text()
    assert "/sklearn/" in maps
    assert "/grpc/" not in maps  # Dagster brings it
    environment = Path(f"/proc/{server_id()}/environ").read_text()
    assert "WAREHOUSE" not in environment
    assert "PYTHONWARNINGS" not in environment


def test_a_changed_file_is_the_problem_and_nothing_is_predicted(
    registry: Registry, stored: Store
) -> None:
    logged = stored()
    version = version_of(registry, logged)
    with (files(logged) / "model.skops").open("ab") as file:
        file.write(b"\0")
    check = check_isolated(version, ROWS, "regression", registry)
    assert "not the one that was registered" in check.problem
    assert nothing_of(check)
    assert not check.rows_agree


def test_a_damaged_file_is_the_problem(registry: Registry, stored: Store) -> None:
    logged = stored()
    version = version_of(registry, logged)
    (files(logged) / "model.skops").write_bytes(b"PK\x03\x04 cut off")
    check = check_isolated(registered_as_it_is(version, logged), ROWS, "regression", registry)
    assert "damaged" in check.problem


def test_a_lost_file_is_the_problem(registry: Registry, stored: Store) -> None:
    logged = stored()
    version = version_of(registry, logged)
    (files(logged) / "MLmodel").unlink()
    assert "cannot be read" in check_isolated(version, ROWS, "regression", registry).problem


def test_a_type_that_is_not_trusted_is_the_problem_and_is_never_built(
    registry: Registry, stored: Store, tmp_path: Path
) -> None:
    import functools

    logged = stored()
    version = version_of(registry, logged)
    order = functools.partial(os.system, f"touch {tmp_path / 'ran'}")
    (files(logged) / "model.skops").write_bytes(skops.io.dumps(FunctionTransformer(order)))
    check = check_isolated(registered_as_it_is(version, logged), ROWS, "regression", registry)
    assert "not trusted: posix.system" in check.problem
    assert not (tmp_path / "ran").exists()


def test_a_missing_feature_is_the_problem(registry: Registry, ridge: LoggedModel) -> None:
    version = version_of(registry, ridge)
    check = check_isolated(version, ROWS[["price"]], "regression", registry)
    assert "needs the features temperature" in check.problem


def test_no_rows_are_no_problem(registry: Registry, ridge: LoggedModel) -> None:
    check = check_isolated(version_of(registry, ridge), ROWS.head(0), "regression", registry)
    assert check.problem == ""
    assert check.rows_agree
    assert not len(check.batch)


@pytest.fixture
def obeying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server whose children run the model's name as a program instead of a model.

    It needs none of a model's libraries, whose import is most of what a start costs. The server of
    the other tests waits meanwhile.
    """
    program = (
        "import sys; sys.path.append(sys.argv[1]); "
        "import os, signal, subprocess, time; "
        "import mlops_assets.registry.isolated.server as server\n"
        "server._BASICS = ()\n"
        "server._predictions = lambda request, rows: exec(request.name) or server.CheckReply()\n"
        "server.main()"
    )
    monkeypatch.setattr(fresh_processes, "_PROGRAM", program)
    monkeypatch.setattr(checking, "_libraries", tuple)
    monkeypatch.setattr(fresh_processes._state, "server", None)
    yield
    fresh_processes.close()


CRASHES = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "its process was ended by SIGSEGV",
    "os._exit(3)": "its process ended early",
    "raise ValueError('odd <model>')": "ValueError: odd <model>",
    "sys.exit(1)": "SystemExit: 1",
    "raise MemoryError": "MemoryError: ",
    "os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)": "the process that checks models ended",
    "print('x' * 100000); raise ValueError(repr(sys.stdin.read()))": "ValueError: ''",
}


def test_a_crash_is_a_result_with_its_reason_and_the_next_check_works(
    registry: Registry, ridge: LoggedModel, obeying: None
) -> None:
    version = version_of(registry, ridge)
    for statement, reason in CRASHES.items():
        bad = replace(version, name=statement)
        check = check_isolated(bad, ROWS, "regression", registry)
        assert check.problem.startswith(reason), statement
        assert nothing_of(check)
        assert not check.rows_agree


def test_a_model_that_hangs_is_ended_with_all_it_started(
    registry: Registry, ridge: LoggedModel, obeying: None, tmp_path: Path
) -> None:
    note = tmp_path / "processes"
    statement = (
        "other = subprocess.Popen(['sleep', '600']); "
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{other.pid}}'); time.sleep(600)"
    )
    bad = replace(version_of(registry, ridge), name=statement)
    check = check_isolated(bad, ROWS, "regression", registry, limit_seconds=2.0)
    assert check.problem == "it took more than 2 s"
    assert all(gone(int(process)) for process in note.read_text().split())
    assert is_alive(server_id())


def test_a_server_that_was_killed_is_replaced(
    registry: Registry, ridge: LoggedModel, obeying: None
) -> None:
    version = replace(version_of(registry, ridge), name="pass")
    assert check_isolated(version, ROWS, "regression", registry).problem == ""
    killed = server_id()
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    assert check_isolated(version, ROWS, "regression", registry).problem == ""
    assert server_id() != killed


@pytest.mark.nightly  # starts another program that imports everything
def test_a_server_that_cannot_start_is_a_problem_with_its_last_words(
    registry: Registry, ridge: LoggedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_processes.close()
    monkeypatch.setattr(fresh_processes, "_PROGRAM", "raise ImportError('no scikit-learn here')")
    check = check_isolated(version_of(registry, ridge), ROWS, "regression", registry)
    assert "no scikit-learn here" in check.problem
    fresh_processes.close()


def a_check(tracking_uri: str, artifact_root: str, version: ModelVersion) -> tuple[str, int]:
    """In a worker: the problem, and the server it had."""
    check = check_isolated(version, ROWS, "regression", Registry(tracking_uri, artifact_root))
    return check.problem, server_id()


@pytest.mark.parametrize(
    ("method", "killed"),
    [
        pytest.param("spawn", False, marks=pytest.mark.nightly),  # spawned it imports anew
        # One more start; for the server the end of a process is the same however it came.
        pytest.param("fork", False, marks=pytest.mark.nightly),
        ("fork", True),
    ],
)
def test_a_worker_process_has_a_server_of_its_own_that_ends_with_it(
    registry: Registry, ridge: LoggedModel, method: str, killed: bool
) -> None:
    version = version_of(registry, ridge)
    check_isolated(version, ROWS, "regression", registry)
    own = server_id()
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        asked = (registry.tracking_uri, registry.artifact_root, version)
        answers = [pool.submit(a_check, *asked).result() for _ in range(2)]
        if killed:
            with pytest.raises(BrokenProcessPool):
                pool.submit(signal.raise_signal, signal.SIGKILL).result()
    assert [problem for problem, _ in answers] == ["", ""]
    assert len({server for _, server in answers}) == 1
    assert answers[0][1] != own
    assert gone(answers[0][1])
    assert is_alive(own)
    assert check_isolated(version, ROWS, "regression", registry).problem == ""


# Two more programs that import everything; a worker process that is killed shows the same.
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("ending", "status"),
    [("raise ValueError", 1), ("os.kill(os.getpid(), signal.SIGKILL)", -9)],
)
def test_nothing_is_left_however_the_parent_ends(
    registry: Registry, ridge: LoggedModel, ending: str, status: int, tmp_path: Path
) -> None:
    version = version_of(registry, ridge)
    script = tmp_path / "script.py"  # imported again by nobody: it would print twice
    script.write_text(
        "import os, signal\n"
        "import pandas as pd\n"
        "from mlops_assets.registry import ModelVersion, Registry\n"
        "from mlops_assets.registry.isolated import process\n"
        "from mlops_assets.registry.isolated.check import check_isolated\n"
        f"registry = Registry({registry.tracking_uri!r}, {registry.artifact_root!r})\n"
        f"version = {version!r}\n"
        f"rows = pd.DataFrame({ROWS.head(5).to_dict('list')!r})\n"
        "check = check_isolated(version, rows, 'regression', registry)\n"
        "print(process._state.server.process.pid, check.problem or 'fine', flush=True)\n"
        f"{ending}\n"
    )
    (tmp_path / "types.py").write_text("raise SystemExit('taken for the one of Python')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-W", "always::ResourceWarning", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == status, done.stderr
    assert "isolated" not in done.stderr  # neither a warning of ours nor a traceback
    server, outcome = done.stdout.split(maxsplit=1)
    assert outcome.strip() == "fine"
    assert gone(int(server))


@pytest.mark.nightly  # starts another program that imports everything
def test_a_hanging_model_ends_with_a_parent_that_is_killed(
    registry: Registry, ridge: LoggedModel, tmp_path: Path
) -> None:
    note = tmp_path / "process"
    program = (
        "import sys; sys.path.append(sys.argv[1]); import os, time; "
        "import mlops_assets.registry.isolated.server as server\n"
        "def instead(request, rows):\n"
        f"    open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)\n"
        "server._predictions = instead\n"
        "server.main()"
    )
    script = (
        "import pandas as pd\n"
        "from mlops_assets.registry import ModelVersion, Registry\n"
        "from mlops_assets.registry.isolated import process\n"
        "from mlops_assets.registry.isolated.check import check_isolated\n"
        f"process._PROGRAM = {program!r}\n"
        f"registry = Registry({registry.tracking_uri!r}, {registry.artifact_root!r})\n"
        f"check_isolated({version_of(registry, ridge)!r}, pd.DataFrame({{'a': [1.0]}}), "
        "'regression', registry)\n"
    )
    own = {**os.environ, "TMPDIR": str(tmp_path)}  # who is killed cleans nothing up
    parent = subprocess.Popen([sys.executable, "-P", "-c", script], env=own)
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(note.read_text())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    assert gone(child)


def test_rows_that_differ_alone_are_told_from_rounding() -> None:
    batch = np.array([1000.0, 2.0, np.nan])
    assert largest_difference(batch, batch + 1e-10) <= 1e-9
    assert largest_difference(batch, batch * [1, 1.001, 1]) == pytest.approx(0.001, rel=0.01)
    assert largest_difference(batch, np.array([1000.0, 2.0, 0.0])) == np.inf
    assert largest_difference(batch, batch[:2]) == np.inf


@given(st.lists(st.floats(-1e300, 1e300), max_size=20))
def test_equal_predictions_never_differ(values: list[float]) -> None:
    assert largest_difference(np.array(values), np.array(values)) == 0.0


def test_a_constant_model_can_be_checked(registry: Registry, stored: Store) -> None:
    logged = stored(DummyRegressor().fit(ROWS, ROWS["price"]))
    check = check_isolated(version_of(registry, logged), ROWS, "regression", registry)
    np.testing.assert_array_equal(check.batch, np.full(len(ROWS), 9.5))


def test_a_linear_model_agrees_up_to_rounding(registry: Registry, stored: Store) -> None:
    rng = np.random.default_rng(1)
    model = Ridge().fit(ROWS, rng.normal(size=len(ROWS)))
    check = check_isolated(version_of(registry, stored(model)), ROWS, "regression", registry)
    assert check.rows_agree
    np.testing.assert_allclose(check.batch, model.predict(ROWS), rtol=1e-12)
