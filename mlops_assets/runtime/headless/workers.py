"""Native Dagster runs without a daemon, in processes that stay warm.

Every worker process loads the code location once and then executes one run after another. A run
that fails, or a worker that dies, is that country's failure and nobody else's.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import queue
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.registry import Registry
from mlops_assets.runtime.workers import run_executor as warm
from mlops_assets.runtime.workers.sizes import PARTITION_TAG
from mlops_assets.settings import load_settings
from mlops_assets.stages.common.runs import ORDER, RANGE_END, RANGE_START
from mlops_assets.stages.datasets.ingestion import SET_ASIDE

if TYPE_CHECKING:
    import dagster as dg

_REPOSITORY_TAG = ".dagster/repository"
_CHECK_EVENT = "ASSET_CHECK_EVALUATION"
_CANDIDATES = ("model", "pooled_model")
"""Assets whose gates decide on a candidate: one that fails has decided, and nothing is broken."""
_REPOSITORY = "__repository__@mlops_assets"
_METHOD = "fork" if sys.platform == "linux" else "spawn"
_END_SECONDS = 10.0
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class RunOrder:
    """One Dagster run to execute.

    Attributes:
        product: name of the product.
        job: `all`, `train`, `predict`, `shared` or `pooled`.
        assets: names of the product's assets to make, a part of the job's.
        country: partition; None for an asset without countries.
        countries: first and last of a range of partitions, for one run over all of them.
        tags: of the run, beside the platform's own.
        order_id: tag by which the run is found if its worker dies.
    """

    product: str
    job: str
    assets: tuple[str, ...]
    country: str | None = None
    countries: tuple[str, str] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    order_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.product} {self.country or ('all countries' if self.countries else self.job)}"


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        order: what was asked for.
        run_id: of the Dagster run; "" when the worker died before it began.
        problems: one sentence for each failed step or gate; empty on success.
        warnings: checks that did not pass and block nothing.
        seconds: wall time.
        details: metadata of the failure that ended the run, as plain values; empty on success.
        refused: gates of a candidate that stopped it, where nothing else stopped the run.
        set_aside: delivered files of which nothing was taken, as long as they are there.
    """

    order: RunOrder
    run_id: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()

    @property
    def is_decided(self) -> bool:
        """Whether gates refused the candidate and nothing else happened: they did their job."""
        return bool(self.refused)

    @property
    def success(self) -> bool:
        """Whether every step ended well."""
        return not self.problems


