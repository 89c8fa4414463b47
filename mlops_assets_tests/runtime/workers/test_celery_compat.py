"""Everything of Celery and kombu that is not documented is as it was when we began to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, states
from celery.backends.filesystem import FilesystemBackend
from celery.backends.redis import RedisBackend
from dagster_celery import launcher as dagsters
from dagster_celery import tags
from dagster_celery.tasks import create_execute_job_task
from kombu.connection import Connection
from kombu.transport import redis, resolve_transport

from mlops_assets.runtime.workers import celery_compat, folder_queue, lost_runs
from mlops_assets.runtime.workers import launcher as ours
from mlops_assets.runtime.workers.broker import with_queues
from mlops_assets.runtime.workers.celery_compat import PRIVATE
from mlops_assets_tests.relied_on import names_in, parameters, typed

_FILE = re.compile(r"(\d+)_[0-9a-f-]{36}\.small\.msg")


@pytest.mark.parametrize("name", PRIVATE)
def test_each_name_is_where_it_was(name: str) -> None:
    private = PRIVATE[name]
    module = import_module(private.module)
    assert hasattr(module, name), f"{private.module} has no {name}: {private.relied_on}"
    assert getattr(celery_compat, name) is getattr(module, name)


def test_the_type_checker_sees_the_same_names() -> None:
    assert typed(celery_compat) == {name: each.module for name, each in PRIVATE.items()}


def test_a_name_that_is_not_listed_is_not_there() -> None:
    with pytest.raises(AttributeError, match="celery_compat' has no attribute 'Beat'"):
        _ = celery_compat.Beat  # pyright: ignore[reportAttributeAccessIssue]


def test_tags_are_called_as_the_launcher_calls_them() -> None:
    assert celery_compat.TASK_TAG == tags.DAGSTER_CELERY_TASK_ID_TAG
    assert celery_compat.QUEUE_TAG == tags.DAGSTER_CELERY_QUEUE_TAG
    hands_over = names_in(dagsters.CeleryRunLauncher._launch_celery_task_run)
    assert {"DAGSTER_CELERY_TASK_ID_TAG", "DAGSTER_CELERY_QUEUE_TAG", "add_run_tags"} <= hands_over


def test_the_launcher_has_what_ours_uses_of_it() -> None:
    theirs = celery_compat.CeleryRunLauncher
    assert {"celery", "broker"} <= names_in(theirs.__init__)
    assert "_instance" in names_in(theirs.launch_run)
    for name in ("launch_run", "check_run_worker_health"):
        named = getattr(theirs, name), getattr(ours.WarmRunLauncher, name)
        assert parameters(named[0]) == parameters(named[1])


# Tasks in a folder


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    made = celery_compat.make_app(
        {
            "broker": f"{folder_queue.TRANSPORT_NAME}://",
            "backend": f"file://{tmp_path / 'results'}",
            "config_source": {"broker_transport_options": _options(tmp_path)},
        }
    )
    yield with_queues(made)
    made.close()


def _options(folder: Path) -> dict[str, str]:
    return {
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    }


def test_the_launchers_task_lies_in_the_folder_of_its_queue_as_it_is_read(
    app: Celery, tmp_path: Path
) -> None:
    task = create_execute_job_task(app)
    assert task.name == celery_compat.TASK_EXECUTE_JOB_NAME
    assert parameters(task.run) == ["execute_job_args_packed"]
    signature: Any = task.si(execute_job_args_packed={"run": "1"})
    sent = signature.apply_async(queue="small", routing_key="small.execute_job")
    (file,) = (tmp_path / "queue").iterdir()
    assert _FILE.fullmatch(file.name)
    message = json.loads(file.read_text())
    assert message["headers"]["id"] == sent.task_id
    assert message["headers"]["task"] == celery_compat.TASK_EXECUTE_JOB_NAME


def test_kombus_own_transport_names_and_reads_files_as_ours(tmp_path: Path) -> None:
    for name in ("queue", "control"):
        (tmp_path / name).mkdir()
    with Connection("filesystem://", transport_options=_options(tmp_path)) as connection:
        theirs: Any = connection.channel()
        theirs._put("small", {"number": 1})
        (file,) = (tmp_path / "queue").iterdir()
        named = _FILE.fullmatch(file.name)
        mine = _FILE.fullmatch(celery_compat.task_file_name("small"))
        assert named
        assert mine
        assert 0 <= int(mine[1]) - int(named[1]) < 60_000, "milliseconds of the same clock"
        next_one = tmp_path / "queue" / f"{int(named[1]) + 1}_b.small.msg"
        next_one.write_text(celery_compat.dumps({"number": 2}))
        assert [theirs._get("small")["number"] for _ in range(2)] == [1, 2]
        next_one.write_text('{"cut')
        with pytest.raises(json.JSONDecodeError):
            theirs._get("small")


def test_a_url_finds_our_transport() -> None:
    found: Any = resolve_transport(folder_queue.TRANSPORT_NAME)
    assert found is folder_queue.Transport
    assert found.Channel is folder_queue.Channel
    assert issubclass(found, celery_compat.Transport)


# What became of a task


def test_the_state_of_a_task_is_in_a_file_of_its_name(app: Celery, tmp_path: Path) -> None:
    app.backend.store_result("task-1", None, states.STARTED)
    (file,) = (tmp_path / "results").glob(f"{celery_compat.TASK_FILES}*")
    assert file.name == f"{celery_compat.TASK_FILES}task-1"
    assert celery_compat.state_in(file) == states.STARTED
    with pytest.raises(FileNotFoundError):
        celery_compat.state_in(file.with_name(f"{celery_compat.TASK_FILES}task-2"))


def test_states_are_called_as_celery_calls_them() -> None:
    assert set(lost_runs._OPEN) == {states.STARTED, states.FAILURE, states.REVOKED}
    assert set(ours._ENDED) == {states.SUCCESS, states.FAILURE, states.REVOKED}
    assert states.PENDING == "PENDING"


def test_a_folder_keeps_what_workers_say_of_themselves(app: Celery) -> None:
    store = celery_compat.store_of(app)
    assert isinstance(store, FilesystemBackend)
    assert store.get(b"worker-a") is None
    store.set(b"worker-a", "1.5")
    assert store.get(b"worker-a") == b"1.5"


# Redis


def test_redis_keeps_what_workers_say_of_themselves() -> None:
    assert parameters(RedisBackend.get) == ["self", "key"]
    assert parameters(RedisBackend.set)[:3] == ["self", "key", "value"]
    assert "client" in dir(RedisBackend)


def test_tasks_wait_in_lists_whose_keys_begin_with_their_queue() -> None:
    channel: Any = redis.Channel.__new__(redis.Channel)
    assert all(channel._q_for_pri("small", step).startswith("small") for step in (0, 3, 6, 9))
    assert {"_q_for_pri", "lpush", "dumps"} <= names_in(redis.Channel._put)
