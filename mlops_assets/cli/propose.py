"""What `backtest --propose` does: a search on a product's own past, its worth, the YAML of it."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mlops_assets.cli.base import context_of, print_table, say
from mlops_assets.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.ml.backtest.data import BacktestData
    from mlops_assets.ml.backtest.proposal import Proposal
    from mlops_assets.product import Product

_SHOWN = 8
_NOTHING = "Nothing was trained."


@dataclass(frozen=True)
class ProposeOptions:
    """How much is searched, and where the YAML goes.

    Args:
        most: policies that begin.
        minutes: the search is cut down to; None: none.
        step: from a moment to the next.
        processes: that train side by side.
        out: file of the YAML; None: printed alone.
    """

    most: int
    minutes: float | None
    step: pd.Timedelta
    processes: int
    out: Path | None = None


def propose_policy(
    product: Product,
    past: BacktestData,
    moments: Sequence[pd.Timestamp],
    options: ProposeOptions,
    *,
    note: str,
    as_json: bool,
) -> None:
    """Search, store what was found, and print it.

    Args:
        product: which.
        past: of it.
        moments: in order, the tail among them.
        options: how much is searched.
        note: what was read differently; "" for nothing.
        as_json: whether a program reads it.
    """
    from mlops_assets.ml.backtest.adoption import snippet
    from mlops_assets.stages.backtest.proposals import store_proposal

    began = time.monotonic()
    found = _searched(past, moments, options, quiet=as_json)
    seconds, made = time.monotonic() - began, dt.datetime.now(dt.UTC)
    yaml = snippet(product.name, past.spec.metric, found, made.date()) if found.adopt else ""
    settings = {
        "step": str(options.step),
        "countries": list(past.countries),
        "most": options.most,
        "minutes": options.minutes,
        "seconds": round(seconds, 1),
        "seed": past.spec.seed,
    }
    entry = store_proposal(context_of(product), found, made, settings, yaml=yaml)
    if options.out is not None and yaml:
        options.out.write_text(yaml, encoding="utf-8")
    if as_json:
        say(json.dumps(_as_dict(found, settings, yaml, entry=entry, note=note), indent=1))
        return
    _print(product, past, found, yaml, seconds=seconds, note=note)


def _searched(
    past: BacktestData, moments: Sequence[pd.Timestamp], options: ProposeOptions, *, quiet: bool
) -> Proposal:
    from mlops_assets.cli.backtest import stderr_unless
    from mlops_assets.ml.backtest.proposal import SearchBudget, propose
    from mlops_assets.runtime.headless.parallel_trainer import ParallelTrainer

    seconds = options.minutes * 60 if options.minutes is not None else None
    budget = SearchBudget(options.most, seconds, time.monotonic)
    with (
        ParallelTrainer(past, options.processes) as trainer,
        typer.progressbar(length=len(moments), label="propose", file=stderr_unless(quiet)) as bar,
    ):
        return propose(past, moments, trainer, budget, progress=lambda moment: bar.update(1))


def chosen_moments(
    product: Product, past: BacktestData, times: tuple[str, str], step: pd.Timedelta
) -> tuple[pd.Timestamp, ...]:
    """The moments from and to given dates, or those there are.

    Raises:
        ConfigurationError: there are too few.
    """
    from mlops_assets.ml.backtest.proposal import searchable_moments, tail_begin

    moments = searchable_moments(past, step)
    if times[0]:
        import pandas as pd

        from mlops_assets.ml.backtest.data import backtest_moments
        from mlops_assets.settings import parse_moment

        start = pd.Timestamp(parse_moment(times[0])).tz_localize(None)
        if start >= past.end:
            raise ConfigurationError(
                f"--from {times[0]} is not before the newest data of {product.name}, "
                f"{past.end:%Y-%m-%d}.",
                stored=_NOTHING,
                way_out="Give an earlier date.",
                culprits={"from": times[0]},
            )
        moments = backtest_moments(start, past.end, step)
    tail_begin(moments)
    return moments


def _print(
    product: Product,
    past: BacktestData,
    found: Proposal,
    yaml: str,
    *,
    seconds: float,
    note: str,
) -> None:
    metric = past.spec.metric
    if note:
        say(f"The split of {product.name} has fixed dates: {note}.")
    searched = sorted(found.search, key=lambda each: -each.rows)[:_SHOWN]
    print_table(
        f"{product.name}: {len(found.search)} policies searched on {found.begin:%Y-%m-%d} to "
        f"{found.tail_from:%Y-%m-%d}, those that stayed longest",
        _table(metric, searched),
    )
    print_table(
        f"{product.name}: {metric} on {found.tail_from:%Y-%m-%d} to {found.until:%Y-%m-%d}, which "
        "was not searched",
        _table(metric, found.tail),
    )
    _print_advice(product, found, yaml)
    say(f"Stored with the proposals of {product.name}; it took {seconds / 60:.1f} minutes.")


def _print_advice(product: Product, found: Proposal, yaml: str) -> None:
    from mlops_assets.ml.backtest.space import described

    if not yaml:
        say(f"Keep what you have: {found.reason}.")
        if found.changes:
            say(f"What the search chose: {described(found.changes)}.")
        return
    say(f"Adopt it: {found.reason}.")
    say(f"Into `attributes` of {product.folder / 'defs.yaml'}, each key into its section:\n")
    say(yaml)


def _table(metric: str, worth: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "policy": [each.name for each in worth],
            metric: [f"{each.value:.4g}" for each in worth],
            "trainings": [each.trainings for each in worth],
            "promoted": [each.promoted for each in worth],
            "rows": [f"{each.rows:,}" for each in worth],
        }
    )


def _as_dict(
    found: Proposal, settings: dict[str, Any], yaml: str, *, entry: str, note: str
) -> dict[str, Any]:
    gain = {name: _number(value) for name, value in asdict(found.gain).items()}
    return {
        "adopt": found.adopt,
        "reason": found.reason,
        "changes": found.changes,
        "yaml": yaml,
        "gain": gain,
        "drawn": found.drawn,
        "begin": found.begin.isoformat(),
        "tail_from": found.tail_from.isoformat(),
        "until": found.until.isoformat(),
        "tail": [_worth(each) for each in found.tail],
        "search": [_worth(each) for each in found.search],
        "settings": settings,
        "stored": entry,
        "note": note,
    }


def _worth(each: Any) -> dict[str, Any]:
    return {name: _number(value) for name, value in asdict(each).items()}


def _number(value: Any) -> Any:
    """JSON has no number that is none."""
    return None if isinstance(value, float) and value != value else value
