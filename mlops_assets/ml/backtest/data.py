"""The past of a product's countries, as it was known at any moment.

Features are proven to be computed from what was known at their event time, so a moment is: rows
with an event up to it, and of these the labels known by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.split import Split
from mlops_assets.ml.training.selection import PooledModel, country_split, pooled_names
from mlops_assets.spec import BaselineSpec, ProductSpec


@dataclass(frozen=True)
class BacktestData:
    """Features of every country up to the end of a backtest.

    Args:
        spec: the whole product, its split relative to what is known.
        specs: the product as it is for each country with features.
        frames: features by country, by event time; nothing after `end`.
        countries: those that are backtested; the others only take part in pooled models.
        end: no event, and no label known, after it.
    """

    spec: ProductSpec
    specs: Mapping[str, ProductSpec]
    frames: Mapping[str, pd.DataFrame]
    countries: tuple[str, ...]
    end: pd.Timestamp

    def first_after(self, country: str, moment: pd.Timestamp) -> int:
        """Place of the first row of a country with an event after a moment."""
        events = self.frames[country]["event_time"].to_numpy()
        return int(np.searchsorted(events, moment.to_datetime64(), side="right"))

    def known(self, country: str, moment: pd.Timestamp) -> pd.DataFrame:
        """The country's rows as they were known at a moment."""
        return known_at(self.frames[country].iloc[: self.first_after(country, moment)], moment)

    def after(self, country: str, moment: pd.Timestamp) -> pd.DataFrame:
        """The country's rows with an event after a moment; to predict, never to learn from."""
        return self.frames[country].iloc[self.first_after(country, moment) :]

    def parts(
        self, country: str, moment: pd.Timestamp, pooled: Iterable[PooledModel] = ()
    ) -> Split:
        """The country's rows at a moment by their use, with pooled models it can choose."""
        rows, spec = self.known(country, moment), self.specs[country]
        return country_split(rows, spec, (each.known_until for each in pooled))

    def ready(self, country: str, moment: pd.Timestamp) -> bool:
        """Whether the country can be trained and judged: the moment from which it takes part.

        That is with `split.min_holdout_rows` of holdout and `split.min_train_rows` to train on, or,
        where there are pooled candidates, which other countries judge, with any of both.
        """
        if country not in self.frames or not self.first_after(country, moment):
            return False
        rules, parts = self.specs[country].split, self.parts(country, moment)
        if pooled_names(self.spec):
            return bool(len(parts.train) and len(parts.holdout))
        enough = len(parts.train) >= rules.min_train_rows
        return enough and len(parts.holdout) >= rules.min_holdout_rows


def known_at(rows: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """Rows of a features frame that are there at a moment, without labels known later."""
    there = rows[rows["event_time"].to_numpy() <= moment.to_datetime64()]
    return there.assign(label=there["label"].where(there["label_time"] <= moment))


def backtest_data(
    spec: ProductSpec,
    frames: Mapping[str, pd.DataFrame],
    end: pd.Timestamp,
    countries: Sequence[str] = (),
) -> tuple[BacktestData, str]:
    """The past of a product, and what had to be read differently for it; "" for nothing.

    Args:
        spec: the whole product.
        frames: features by country; countries without rows are left out.
        end: of the backtest.
        countries: that are backtested; by default all.

    Raises:
        ConfigurationError: no backtested country has a row.
    """
    newest = [frame.loc[frame["label"].notna(), "label_time"].max() for frame in frames.values()]
    known = [time for time in newest if not pd.isna(time)]
    rolling, note = relative_split(spec, max(known, default=end))
    kept = {
        country: _by_time(frame[frame["event_time"] <= end])
        for country, frame in frames.items()
        if (frame["event_time"] <= end).any()
    }
    backtested = tuple(country for country in countries or spec.countries if country in kept)
    if not backtested:
        raise ConfigurationError(
            f"No country has features of events up to {end:%Y-%m-%d}.",
            stored="Nothing was trained.",
            way_out="Choose later dates, or materialize `features` first.",
        )
    specs = {country: rolling.for_country(country) for country in kept}
    return BacktestData(rolling, specs, kept, backtested, end), note


def relative_split(spec: ProductSpec, newest: pd.Timestamp) -> tuple[ProductSpec, str]:
    """The product with a split that moves with what is known, and what was changed in words.

    A fixed start of the holdout would be after most moments of a backtest. It is read as the
    distance
    it has now to the newest known label; a fixed start of training as its distance to the holdout.

    Args:
        spec: the whole product.
        newest: time of the newest known label of all countries.
    """
    content = spec.model_dump()
    whole, note = _relative(content["split"], newest)
    content["split"] = whole
    for country, own in content["overrides"].items():
        if {"holdout_from", "train_from"} & set(own.get("split", {})):
            changed, _ = _relative(spec.for_country(country).split.model_dump(), newest)
            own["split"] = {name: changed[name] for name in {*own["split"], *_RELATIVE}}
    return (ProductSpec.model_validate(content), note) if note else (spec, "")


_RELATIVE = ("holdout_from", "holdout_days", "train_from", "train_days")


def _relative(rules: Mapping[str, Any], newest: pd.Timestamp) -> tuple[dict[str, Any], str]:
    """A `split` section without dates."""
    changed, told = dict(rules), []
    holdout_from, train_from = rules["holdout_from"], rules["train_from"]
    if holdout_from is None:
        begin = (newest - pd.Timedelta(days=rules["holdout_days"])).date()
    else:
        begin = holdout_from
        days = max((newest.date() - begin).days, 1)
        changed |= {"holdout_from": None, "holdout_days": days}
        told.append(f"holdout_from {begin} is read as holdout_days {days}")
    if train_from is not None:
        days = max((begin - train_from).days, rules["validation_days"] + 1)
        changed |= {"train_from": None, "train_days": days}
        told.append(f"train_from {train_from} is read as train_days {days}")
    return changed, " and ".join(told)


def backtest_moments(
    start: pd.Timestamp, end: pd.Timestamp, step: pd.Timedelta
) -> tuple[pd.Timestamp, ...]:
    """The moments of a backtest: from its start, each a step later, before its end."""
    return tuple(pd.date_range(start, end, freq=step, inclusive="left"))


def naive_predictions(
    past: BacktestData, country: str, baseline: BaselineSpec | None = None
) -> np.ndarray:
    """What a naive rule says of each row of a country at its event, shape (rows,).

    Means are of the labels known by then.

    Args:
        past: of the product.
        country: one with features.
        baseline: the rule; by default the first, which serves where no model can.
    """
    rows, rule = past.frames[country], baseline or past.spec.baselines[0]
    nothing = rows.iloc[:0]
    own = baseline_predictions(rule, nothing, rows)
    return np.where(np.isfinite(own), own, _known_means(rows))


def _known_means(rows: pd.DataFrame) -> np.ndarray:
    """Mean of the labels known at the event of each row; NaN without any."""
    labelled = rows[rows["label"].notna()].sort_values("label_time", kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(labelled["label"].to_numpy(dtype="float64"))])
    known = labelled["label_time"].to_numpy()
    count = np.searchsorted(known, rows["event_time"].to_numpy(), side="right")
    return np.divide(sums[count], count, out=np.full(len(rows), np.nan), where=count > 0)


def true_runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last place of each run of true flags."""
    runs, place = [], 0
    for flag, group in itertools.groupby(flags):
        length = len(list(group))
        if flag:
            runs.append((place, place + length - 1))
        place += length
    return runs


def _by_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("event_time", kind="stable", ignore_index=True)
