"""The product `parcels` for the closed loop: two of its countries change, and somebody is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets_tests.platform import edit, small_product

PARCELS = "parcels"
COUNTRIES = ("DEU", "ESP", "FRA", "ITA", "NOR")
DRIFTED = ("ESP", "FRA")
NEW_DAYS = 42
ALERTS = "PARCELS_ALERTS"
"""Names the variable that holds where alerts are sent."""


@dataclass
class Receiver:
    """A webhook on 127.0.0.1 and what it was sent."""

    url: str
    documents: list[dict[str, Any]] = field(default_factory=list)


def drifting_product(folder: Path) -> None:
    made = small_product(PARCELS, folder)
    edit(
        made / "defs.yaml",
        ("countries: [DEU, FRA, NOR]", f"countries: [{', '.join(COUNTRIES)}]"),
        (
            "    holdout_from: 2024-10-01\n    validation_days: 90\n",
            "    holdout_days: 120\n    validation_days: 60\n    refit: true\n",
        ),
        (
            "  # What a valid prediction is,",
            "  monitoring: {window_days: 14, every_days: 7, min_rows: 10}\n"
            "  retraining: {cooldown_days: 0}\n"
            f"  alerts: {{sinks: [{{kind: webhook, url_env: {ALERTS}}}]}}\n\n"
            "  # What a valid prediction is,",
        ),
    )


def records(*, drifted: bool) -> pd.DataFrame:
    """Two years of every country, or the six weeks after of the drifted ones."""
    first = pd.Timestamp("2023-01-01")
    split = pd.Timestamp("2025-01-01")
    days = (
        pd.date_range(split, periods=NEW_DAYS)
        if drifted
        else pd.date_range(first, split, inclusive="left")
    )
    random = np.random.default_rng(5 if drifted else 4)
    frames = []
    for place, country in enumerate(DRIFTED if drifted else COUNTRIES):
        level = 1000.0 + 300.0 * COUNTRIES.index(country)
        weekly = np.where(days.dayofweek < 5, 1.0, 0.6)
        noise = random.normal(1.0, 0.05, len(days))
        demand = level * weekly * noise * (2.5 if drifted else 1.0) + place
        frames.append(
            pd.DataFrame(
                {
                    "Country": country,
                    "Date": days.strftime("%Y-%m-%d"),
                    "Demand (parcels)": np.round(demand),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A webhook until the block ends."""
    documents: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            documents.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not on the terminal of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{server.server_address[1]}/alerts", documents)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
