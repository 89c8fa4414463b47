"""Everything a person needs in the browser, started together and stopped together.

`work` does the same for a host that has workers alone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mlops_assets.errors import MlopsAssetsError
from mlops_assets.registry import Registry
from mlops_assets.runtime.instance import prepare_up_instance
from mlops_assets.runtime.up.processes import (
    Crew,
    Ports,
    free_port,
    has_mlflow_page,
    pages,
    workers,
)
from mlops_assets.runtime.up.services import Service, answers, end_left_over, remember, stop_all
from mlops_assets.runtime.workers.lost_runs import end_lost_runs
from mlops_assets.settings import PROJECT_ROOT, Settings

__all__ = ["AlreadyUpError", "Crew", "NotUpError", "Ports", "free_port", "up", "work"]

_POLL_SECONDS = 0.2
_LOOK_AT_CODE_SECONDS = 1.0
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_OLD_RESULT_SECONDS = 7 * 24 * 3600.0
_HOLD_CODE = ("code", "workers")
"""Services that have imported the products."""

Say = Callable[[str], None]


class AlreadyUpError(MlopsAssetsError):
    """A second `up` on the same home, or a port in use."""


class NotUpError(MlopsAssetsError):
    """A service did not start."""


class _ToldToStop(BaseException):
    """By a signal, while nothing was started yet that would have to be ended."""


@dataclass
class _Up:
    """What runs now.

    Attributes:
        stopping: set by a signal; every loop looks at it, so that no signal falls between a
            process that was just started and the note of it.
        preparing: nothing is started yet; a signal ends what goes on instead of waiting for it.
        due: when a service that ended by itself is started again, in monotonic seconds.
        leaving: workers that finish their last runs with the code they have.
    """

    settings: Settings
    say: Say
    stopping: bool = False
    preparing: bool = False
    services: list[Service] = field(default_factory=list)
    leaving: list[Service] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.settings.home / "up"

    @property
    def alone(self) -> bool:
        """Whether all workers are of this host: then a run without one here has none anywhere."""
        return not self.settings.broker

    def named(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    def remember(self) -> None:
        remember(self.folder / "processes.json", [*self.services, *self.leaving])


def up(settings: Settings, ports: Ports, crew: Crew, runs_at_once: int, *, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM; everything started is stopped again.

    Args:
        settings: where everything is.
        ports: of the pages.
        crew: the workers of this host.
        runs_at_once: on all hosts together.
        say: who is told.

    Raises:
        AlreadyUpError: another `up` serves this home, or a port is in use.
        NotUpError: Dagster did not start.
    """
    state = _Up(settings, say)
    with _alone(settings), _told_to_stop(state):
        try:
            _tidy(state)
            _require_free(ports)
            home = _prepare(state, runs_at_once)
            state.services = pages(settings, ports, crew, home)
            _start(state)
            _announce(state, ports)
            _watch(state)
        except _ToldToStop:
            say("Stopped before anything was started.")
        finally:
            _stop(state)


def work(settings: Settings, crew: Crew, runs_at_once: int, say: Say) -> None:
    """Execute runs until Ctrl-C or SIGTERM, on a host that has workers alone.

    Raises:
        AlreadyUpError: something is up on this home.
    """
    state = _Up(settings, say)
    with _alone(settings), _told_to_stop(state):
        try:
            _tidy(state)
            home = _prepare(state, runs_at_once)
            state.services = [workers(settings, crew, home)]
            _start(state)
            say(f"{crew.processes} workers take runs of size {', '.join(crew.queues)}.")
            say(f"Logs:    {state.services[0].log.parent}")
            say("Stop with Ctrl-C.")
            _watch(state)
        except _ToldToStop:
            say("Stopped before anything was started.")
        finally:
            _stop(state)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise AlreadyUpError(
            f"Another `mlops-assets up` serves {settings.home}.",
            stored="Nothing was started.",
            way_out="Stop it with Ctrl-C where it runs, or set another MLOPS_ASSETS_HOME.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _told_to_stop(state: _Up) -> Iterator[None]:
    """Signals set a mark; also a second one, so that stopping is never cut short."""

    def mark(number: int, frame: object) -> None:
        state.stopping = True
        if state.preparing:
            state.preparing = False
            raise _ToldToStop

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, mark) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tidy(state: _Up) -> None:
    """Clear up after an `up` that was killed, and old states of tasks."""
    if ended := end_left_over(state.folder / "processes.json"):
        state.say(f"Ended {ended} processes that an earlier `up` had left behind.")
    oldest = time.time() - _OLD_RESULT_SECONDS
    for file in (state.folder / "results").glob("*"):
        if file.stat().st_mtime < oldest:
            file.unlink()


