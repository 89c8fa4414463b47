"""Whether training keeps a country's budget of seconds, on the published files.

For each product a country with the longest history, in memory: its local candidates get a
space that covers small and large models, the budget is in seconds alone, and what is timed is all
of training: searches, fits for validation, the choice and the last fit. The pooled model is not
there, so that nothing but the country's own searches can use the time. The goal: a budget of 30
seconds ends within 35.

Only with OMP_NUM_THREADS=1, as every launcher and `make` set it: threads that compete for cores
make a single fit take any time.

    python -m benchmarks tuning [--seconds 30]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUDGET = 30.0
ALLOWED = 35.0 / 30.0
RESULTS = Path(__file__).parent / "results" / "tuning.json"
COUNTRIES = {"power_price": "DEU", "booking_cancellation": "PRT"}
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
    "max_leaf_nodes": {"low": 4, "high": 127, "log": True},
    "max_iter": {"low": 50, "high": 800, "log": True},
}


@dataclass(frozen=True)
class Timed:
    """One country trained within a budget.

    Attributes:
        product: its product.
        country: its name.
        rows: it was trained on.
        budget: seconds the searches might take.
        seconds: all of its training took.
        trials: parameter sets that were tried.
        params: of the model that was chosen.
    """

    product: str
    country: str
    rows: int
    budget: float
    seconds: float
    trials: int
    params: dict[str, Any]

    @property
    def kept(self) -> bool:
        """Whether training ended in time."""
        return self.seconds <= self.budget * ALLOWED


def timed(product: str, country: str, budget: float) -> Timed:
    """Train the local candidates of a country within a budget of seconds."""
    from mlops_assets.ml.models.split import split
    from mlops_assets.ml.training.selection import train_candidates
    from mlops_assets_tests.defs import world

    published = world.build(product, world.real(product))
    spec = _searching(published.spec, budget).for_country(country)
    parts = split(published.frames[country], spec.split)
    started = time.monotonic()
    chosen = train_candidates(spec, parts, {}, country=country, clock=time.monotonic)
    seconds = time.monotonic() - started
    rows, trials = len(parts.final), len(chosen.trials)
    return Timed(product, country, rows, budget, seconds, trials, {**chosen.params})


def _searching(spec: Any, budget: float) -> Any:
    """The product with every candidate local, searched, and bound by seconds alone."""
    content = spec.model_dump()
    content["tuning"] = {"seconds": budget}
    for candidate in content["candidates"]:
        candidate |= {"scopes": ["local"], "space": SPACE}
    return type(spec).model_validate(content)


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; exit code 1 if a budget was not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tuning", description=__doc__)
    parser.add_argument("--seconds", type=float, default=BUDGET)
    given = parser.parse_args(arguments)
    results = []
    for product, country in COUNTRIES.items():
        found = timed(product, country, given.seconds)
        results.append(found)
        print(
            f"{product} {country}: {found.seconds:.1f} s for a budget of {found.budget:g} s, "
            f"{found.trials} trials on {found.rows:,} rows: {'kept' if found.kept else 'MISSED'}"
        )
    RESULTS.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    return 0 if all(each.kept for each in results) else 1
