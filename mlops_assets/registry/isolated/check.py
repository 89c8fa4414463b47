"""Whether a stored model predicts by itself: loaded by a process that has never seen it.

A small server process (`isolated/server.py`) imports the libraries once and forks for each check,
so that a check costs tens of milliseconds and not the seconds of an import. It belongs to the
process that started it, and ends with it however that ends: the pipe between them closes.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.registry.isolated.process import ask
from mlops_assets.registry.isolated.protocol import CheckReply, CheckRequest
from mlops_assets.registry.models import TRUSTED_PREFIXES, TRUSTED_TYPES, ModelVersion, Registry
from mlops_assets.spec import Task

MOST_CHECKED_ROWS = 100
SINGLE_ROWS = 20
LIMIT_SECONDS = 60.0
_EQUAL = 1e-9


@dataclass(frozen=True)
class IsolatedCheck:
    """What a process that has never seen a model found of it.

    Attributes:
        batch: predictions of all rows at once, shape (rows,).
        single: predictions of the first rows one by one, shape (up to 20,).
        load_seconds: to check and read the files, with the libraries imported already.
        row_milliseconds: to predict one row; the median of those of `single`.
        batch_milliseconds: to predict all rows at once; the better of two times.
        bytes: size of the files.
        problem: why there are no predictions; "" when there are.
    """

    batch: np.ndarray
    single: np.ndarray
    load_seconds: float
    row_milliseconds: float
    batch_milliseconds: float
    bytes: int
    problem: str = ""

    @property
    def row_difference(self) -> float:
        """Largest difference of a row alone and in the batch; see `largest_difference`."""
        return largest_difference(self.batch[: len(self.single)], self.single)

    @property
    def rows_agree(self) -> bool:
        """Whether rows alone and in the batch are equal, up to the rounding of linear algebra.

        It adds in another order for another number of rows; 1e-9 is far above that and far below
        what anybody would notice.
        """
        return not self.problem and self.row_difference <= _EQUAL


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| / max(1, |a|, |b|) of two arrays of the same shape; NaN equals NaN.

    Infinite where only one is NaN or the shapes differ; 0.0 for empty ones.
    """
    if a.shape != b.shape:
        return float("inf")
    known = ~(np.isnan(a) & np.isnan(b))
    a, b = a[known], b[known]
    if np.isnan(a).any() or np.isnan(b).any():
        return float("inf")
    scale = np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    return float(np.max(np.abs(a - b) / scale, initial=0.0))


def check_isolated(
    version: ModelVersion,
    rows: pd.DataFrame,
    task: Task,
    registry: Registry,
    *,
    limit_seconds: float = LIMIT_SECONDS,
) -> IsolatedCheck:
    """Load a stored model in a process that has never seen it, and predict with it.

    Args:
        version: as registered; its digest tag is what the files must have.
        rows: a features frame; the first 100 rows are predicted, 20 of them one by one as well.
        task: decides what a prediction is, see `mlops_assets.ml.models.fitted_model.predict`.
        registry: where the files are.
        limit_seconds: after which the process is ended, and that is the result.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_assets-fresh-") as folder:
        try:
            files = registry.fetch(version, Path(folder))
        except RegistryError as error:
            return _failed(error.problem)
        request = CheckRequest(
            name=version.name,
            version=version.version,
            tags=dict(version.tags),
            folder=str(files),
            task=task,
            single_rows=SINGLE_ROWS,
            limit_seconds=limit_seconds,
            libraries=_libraries(),
        )
        return _result(ask(request, _arrow(rows.head(MOST_CHECKED_ROWS))))


def _failed(problem: str) -> IsolatedCheck:
    nothing, unknown = np.empty(0), float("nan")
    return IsolatedCheck(nothing, nothing, unknown, unknown, unknown, 0, problem)


def _result(reply: CheckReply) -> IsolatedCheck:
    if reply.problem:
        return _failed(reply.problem)
    return IsolatedCheck(
        batch=np.array(reply.batch, dtype="float64"),
        single=np.array(reply.single, dtype="float64"),
        load_seconds=reply.load_seconds,
        row_milliseconds=reply.row_milliseconds,
        batch_milliseconds=reply.batch_milliseconds,
        bytes=reply.bytes,
    )


def _libraries() -> tuple[str, ...]:
    """Public parts of the trusted libraries this process has imported.

    The server imports them before it forks: else every check would, and call it loading.
    """
    roots = {name.partition(".")[0] for name in (*TRUSTED_PREFIXES, *TRUSTED_TYPES)}
    parts = [name.split(".")[:2] for name in list(sys.modules) if name.partition(".")[0] in roots]
    named = {".".join(part) for part in parts if not part[-1].startswith("_")}
    return tuple(sorted(name for name in named if not name.startswith("mlops_assets")))


def _arrow(rows: pd.DataFrame) -> bytes:
    """As Arrow's stream format, which keeps the types a stored frame has."""
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