def _prepare(state: _Up, runs_at_once: int) -> Path:
    """Databases that are there, and no run that was lost.

    Raises:
        _ToldToStop: a signal came. To make MLflow's database takes a busy machine a minute; half a
            one is made anew by the next start.
    """
    state.preparing = True
    try:
        if state.stopping:
            raise _ToldToStop
        home = prepare_up_instance(state.settings, runs_at_once)
        Registry(state.settings.mlflow_uri, state.settings.mlflow_artifacts).initialise()
        _end_lost_runs(state)
    finally:
        state.preparing = False
    return home


def _start(state: _Up) -> None:
    """Each after those it needs: a webserver that finds no code shows none for a while."""
    for service in state.services:
        if not state.stopping:
            service.start()
            state.remember()
        if service.name == "code":
            _await(state, service)


def _await(state: _Up, service: Service) -> None:
    """Until it answers.

    Raises:
        NotUpError: it ended, or does not answer in three minutes.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not state.stopping and not service.answers:
        if service.ended or time.monotonic() > deadline:
            raise NotUpError(
                f"Dagster ({service.name}) did not start: {service.last_words()}",
                stored="What was started is stopped again.",
                way_out=f"Read {service.log}.",
            )
        time.sleep(_POLL_SECONDS)


def _stop(state: _Up) -> None:
    started = [service for service in (*state.services, *state.leaving) if service.process]
    if not started:
        return
    state.say(f"Stopping; runs in progress have {_STOP_SECONDS:.0f} s to finish.")
    stop_all(started, _STOP_SECONDS)
    _end_lost_runs(state)
    (state.folder / "processes.json").unlink(missing_ok=True)
    state.say("Stopped.")


def _end_lost_runs(state: _Up) -> None:
    """No worker runs here now. Of other hosts' runs the daemon knows whether theirs live."""
    if not state.alone:
        return
    if lost := end_lost_runs(state.folder, state.folder / "results"):
        state.say(
            f"{lost} runs had lost their worker and are marked as failed. Each is tried once more "
            "by itself while `up` serves."
        )


def _require_free(ports: Ports) -> None:
    for name, port in (("Dagster", ports.dagster), ("MLflow", ports.mlflow)):
        if answers(port):
            raise AlreadyUpError(
                f"Port {port}, wanted for {name}, is in use.",
                stored="Nothing was started.",
                way_out="Choose another with --port or --mlflow-port.",
            )


def _announce(state: _Up, ports: Ports) -> None:
    """Say where the pages are once Dagster answers."""
    webserver = state.named("webserver")
    _await(state, webserver)
    if not state.stopping:
        state.say(f"Dagster: http://127.0.0.1:{ports.dagster}")
        if has_mlflow_page(state.settings):
            state.say(f"MLflow:  http://127.0.0.1:{ports.mlflow}")
        state.say(f"Logs:    {webserver.log.parent}")
        state.say("Stop with Ctrl-C.")


def _watch(state: _Up) -> None:
    """Until told to stop: restart what ended, and what holds code that changed."""
    code, look_at_code = _code_state(state.settings), 0.0
    while not state.stopping:
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        _start_again(state, now)
        if now >= look_at_code:
            look_at_code = now + _LOOK_AT_CODE_SECONDS
            if (found := _code_state(state.settings)) != code:
                code = found
                _renew(state)


def _start_again(state: _Up, now: float) -> None:
    for service in state.services:
        if service.ended:
            wait = service.note_end()
            state.due[service.name] = now + wait
            state.say(
                f"{service.name} ended by itself ({service.last_words()}) and is started again in "
                f"{wait:.0f} s; see {service.log}"
            )
            if service.name == "workers" and not state.leaving:
                _end_lost_runs(state)
        elif service.process is None and now >= state.due.get(service.name, 0.0):
            service.start()
            state.remember()
    for service in [each for each in state.leaving if each.ended]:
        service.end(now)
        state.leaving.remove(service)


def _renew(state: _Up) -> None:
    """New code for those who hold it; workers finish their runs first, and others take new ones."""
    state.say(
        "Code or YAML changed: new runs get it at once, runs in progress end with what they have. "
        "Press `Reload definitions` in the UI if it does not ask to."
    )
    for service in (each for each in state.services if each.name in _HOLD_CODE):
        if service.process is not None:
            leaving = service.retire()
            if service.name == "workers":
                state.leaving.append(leaving)
            else:  # its port is needed again
                leaving.end(time.monotonic() + _STOP_SECONDS)
        service.start()
    state.remember()


def _code_state(settings: Settings) -> dict[str, float]:
    """Time of change of every file the workers import or read."""
    found = {}
    for folder in {PROJECT_ROOT / "mlops_assets", settings.defs.resolve()}:
        for pattern in ("*.py", "*.yaml"):
            for file in folder.rglob(pattern):
                try:
                    found[str(file)] = file.stat().st_mtime
                except FileNotFoundError:  # an editor replaced it just now
                    continue
    return found
