"""Named small worlds for the tests of the pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlops_assets.spec import CandidateSpec, CountryNames, ProductSpec, SourceSpec

SOURCE = SourceSpec(
    columns={"country": "Land", "date": "Day", "price": "Price", "units": "Units", "kind": "Kind"},
    country="country",
    key=["country", "date"],
    event_time="date",
)

NAMES = CountryNames(("DEU", "FRA"))


class Prices(pa.DataFrameModel):
    country: str = pa.Field(str_length=3, description="code")
    date: pd.Timestamp = pa.Field(ge=pd.Timestamp("2000-01-01"))
    price: float = pa.Field(in_range={"min_value": -1000, "max_value": 5000})
    units: int = pa.Field(ge=0)
    kind: str = pa.Field(nullable=True, isin=["base", "peak"])

    @pa.dataframe_check
    def cheap_when_none(cls, frame: pd.DataFrame) -> pd.Series:
        return (frame["units"] > 0) | (frame["price"].fillna(0) <= 1000)


def raw(days: int = 5, country: str = "DEU") -> pd.DataFrame:
    """Good records, one a day."""
    return pd.DataFrame(
        {
            "Land": country,
            "Day": pd.date_range("2024-01-01", periods=days).strftime("%Y-%m-%d"),
            "Price": np.arange(days) + 0.5,
            "Units": np.arange(days) + 1,
            "Kind": "base",
            "Remark": "not in the contract",
            "_source_file": "a.csv",
            "_source_hash": "00",
            "_source_line": np.arange(1, days + 1),
            "_ingested_at": pd.Timestamp("2024-02-01", tz="UTC"),
        }
    )


def regression_rows(rows: int = 400, seed: int = 0, start: str = "2023-01-01") -> pd.DataFrame:
    """A features frame whose label follows `x` and `kind`; one row a day."""
    rng = np.random.default_rng(seed)
    event = pd.date_range(start, periods=rows)
    x = rng.normal(size=rows)
    kind = rng.choice(["a", "b", "c"], rows).astype("object")
    kind[:: max(rows // 10, 1)] = None
    label = 3 * x + np.where(kind == "b", 2.0, 0.0) + rng.normal(0, 0.1, rows)
    return pd.DataFrame(
        {
            "entity": "DEU",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": label,
            "x": x,
            "level": x + rng.normal(0, 1, rows),
            "flag": rng.random(rows) < 0.5,
            "kind": kind,
        }
    )


def classification_rows(rows: int = 400, seed: int = 0, start: str = "2023-01-01") -> pd.DataFrame:
    """Like `regression_rows`, with labels 0 and 1."""
    frame = regression_rows(rows, seed, start)
    return frame.assign(label=(frame["label"] > 0).astype("float64"))


def product(**changes: Any) -> ProductSpec:
    """A valid regression product; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "description": "test",
        "owners": ["team:test"],
        "countries": ["DEU", "FRA", "LUX"],
        "source": SOURCE.model_dump(),
        "contract": {"schema_class": "contract.Prices"},
        "features": "features.build",
        "task": "regression",
        "target": {"description": "d", "unit": "EUR", "matures_after": "1d"},
        "metric": "mae",
        "split": {
            "holdout_from": "2023-12-01",
            "validation_days": 60,
            "min_train_rows": 100,
            "min_holdout_rows": 20,
        },
        "baselines": [
            {"name": "level", "rule": "feature", "feature": "level"},
            {"name": "mean", "rule": "mean"},
        ],
        "candidates": [GBM.model_dump(), RIDGE.model_dump()],
        "predictions": {"minimum": -100.0, "maximum": 100.0},
        "seed": 3,
        **changes,
    }
    return ProductSpec.model_validate(sections)


def classifier(**changes: Any) -> ProductSpec:
    """A valid classification product."""
    return product(
        **{
            "task": "classification",
            "metric": "auc",
            "baselines": [{"name": "prior", "rule": "mean"}],
            "candidates": [CLASSIFIER.model_dump()],
            "predictions": {"minimum": 0.0, "maximum": 1.0},
            **changes,
        }
    )


GBM = CandidateSpec(
    name="gbm",
    estimator="sklearn.ensemble.HistGradientBoostingRegressor",
    params={"max_iter": 40},
)
RIDGE = CandidateSpec(name="ridge", estimator="sklearn.linear_model.Ridge", scopes=["local"])
CLASSIFIER = CandidateSpec(
    name="gbm",
    estimator="sklearn.ensemble.HistGradientBoostingClassifier",
    params={"max_iter": 40},
)
