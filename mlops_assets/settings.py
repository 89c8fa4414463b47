"""Where this deployment keeps its things: the one place that reads the environment.

Every value has a default under one folder, so that a bare checkout needs no set-up.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from mlops_assets.errors import ConfigurationError

HOME = "MLOPS_ASSETS_HOME"
DAGSTER_HOME = "DAGSTER_HOME"
MLFLOW_URI = "MLFLOW_TRACKING_URI"
BROKER = "MLOPS_ASSETS_BROKER"
DAGSTER_DB = "MLOPS_ASSETS_DAGSTER_DB"
AS_OF = "MLOPS_ASSETS_AS_OF"
"""Environment variable with the moment of an as-of run."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to 1 in every process that computes: two with a thread a core each cost six times the CPU."""
_PLACES = {HOME: "home", DAGSTER_HOME: "home of Dagster", MLFLOW_URI: "MLflow database"}
"""Environment variable of a path with databases below it, or of one: what it is."""
_SQLITE = "sqlite:///"
_NO_PLACE = re.compile(r"\?|%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]")
PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFS = PROJECT_ROOT / "mlops_assets" / "defs"


@dataclass(frozen=True)
class Settings:
    """Locations as URIs or absolute paths.

    Attributes:
        home: folder of everything below that is not set on its own.
        storage: root of the snapshots; a folder or `s3://bucket/prefix`.
        landing: folder or prefix with one folder of delivered files a product.
        mlflow_uri: SQLAlchemy URL of the MLflow database, or a tracking server.
        mlflow_artifacts: root of model files.
        mlflow_ui: address under which people open MLflow.
        dagster_ui: address under which people open Dagster, for links in alerts; "" if not known.
        dagster_home: folder of the Dagster instance that the commands use.
        dagster_db: SQLAlchemy URL of the PostgreSQL database of Dagster's history; "": SQLite files
            under `dagster_home`.
        broker: URL of the Redis that runs travel through to workers; "": a folder under `home`.
        defs: folder with one folder a product.
        concurrency: runs at once on this machine; 0: one a core.
        worker_runs: runs after which a worker process is replaced.
        worker_memory_mb: MiB above which a worker process is replaced after its run.
        as_of: moment (UTC) whose knowledge everything is made from; None: now.
        origin: the snapshots that moment is looked up in; None without `as_of`.
    """

    home: Path
    storage: str
    landing: str
    mlflow_uri: str
    mlflow_artifacts: str
    mlflow_ui: str
    dagster_ui: str
    dagster_home: Path
    defs: Path
    dagster_db: str = ""
    broker: str = ""
    concurrency: int = 0
    worker_runs: int = 200
    worker_memory_mb: int = 2048
    as_of: dt.datetime | None = None
    origin: str | None = None

    @property
    def locks(self) -> Path:
        """Folder of the locks of commands and runs."""
        return self.home / "locks"


def load_settings() -> Settings:
    """The settings as the environment has them now (see `.env.example`)."""
    settings = _here()
    moment = os.environ.get(AS_OF)
    return settings if not moment else _apart(settings, parse_moment(moment))


def without_password(url: str) -> str:
    """An address as people may read it."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def parse_moment(text: str) -> dt.datetime:
    """A date or time in ISO 8601 as a moment; without a zone it is UTC.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is not a time.",
            stored="Nothing was read or run.",
            way_out="Write it as 2025-06-30 or 2025-06-30T12:00:00Z.",
        ) from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _apart(settings: Settings, moment: dt.datetime) -> Settings:
    """A home of its own for what is made as of a moment: nothing in use is touched."""
    fraction = "%f" if moment.microsecond else ""
    home = settings.home / "as_of" / moment.strftime(f"%Y%m%dT%H%M%S{fraction}Z")
    return replace(
        settings,
        home=home,
        storage=str(home / "store"),
        landing=str(home / "landing"),
        mlflow_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=(home / "mlflow" / "artifacts").as_uri(),
        dagster_home=home / "dagster",
        dagster_db="",
        broker="",
        as_of=moment,
        origin=settings.storage,
    )


def _allowed(place: Path, variable: str) -> Path:
    """A folder or file whose name all libraries take as it is.

    Args:
        place: as it is set.
        variable: of the environment, that sets it.

    Raises:
        ConfigurationError: one would take it for another: in the address of a database a question
            mark ends the path, and MLflow takes a percent sign with two digits for a character.
    """
    if _NO_PLACE.search(str(place)):
        what = _PLACES[variable]
        raise ConfigurationError(
            f"The {what} {str(place)!r} has `?`, `%` with two hexadecimal digits or a control "
            "character in its path, which databases would take for something else.",
            stored="Nothing was read or written.",
            way_out=f"Rename the folder, or set {variable} to another one.",
            culprits={what: str(place)},
        )
    return place


def _mlflow_uri(home: Path) -> str:
    uri = os.environ.get(MLFLOW_URI) or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    if uri.startswith(_SQLITE):
        # What follows a question mark in an address are options; one in the path cannot be told.
        _allowed(Path(uri.removeprefix(_SQLITE)), MLFLOW_URI)
    return uri


def _here() -> Settings:
    home = _allowed(Path(os.environ.get(HOME) or PROJECT_ROOT / "data").resolve(), HOME)
    dagster_home = Path(os.environ.get(DAGSTER_HOME) or home / "dagster").resolve()
    return Settings(
        home=home,
        storage=os.environ.get("MLOPS_ASSETS_STORAGE") or str(home / "store"),
        landing=os.environ.get("MLOPS_ASSETS_LANDING") or str(home / "landing"),
        mlflow_uri=_mlflow_uri(home),
        mlflow_artifacts=os.environ.get("MLOPS_ASSETS_MLFLOW_ARTIFACTS")
        or (home / "mlflow" / "artifacts").as_uri(),
        mlflow_ui=os.environ.get("MLOPS_ASSETS_MLFLOW_UI") or "http://127.0.0.1:5000",
        dagster_ui=(os.environ.get("MLOPS_ASSETS_DAGSTER_UI") or "").rstrip("/"),
        dagster_home=_allowed(dagster_home, DAGSTER_HOME),
        defs=Path(os.environ.get("MLOPS_ASSETS_DEFS") or DEFS),
        dagster_db=os.environ.get(DAGSTER_DB) or "",
        broker=os.environ.get(BROKER) or "",
        concurrency=int(os.environ.get("MLOPS_ASSETS_CONCURRENCY") or 0),
        worker_runs=int(os.environ.get("MLOPS_ASSETS_WORKER_RUNS") or 200),
        worker_memory_mb=int(os.environ.get("MLOPS_ASSETS_WORKER_MEMORY_MB") or 2048),
    )
