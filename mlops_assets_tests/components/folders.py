"""A right product folder, and the ways to spoil it."""

from __future__ import annotations

from pathlib import Path

YAML = """\
type: mlops_assets.components.ModelProduct
attributes:
  description: Price of tomorrow for the desk
  owners:
    - team:energy
    - someone@example.org
  countries:
    - DEU
    - FRA
    - CHN
    - "NO"
  aliases:
    CN: CHN
  source:
    kind: files
    columns:
      country: ISO3 Code
      date: Date
      price: Price (EUR/MWhe)
    country: country
    key: [country, date]
    event_time: date
    known_later: []
  contract:
    schema_class: contract.Price
    max_rejected_share: 0.1
  features: features.build
  task: regression
  target:
    description: price of tomorrow
    unit: EUR/MWh
    matures_after: 1d
  metric: mae
  split:
    train_from: 2019-01-01
    holdout_from: "2025-01-01"
    validation_days: 90
    min_train_rows: 500
  baselines:
    - name: same_as_today
      rule: feature
      feature: price_lag_0
    - name: average
      rule: mean
  candidates:
    - name: gbm
      estimator: sklearn.ensemble.HistGradientBoostingRegressor
      params: {max_iter: 200, learning_rate: 0.1, early_stopping: false, random_state: null}
      scopes: [local, pooled]
      offset: price_lag_0
    - name: ridge
      estimator: sklearn.linear_model.Ridge
  gates:
    min_improvement: 0.02
    floor: 30
    max_predict_seconds: 1.0
  predictions:
    minimum: -500
    maximum: 4000
    interval: 0.8
  seed: 7
  retrain_cron: 0 4 * * 1
  sample: sample.generate
  overrides:
    FRA:
      split:
        min_train_rows: 200
      metric: rmse
"""

CONTRACT = '''\
import pandera.pandas as pa


class Price(pa.DataFrameModel):
    """A price."""

    country: str
    date: pa.DateTime
    price: float
'''

FEATURES = '''\
import pandas as pd


def build(validated: pd.DataFrame) -> pd.DataFrame:
    """No features."""
    return validated
'''

SAMPLE = '''\
import pandas as pd


def generate(countries: list[str], seed: int = 0) -> pd.DataFrame:
    """No rows."""
    return pd.DataFrame()
'''


def write(folder: Path, yaml: str | bytes = YAML) -> Path:
    """A product folder with this `defs.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = yaml if isinstance(yaml, bytes) else yaml.encode()
    (folder / "defs.yaml").write_bytes(content)
    (folder / "contract.py").write_text(CONTRACT)
    (folder / "features.py").write_text(FEATURES)
    (folder / "sample.py").write_text(SAMPLE)
    return folder


def spoiled(old: str, new: str) -> str:
    """The right YAML with one place changed."""
    assert YAML.count(old) == 1, f"{old!r} stands {YAML.count(old)} times in the right YAML"
    return YAML.replace(old, new)


def line_of(text: str, content: str) -> int:
    """Line, from 1, in which the only occurrence of `text` starts."""
    assert content.count(text) == 1, f"{text!r} stands {content.count(text)} times"
    start = content.index(text)
    return content[: start + len(text) - len(text.lstrip())].count("\n") + 1
