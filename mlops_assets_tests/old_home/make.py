"""How `home.tar.xz` and `expected.json` were made: once, by the platform as of `COMMIT`.

    python mlops_assets_tests/old_home/make.py

It takes the code of that commit out of git and runs nothing else, whatever is checked out: a home
that later code makes is not an old one. Kept to say what the fixture holds and why.

Everything happens below `PLACE`, a path that says nothing of a machine: the description of a stored
model has its path in it and is part of the registered digest, and Dagster's snapshots of jobs are
compressed, so that in these two it stays. In all else that is text a placeholder takes its place.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COMMIT = "0ec40f94e349f20d8d30bcc91df797ecc5dc64d0"
PLACE = Path("/srv/parcels")
HOME, DEFS, PLATFORM = PLACE / "home", PLACE / "defs", PLACE / "platform"
PLACEHOLDERS = {
    str(HOME): "@HOME@",
    str(DEFS): "@DEFS@",
    str(PLATFORM): "@PROJECT@",
    sys.executable: "@PYTHON@",
    sysconfig.get_path("purelib"): "@LIBRARIES@",
}
PERSON = "ana"
DAYS = ("2024-12-10", "2024-12-20", "2024-12-31")
"""Last days of the three deliveries."""
WRONG_UNTIL = "2024-05-31"
VALUE = "Demand (parcels)"
DELIVERED_AT = dt.datetime(2025, 1, 2, tzinfo=dt.UTC).timestamp()
LONG = ("settings", "gates")
"""Columns of the decisions that a replay looks at."""
STOPPED = (1,)
"""Exit code of a job in which NOR is stopped by its gate."""

CANDIDATES = """  candidates:
    - name: gbm
      estimator: sklearn.ensemble.HistGradientBoostingRegressor
      params: {max_iter: 15, learning_rate: 0.3, max_leaf_nodes: 7}
      scopes: [local, region, pooled]
      scale: mean_of_week
    - name: ridge
      estimator: sklearn.linear_model.Ridge
      params: {alpha: 1.0}
      scopes: [local]
      space: {alpha: {low: 0.1, high: 10.0, log: true}}
      offset: demand_week_ago

  regions: {centre: [DEU, FRA]}

  tuning: {trials: 2}

  evaluation:
    draws: 200
    confidence: 0.6
    worst_cases: 3
    slices:
      - {feature: day}

  decision: {level: 0.2}

  monitoring: {window_days: 7, min_rows: 5}
"""
OVERRIDES = """    DEU:
      candidates:
        - name: ridge
          estimator: sklearn.linear_model.Ridge
          params: {alpha: 1.0}
          scopes: [local]
          space: {alpha: {low: 0.1, high: 10.0, log: true}}
          offset: demand_week_ago
    # What no candidate keeps: the baseline serves.
    NOR:
      gates:
        min_improvement: 0.9
"""
SHARED = '''

def shared(validated):
    """The demand of every country by day."""
    demand = {name: rows.set_index("date")["demand"] for name, rows in validated.items()}
    made = pd.DataFrame(demand).astype("float64").sort_index()
    return made.rename_axis("event_time").reset_index()


def build(validated, shared):
    """The features of the country, the name of the day, and the mean demand of all countries."""
    mean = shared.set_index("event_time").mean(axis=1)
    return own(validated).assign(
        day=lambda made: (made["event_time"] + pd.Timedelta(days=1)).dt.day_name(),
        mean_of_all=lambda made: made["event_time"].map(mean),
    )
'''
KILLED = f"""
import os, signal
from mlops_assets.runtime.jobs import execute_job
from mlops_assets.settings import load_settings
from mlops_assets.stages import promotion

really = promotion._carry

def deadly(office, unit, move, *rest):
    if move.country == "NOR":
        os.kill(os.getpid(), signal.SIGKILL)
    really(office, unit, move, *rest)

promotion._carry = deadly
asked = {{"countries": ["FRA", "NOR"], "version": "2", "person": "{PERSON}", "reason": "new rules"}}
execute_job(load_settings(), "parcels", "promote", asked, {{}})
"""
"""A forced promotion of two countries, killed between them: its unit and its run stay open."""
PREPARED = """
from mlops_assets.runtime.instance import prepare_up_instance
from mlops_assets.settings import load_settings

