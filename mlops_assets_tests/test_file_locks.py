"""Locks between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.errors import BusyError
from mlops_assets.file_locks import Holder, holder_of, holding, holding_all, is_held, lock_file
from mlops_assets.settings import PROJECT_ROOT

_HOLD = (
    "import sys, time; from pathlib import Path; from mlops_assets.file_locks import holding\n"
    "with holding(Path(sys.argv[1]), sys.argv[2], None, shared=len(sys.argv) > 3):\n"
    "    print('held', flush=True); time.sleep(600)\n"
)
_SECONDS = 60.0


@contextmanager
def another(file: Path, *shared: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is killed."""
    command = [sys.executable, "-c", _HOLD, str(file), "materialize demand", *shared]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refusal(file: Path, why: str = "") -> BusyError:
    """What is told to who wants the lock alone, and does not wait."""
    with pytest.raises(BusyError) as refused, holding(file, "second", None, why=why):
        raise AssertionError("both held it")
    return refused.value


def test_who_does_not_wait_is_told_who_holds_the_lock_and_what_was_not_done(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.lock"
    with another(file) as process:
        refused = refusal(file, "Nothing was run.")
    text = str(refused)
    assert f"process {process.pid} on {os.uname().nodename} (materialize demand), since 20" in text
    assert "Nothing was run." in text
    assert refused.culprits["holder"]["pid"] == process.pid


def test_a_killed_holder_lets_go_and_who_waits_goes_on(tmp_path: Path) -> None:
    file, told = tmp_path / "a.lock", list[Holder | None]()
    with another(file) as process:

        def kill(holder: Holder | None) -> None:
            told.append(holder)
            process.send_signal(signal.SIGKILL)

        with holding(file, "second", kill):
            assert holder_of(file) is not None
            assert holder_of(file).pid == os.getpid()  # type: ignore[union-attr]
    assert [each.pid for each in told if each] == [process.pid]


def test_a_lock_held_in_this_process_keeps_its_other_threads_out_too(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    with holding(file, "first", None):
        refusal(file)
    with holding(file, "third", None):
        pass


def test_shared_holders_are_together_and_keep_out_who_wants_it_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    with another(file, "shared"), holding(file, "second", None, shared=True):
        refusal(file)


@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_that_is_let_go_is_free_though_a_fork_of_it_lives(
    tmp_path: Path, fails: bool
) -> None:
    file = tmp_path / "a.lock"
    children = []
    with suppress(ZeroDivisionError), holding(file, "first", None):
        child = os.fork()
        if child == 0:  # pragma: no cover
            time.sleep(_SECONDS)
            os._exit(0)
        children.append(child)
        if fails:
            raise ZeroDivisionError
    try:
        with holding(file, "second", None):
            pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_look_at_a_lock_says_whether_it_is_held_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    assert not is_held(file)
    assert not file.exists()
    with another(file) as process:
        assert is_held(file)
        assert holder_of(file).pid == process.pid  # type: ignore[union-attr]
    assert not is_held(file)


@given(st.lists(st.sampled_from(["DEU", "a/b", "..", "Côte d'Ivoire"]), max_size=6))
def test_several_locks_are_held_once_each_whatever_their_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("locks")
    with holding_all(folder, names, "first", None):
        for name in set(names):
            refusal(lock_file(folder, name))
    assert {file.parent for file in folder.rglob("*")} <= {folder}
