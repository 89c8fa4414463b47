"""Drift of the benchmark's rows by Evidently, in an environment of its own: `benchmarks.drift`.

    python evidently_drift.py FOLDER COUNTRIES

Reads `<country>.reference.parquet` and `<country>.current.parquet`, and prints as JSON the seconds
of the reports alone, the rows they judged, and by country which columns drifted.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report  # pyright: ignore[reportMissingImports]
from evidently.presets import DataDriftPreset  # pyright: ignore[reportMissingImports]


def drifted(report: Any) -> dict[str, bool]:
    """Verdict of each column of a report."""
    found: dict[str, bool] = {}
    for metric in report.dict()["metrics"]:
        config = metric.get("config", {})
        if "column" not in config or "threshold" not in config:
            continue
        # p-values drift below the threshold, distances above it.
        below = "p_value" in config.get("method", "")
        value = float(metric["value"])
        limit = float(config["threshold"])
        found[config["column"]] = value < limit if below else value >= limit
    return found


def main(folder: Path, countries: list[str]) -> int:
    """Judge every country."""
    warnings.simplefilter("ignore")
    frames = {
        country: [
            pd.read_parquet(folder / f"{country}.{part}.parquet")
            for part in ("reference", "current")
        ]
        for country in countries
    }
    verdicts: dict[str, dict[str, bool]] = {}
    started, cpu = time.perf_counter(), time.process_time()
    for country, (reference, current) in frames.items():
        numbers = [name for name in current if current[name].dtype != object]
        texts = [name for name in current if name not in numbers]
        kinds = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
        sets = [Dataset.from_pandas(each, data_definition=kinds) for each in (current, reference)]
        verdicts[country] = drifted(Report([DataDriftPreset()]).run(*sets))
    spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    rows = sum(len(current) for _, current in frames.values())
    print(json.dumps({**spent, "rows": rows, "verdicts": verdicts}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2].split(",")))