prepare_up_instance(load_settings(), 2)
"""
"""The folder that `mlops-assets up` serves, as it writes it."""


def make() -> None:
    """All that happened in the home."""
    take_code()
    command("new-product", "parcels")
    edit_product()
    for number, last in enumerate(DAYS):
        deliver(number, last)
        command("materialize", "parcels", "--all", codes=STOPPED)
    word = ("--by", PERSON, "--reason", "too low on Mondays", "--yes")
    command("rollback", "parcels", "DEU", *word)
    run("-c", KILLED, codes=(-signal.SIGKILL,))
    command("materialize", "parcels", "--all", "--job", "predict")
    # What people switched on, and a run that waits in the queue, with where they are from.
    for asked in ("sensor start parcels_landing", "schedule start parcels_periodic"):
        run("-m", "dagster", *asked.split(), "-w", "workspace.yaml")
    run("-m", "dagster", "job", "launch", "-j", "parcels_reproduce", "-w", "workspace.yaml")
    run("-c", PREPARED)


def take_code() -> None:
    """The package of the commit, and nothing else of the repository."""
    shutil.rmtree(PLACE, ignore_errors=True)
    DEFS.mkdir(parents=True)
    PLATFORM.mkdir()
    wanted = ["git", "archive", COMMIT, "mlops_assets", "workspace.yaml", "pyproject.toml"]
    packed = subprocess.run(wanted, cwd=Path(__file__).parent.parent.parent, capture_output=True)
    packed.check_returncode()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(PLATFORM, filter="data")


def edit_product() -> None:
    """The scaffolded product with cheap candidates of every scope, and shared features."""
    file, code = DEFS / "parcels" / "defs.yaml", DEFS / "parcels" / "features.py"
    text = file.read_text()
    before, _, rest = text.partition("  candidates:\n")
    text = before + CANDIDATES + rest[rest.index("\n  # Limits") :]
    text = text[: text.index("    NOR:\n")] + OVERRIDES
    for old, new in (
        ("features.build\n", "features.build\n  shared_features: features.shared\n"),
        ("validation_days: 90\n", "validation_days: 60\n    refit: true\n"),
        ("holdout_from: 2024-10-01", "holdout_from: 2024-08-01"),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    code.write_text(code.read_text().replace("def build(validated", "def own(validated") + SHARED)


def records() -> pd.DataFrame:
    """A year and a half of three countries."""
    random = np.random.default_rng(7)
    days = pd.date_range("2023-07-01", DAYS[-1], freq="D")
    made = []
    for country, level in (("DEU", 4000), ("FRA", 2500), ("NO", 700)):
        weekly = np.where(days.dayofweek < 5, 1.0, 0.6) + 0.02 * days.dayofweek
        yearly = 1.0 + 0.2 * np.cos(2 * np.pi * days.dayofyear / 365.25)
        demand = level * weekly * yearly * random.normal(1.0, 0.05, len(days))
        columns = {"Country": country, "Date": days.strftime("%Y-%m-%d"), VALUE: demand}
        made.append(pd.DataFrame(columns).round({VALUE: 0}))
    return pd.concat(made, ignore_index=True)


def deliver(number: int, last: str) -> None:
    """DEU is wrong for long in the first delivery, which the second one corrects."""
    frame = records()
    wrong = (frame["Country"] == "DEU") & (frame["Date"] <= WRONG_UNTIL)
    kept = frame["Date"] <= last
    if number == 0:
        noise = np.random.default_rng(8).uniform(0.78, 1.22, len(frame))
        frame[VALUE] = (frame[VALUE] * noise).round().where(wrong, frame[VALUE])
        frame.loc[[10, 20, 30], VALUE] = -1.0  # breaks the contract
    else:
        kept &= (frame["Date"] > DAYS[number - 1]) | (wrong & (number == 1))
    folder = HOME / "landing" / "parcels"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / ("first.csv", "second.parquet", "third.parquet")[number]
    frame = frame[kept].reset_index(drop=True)
    frame.to_parquet(target) if number else frame.to_csv(target, index=False)
    os.utime(target, (DELIVERED_AT, DELIVERED_AT))


def command(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a command of the platform prints."""
    return run("-m", "mlops_assets.cli", *arguments, codes=codes)


