"""A product's whole chain from a delivery to judged predictions, in memory."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import mlops_assets.defs
from mlops_assets.components.loading import load_product
from mlops_assets.ml.datasets.validation import Validation, validate
from mlops_assets.ml.features.calendar import Calendar, calendar_of
from mlops_assets.ml.features.feature_frame import build_features
from mlops_assets.ml.features.shared_features import build_shared
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import Split
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    country_split,
    selected_predictions,
    train_candidates,
    train_pooled,
)
from mlops_assets.spec import ProductSpec

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {
    "power_price": "european_wholesale_electricity_price_daily.parquet",
    "booking_cancellation": "hotel_bookings.parquet",
}

needs_real_data = pytest.mark.skipif(
    not DATA.exists() and os.environ.get("CI") != "true",
    reason=f"the real files are not in {DATA}",
)


figures = pytest.mark.nightly
"""How good the product's models are on the real files: trains those of every country. That they are
judged, and what is done with a bad one, is tested on every change with what is generated."""


@dataclass(frozen=True)
class World:
    """Everything about one product and one delivery."""

    spec: ProductSpec
    raw: pd.DataFrame
    validations: Mapping[str, Validation]
    shared: pd.DataFrame | None
    frames: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Trained:
    """Models of all countries and what they predict for their holdouts."""

    pooled: Mapping[str, PooledModel]
    parts: Mapping[str, Split]
    selections: Mapping[str, Selection]
    judged: pd.DataFrame
    """Holdout rows of all countries with `served` and `pooled` predictions."""


def sql(rows: pd.DataFrame, query: str) -> pd.DataFrame:
    """A query over `rows` by DuckDB: the independent route of the numbers."""
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        return connection.execute(query).df()


def module(product: str, name: str) -> Any:
    return importlib.import_module(f"mlops_assets.defs.{product}.{name}")


def spec_of(product: str) -> ProductSpec:
    return load_product(Path(mlops_assets.defs.__path__[0]) / product).spec


def real(product: str) -> pd.DataFrame:
    return pd.read_parquet(DATA / FILES[product])


def build(
    product: str,
    published: pd.DataFrame,
    countries: Sequence[str] | None = None,
    as_of: dt.datetime | None = None,
) -> World:
    """Validate and build features of some countries; default: all that are listed.

    With cut-offs, as they are reached at a time.
    """
    spec = spec_of(product)
    schema = getattr(module(product, "contract"), spec.contract.schema_class.split(".")[1])
    raw = published.assign(
        _source_file=f"{product}.parquet",
        _source_hash="00",
        _source_line=np.arange(1, len(published) + 1),
        _ingested_at=pd.Timestamp("2026-05-01", tz="UTC"),
    )
    country = raw[spec.source.columns[spec.source.country]].replace(spec.aliases)
    validations = {
        c: validate(raw[country == c], schema, spec.source, spec.country_names)
        for c in countries or spec.countries
    }
    records = {c: v.accepted for c, v in validations.items()}
    calendar = calendar_of(spec.cutoffs, as_of)
    return World(spec, raw, validations, *_features(product, spec, records, calendar))


def of_few_trees(world: World) -> World:
    """The same with models of a few trees: who learned what does not hang on how well."""
    few = [
        one.model_copy(update={"params": {**one.params, "max_iter": 5}})
        for one in world.spec.candidates
    ]
    evaluation = world.spec.evaluation.model_copy(update={"draws": 100})
    changed = {"candidates": few, "evaluation": evaluation}
    return replace(world, spec=world.spec.model_copy(update=changed))


def _features(
    product: str,
    spec: ProductSpec,
    records: Mapping[str, pd.DataFrame],
    calendar: Calendar | None,
) -> tuple[pd.DataFrame | None, Mapping[str, pd.DataFrame]]:
    """Shared features, for a product that has them, and those of each country."""
    made = module(product, "features")
    shared = build_shared(records, made.shared, calendar) if spec.shared_features else None
    frames = {
        c: build_features(r, made.build, spec.target, shared, calendar=calendar)
        for c, r in records.items()
    }
    return shared, frames


def train(world: World, countries: Sequence[str] | None = None) -> Trained:
    """Train some countries together; default: all there are."""
    spec = world.spec
    frames = {c: world.frames[c] for c in countries or world.frames}
    pooled = train_pooled(spec, frames, clock=time.monotonic)
    known = [model.known_until for model in pooled.values()]
    parts = {c: country_split(f, spec.for_country(c), known) for c, f in frames.items()}
    selections = {
        c: train_candidates(spec.for_country(c), parts[c], pooled, country=c, clock=time.monotonic)
        for c in parts
    }
    judged = [
        part.holdout.assign(
            country=country,
            served=selected_predictions(selections[country], spec, part.holdout, part.final),
            pooled=predict(pooled["gbm"].final, part.holdout, spec.task),
        )
        for country, part in parts.items()
        if len(part.holdout)
    ]
    return Trained(pooled, parts, selections, pd.concat(judged, ignore_index=True))