class WarmWorkers:
    """Processes that hold the code location; use as a context manager.

    On Linux they are forks of this process, which loads it once for all of them. They are forked
    before this process has threads of its own; one that has to be replaced starts anew. Several
    threads may have orders executed: they take turns, order by order.

    Args:
        dagster_home: folder of the Dagster instance.
        workers: number of processes, at least 1.
    """

    def __init__(self, dagster_home: Path, workers: int) -> None:
        self._home = dagster_home
        self._count = workers
        self._workers: list[_Worker] = []
        self._asked: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def __enter__(self) -> WarmWorkers:
        load_to_fork(self._home)
        for _ in range(self._count):
            self._workers.append(_Worker.begin(self._home, _METHOD, self._workers))
        for place in range(self._count):
            threading.Thread(target=self._serve, args=(place,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.end()
        gc.unfreeze()

    def run(self, orders: Sequence[RunOrder]) -> Iterator[RunOutcome]:
        """Execute the orders, as many at once as there are workers; outcomes as they come."""
        if not orders:
            return
        asked = _Asked(deque(orders))
        with self._changed:
            self._asked.append(asked)
            self._changed.notify_all()
        for _ in orders:
            yield asked.done.get()

    def _serve(self, place: int) -> None:
        """Have one process execute one order after another."""
        while (found := self._next()) is not None:
            order, done = found
            try:
                outcome = self._execute(place, order)
            except (
                Exception
            ) as error:  # such as no memory for another worker: nobody waits for ever
                problem = f"no worker could be started: {type(error).__name__}: {error}"
                outcome = RunOutcome(order, "", (problem,), (), 0.0)
            done.put(outcome)

    def _next(self) -> tuple[RunOrder, queue.SimpleQueue[RunOutcome]] | None:
        """Of whose turn it is; waits for one, and gives None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._ended)
            if self._ended:
                return None
            asked = self._asked.popleft()
            order = asked.waiting.popleft()
            if asked.waiting:
                self._asked.append(asked)
            return order, asked.done

    def _execute(self, place: int, order: RunOrder, *, again: bool = False) -> RunOutcome:
        """What became of an order; one whose worker died before it began is tried once more."""
        started, run_id, died = time.monotonic(), "", False
        try:
            answer = self._workers[place].ask(order)
            if isinstance(answer, RunOutcome):
                return answer
            problem = f"the run could not be executed: {answer}"
        except _Died:
            died = True
            self._workers[place].end()
            if not self._ended:
                self._workers[place] = _Worker.begin(self._home, "spawn")
            problem = (
                "the worker process died (killed or out of memory). Nothing half-written is in "
                "use; run the country again"
            )
        try:
            run_id = _mark_failed(self._home, order, problem)
        except Exception as error:  # whoever waits for this outcome gets it all the same
            problem += f"; nor could its run be marked as failed: {type(error).__name__}: {error}"
        if died and not run_id and not again and not self._ended:
            return self._execute(place, order, again=True)
        return RunOutcome(order, run_id, (problem,), (), time.monotonic() - started)


@dataclass
class _Asked:
    """Orders of one call of `run`: those that wait, and what came of the others."""

    waiting: deque[RunOrder]
    done: queue.SimpleQueue[RunOutcome] = field(default_factory=queue.SimpleQueue)


class _Died(Exception):
    """A worker process is gone."""


@dataclass
class _Worker:
    """A process that executes what is sent to it, one order after another."""

    process: BaseProcess
    pipe: Connection

    @classmethod
    def begin(cls, home: Path, method: str, others: Sequence[_Worker] = ()) -> _Worker:
        """Start it; it loads what it has not got from this process.

        Args:
            home: folder of the Dagster instance.
            method: to start it with, fork or spawn.
            others: forked before, whose pipes it gets a copy of.
        """
        context: Any = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        # A copy left open would keep the others from seeing the end of this process.
        copies = [*(each.pipe for each in others), ours] if method == "fork" else []
        process = context.Process(target=_work, args=(str(home), theirs, copies), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        return cls(process, ours)

    def ask(self, order: RunOrder) -> RunOutcome | str:
        """What became of an order, or why it could not be executed.

        Raises:
            _Died: the process is gone.
        """
        try:
            self.pipe.send(order)
            return self.pipe.recv()
        except (EOFError, OSError, TypeError) as error:  # TypeError: ended while it was waited for
            raise _Died from error

    def end(self) -> None:
        """Let it end, and wait for it."""
        self.pipe.close()
        self.process.join(_END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def load_to_fork(dagster_home: Path) -> None:
    """Load what workers share that are forked of this process; nothing where none are."""
    if _METHOD == "fork":
        _load(str(dagster_home))
        # Whatever ends this process: libraries in C count what is still frozen then as leaked.
        atexit.register(gc.unfreeze)


def _load(dagster_home: str) -> None:
    """Have everything a run needs in this process."""
    warm.one_thread()
    os.environ["DAGSTER_HOME"] = dagster_home
    warm.repository()
    gc.collect()
    gc.freeze()  # forks share what is here as long as nobody looks through it for garbage


def _work(dagster_home: str, pipe: Connection, copies: Sequence[Connection]) -> None:
    """Execute orders until the other end is closed."""
    # Ctrl-C reaches everybody at the terminal: the parent says what there is to say.
    with suppress(KeyboardInterrupt):
        for each in copies:
            each.close()
        _load(dagster_home)
        while _answered(pipe):
            pass


def _answered(pipe: Connection) -> bool:
    """Execute one order; whether somebody waited for the outcome."""
    try:
        order = pipe.recv()
    except (EOFError, OSError):
        return False
    try:
        answer: RunOutcome | str = _execute(order)
    except Exception as error:  # it is told where the outcome is waited for
        answer = f"{type(error).__name__}: {error}"
    try:
        pipe.send(answer)
    except OSError:
        return False
    return True


def _execute(order: RunOrder) -> RunOutcome:
    started = time.monotonic()
    tags = {_REPOSITORY_TAG: _REPOSITORY, "product": order.product, ORDER: order.order_id}
    tags |= dict(order.tags)
    if order.country is not None:
        tags |= {PARTITION_TAG: order.country}
    if order.countries:
        tags |= {RANGE_START: order.countries[0], RANGE_END: order.countries[1]}
    assets = [(order.product, asset) for asset in order.assets]
    run = warm.create_run(f"{order.product}_{order.job}", assets, tags, _QUIET)
    events = list(warm.execute_run(run))
    seconds = time.monotonic() - started
    problems = tuple(_problems(events))
    if not problems and any(event.is_failure for event in events):
        problems = ("the run failed; its page in the UI has the cause",)
    warnings, details = tuple(_warnings(events)), _details(events)
    refused = tuple(_refused(events))
    aside = tuple(_set_aside(events))
    return RunOutcome(order, run.run_id, problems, warnings, seconds, details, refused, aside)


def _problems(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """What stopped the run: the causes of failed steps, and gates these do not speak of."""
    causes = _causes(events)
    for check in _failed_gates(events):
        if not any(check.description and check.description in cause for cause in causes):
            yield f"gate {check.asset_key.path[-1]}.{check.check_name}: {check.description}"
    yield from causes


def _refused(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """Gates that refused a candidate; none where anything else stopped the run as well."""
    gates = _failed_gates(events)
    if not _causes(events) and all(each.asset_key.path[-1] in _CANDIDATES for each in gates):
        yield from (f"{each.asset_key.path[-1]}.{each.check_name}" for each in gates)


def _causes(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """Why steps failed, but for those that a gate stopped."""
    from mlops_assets.stages.common.failures import failure_text

    failures = [event for event in events if event.is_step_failure]
    causes = [failure_text(event, plain=True) or "failed" for event in failures]
    return [cause for cause in causes if "asset check failed" not in cause]


def _failed_gates(events: Sequence[dg.DagsterEvent]) -> list[dg.AssetCheckEvaluation]:
    checks = [e.asset_check_evaluation_data for e in events if e.event_type_value == _CHECK_EVENT]
    return [each for each in checks if not each.passed and each.severity.value == "ERROR"]


def _details(events: Sequence[dg.DagsterEvent]) -> dict[str, Any]:
    """Metadata of the newest failure that a step ended with on purpose (`dagster.Failure`)."""
    found: dict[str, Any] = {}
    for event in events:
        if event.is_step_failure and (data := event.step_failure_data.user_failure_data):
            found = {name: each.value for name, each in data.metadata.items()}
    return found


def _set_aside(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    for event in events:
        if event.event_type_value == _CHECK_EVENT:
            found = event.asset_check_evaluation_data.metadata.get(SET_ASIDE)
            aside: Any = found.value if found is not None else ()
            yield from aside


def _warnings(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    for event in events:
        if event.event_type_value == _CHECK_EVENT:
            check = event.asset_check_evaluation_data
            if not check.passed and check.severity.value == "WARN":
                yield f"{check.asset_key.path[-1]}.{check.check_name}: {check.description}"


def _mark_failed(home: Path, order: RunOrder, problem: str) -> str:
    """End what a dead worker left behind, so that no UI shows it running for ever.

    Returns:
        Id of the Dagster run; "" when the worker died before it began.
    """
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={ORDER: order.order_id}))
        for run in runs:
            if not run.is_finished:
                instance.report_run_failed(run, problem)
    if not runs:
        return ""
    settings = load_settings()
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts)
    registry.initialise()
    registry.end_runs_of(runs[0].run_id)
    return runs[0].run_id