def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a program of the old code prints; it has to end with one of these exit codes."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        cwd=PLATFORM,
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(f"== {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    if done.returncode not in codes:
        raise SystemExit(f"ended with {done.returncode}, not {codes}")
    return done.stdout


def environment() -> dict[str, str]:
    """Of a process that works on the home; it knows no other person and place."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PLATFORM),
        "HOME": str(PLACE),
        "LOGNAME": PERSON,
        "MLOPS_ASSETS_HOME": str(HOME),
        "MLOPS_ASSETS_DEFS": str(DEFS),
        "DAGSTER_HOME": str(HOME / "dagster"),
        "MLOPS_ASSETS_CONCURRENCY": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def expected() -> dict[str, object]:
    """What the old code says of the home, and what Dagster's tables hold."""
    history = HOME / "dagster" / "history"
    made = (
        "select asset_key, coalesce(partition, ''), count(*) from event_logs "
        "where dagster_event_type = 'ASSET_MATERIALIZATION' group by 1, 2 order by 1, 2"
    )
    materialized = rows(history / "events" / "event_log.db", made)
    decisions = pd.DataFrame(json.loads(command("decisions", "parcels", "--json")), dtype=object)
    runs = rows(history / "runs" / "runs.db", "select status, count(*) from runs group by 1")
    return {
        "commit": COMMIT,
        "status": json.loads(command("status", "parcels", "--json")),
        "decisions": decisions.drop(columns=list(LONG)).to_dict("records"),
        "quarantine": json.loads(command("quarantine", "parcels", "DEU", "--json")),
        "runs": dict(runs),
        "materializations": [
            [json.loads(key)[-1], where, count] for key, where, count in materialized
        ],
    }


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Of a database."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def members() -> Iterator[tuple[str, bytes, float]]:
    """Name, content and time of each file to keep: databases as SQL, placeholders for places."""
    for file in sorted([*HOME.rglob("*"), *DEFS.rglob("*")]):
        name = file.relative_to(PLACE).as_posix()
        if not file.is_file() or "__pycache__" in name or re.search(r"lock$|db-(wal|shm)$", name):
            continue
        time = DELIVERED_AT
        if file.suffix == ".db":
            yield f"{name}.sql", placeless(dumped(file)).encode(), time
        elif file.name == "dagster.yaml":
            yield name, placeless(file.read_text()).encode(), time
        else:
            yield name, file.read_bytes(), time


def dumped(database: Path) -> str:
    """A database as SQL; blobs are in it as hexadecimal digits."""
    with closing(sqlite3.connect(database)) as connection:
        (mode,) = connection.execute("pragma journal_mode").fetchone()
        return "\n".join([f"pragma journal_mode = {mode};", *connection.iterdump(), ""])


def placeless(text: str) -> str:
    """With a placeholder for each place; the longest first, as one may begin with another."""
    for place in sorted(PLACEHOLDERS, key=len, reverse=True):
        text = text.replace(place, PLACEHOLDERS[place])
    return text


def require_anonymous(name: str, content: bytes) -> None:
    """Refuse what tells a path, host or user of this machine, packed as it may be."""
    user, host = os.environ.get("USER", "root").encode(), socket.gethostname().encode()
    path = rb"[/\\](tmp|work|root|home|usr|opt|mnt)[/\\]"
    told = re.compile(rb".{0,40}(%s|\b%s\b(?![_.-])|[\"'\\]%s[\"'\\]).{0,40}" % (path, host, user))
    for each in plain(name, content):
        searched = each.replace(str(HOME).encode(), b"").replace(str(DEFS).encode(), b"")
        if found := told.search(searched):
            raise SystemExit(f"{name}: {found.group()!r}")


def plain(name: str, content: bytes) -> Iterator[bytes]:
    """The content as it can be searched."""
    yield content
    if name.endswith(".skops"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            yield from (packed.read(each) for each in packed.namelist())
    elif name.endswith(".parquet"):
        yield pd.read_parquet(io.BytesIO(content)).to_csv().encode()
    elif name.endswith(".sql"):
        for blob in re.findall(rb"X'([0-9A-F]+)'", content):
            yield zlib.decompress(bytes.fromhex(blob.decode()))


def pack(target: Path) -> None:
    """All members in one file; no owner is named in it."""
    with tarfile.open(target, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as archive:
        for name, content, time in members():
            require_anonymous(name, content)
            about = tarfile.TarInfo(name)
            about.size, about.mtime = len(content), time
            archive.addfile(about, io.BytesIO(content))


if __name__ == "__main__":
    make()
    here = Path(__file__).parent
    (here / "expected.json").write_text(json.dumps(expected(), indent=1) + "\n")
    pack(here / "home.tar.xz")
