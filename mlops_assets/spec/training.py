"""What is learned, from which rows, by which candidates."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlops_assets.spec.fields import (
    Day,
    Duration,
    Name,
    Reference,
    Scope,
    Strict,
    Text,
    duration,
    refuse,
    repeats,
    rule_broken,
)


class TargetSpec(Strict):
    """What is predicted and when the truth is known."""

    description: Text = Field(
        description="one sentence: what the label is, with its unit",
        examples=["day-ahead price of the next day, in EUR/MWh"],
    )
    unit: Text = Field(description="unit of label and error", examples=["EUR/MWh"])
    matures_after: Duration = Field(
        description="label maturity: time from the event until the label is known, in hours (h), "
        "days (d) or weeks (w); used for rows to which the feature function gives no label_time",
        examples=["1d"],
    )

    @property
    def maturity(self) -> dt.timedelta:
        """Label maturity as a duration."""
        return duration(self.matures_after)


class SplitSpec(Strict):
    """Time-ordered split: train, then validation, then a holdout that no candidate sees."""

    train_from: Day | None = Field(
        default=None,
        description="first event date used for training; default: all history",
        examples=["2019-01-01"],
    )
    holdout_from: Day = Field(
        description="first event date of the holdout; rows whose label matures later than this "
        "are never trained on",
        examples=["2025-01-01"],
    )
    validation_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="days before the holdout used to choose between candidates",
        examples=[90],
    )
    min_train_rows: int = Field(
        default=500,
        ge=1,
        description="fewest rows for a local model; below it the pooled model serves",
        examples=[500],
    )
    min_holdout_rows: int = Field(
        default=30,
        ge=1,
        description="fewest holdout rows to judge a country on its own; with fewer a pooled "
        "candidate is judged on the holdout of all its countries, and a local one is not judged",
        examples=[30],
    )

    @model_validator(mode="after")
    def _order(self) -> SplitSpec:
        if self.holdout_from.toordinal() <= self.validation_days:
            text = f"{self.validation_days} days before {self.holdout_from} is before all dates"
            refuse("SplitSpec", [rule_broken(text, "validation_days")])
        if self.train_from and self.train_from >= self.validation_from:
            text = (
                f"holdout_from {self.holdout_from} less validation_days {self.validation_days} "
                f"leaves no history to train on after train_from {self.train_from}"
            )
            refuse("SplitSpec", [rule_broken(text, "holdout_from")])
        return self

    @property
    def validation_from(self) -> dt.date:
        """First event date of the validation window."""
        return self.holdout_from - dt.timedelta(days=self.validation_days)


class SpaceSpec(Strict):
    """Where one parameter is searched: between `low` and `high`, or among `choices`."""

    low: int | float | None = Field(
        default=None,
        description="smallest value; whole numbers are searched when both ends are",
        examples=[7],
    )
    high: int | float | None = Field(default=None, description="largest value", examples=[63])
    log: bool = Field(
        default=False,
        description="search the logarithm, for values of several sizes",
        examples=[True],
    )
    choices: list[bool | int | float | str] = Field(
        default=[],
        description="values to choose from, instead of a range",
        examples=[["squared_error", "absolute_error"]],
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> SpaceSpec:
        low, high = self.low, self.high
        if self.choices:
            if len(self.choices) < 2 or low is not None or high is not None:
                text = "`choices` are two values or more, and go without `low` and `high`"
                refuse("SpaceSpec", [rule_broken(text, "choices")])
        elif low is None or high is None:
            refuse("SpaceSpec", [rule_broken("`low` and `high`, or `choices`, are needed", "low")])
        elif low >= high:
            refuse("SpaceSpec", [rule_broken(f"low {low} is not below high {high}", "low")])
        elif self.log and low <= 0:
            refuse("SpaceSpec", [rule_broken(f"log needs a low above 0, not {low}", "low")])
        return self


class TuningSpec(Strict):
    """How much is spent on the search for parameters: the budget that runs out first ends it.

    With trials alone a search gives the same on every machine; with seconds the model version
    records what was found, and is made again from that.
    """

    trials: int = Field(
        default=0,
        ge=0,
        description="parameter sets tried for each local candidate with a `space`; 0: none, "
        "unless `seconds` is given",
        examples=[10],
    )
    seconds: float | None = Field(
        default=None,
        gt=0.0,
        description="longest time of all local searches of a country together; default: no limit",
        examples=[30.0],
    )
    pooled_trials: int = Field(
        default=0,
        ge=0,
        description="as trials, for each pooled and regional candidate",
        examples=[20],
    )
    pooled_seconds: float | None = Field(
        default=None,
        gt=0.0,
        description="as seconds, for all pooled and regional searches together",
        examples=[120.0],
    )
    folds: int = Field(
        default=3,
        ge=1,
        le=20,
        description="time-ordered folds of the training rows; each is judged by a model of the "
        "rows whose label was known before it",
        examples=[3],
    )


class CandidateSpec(Strict):
    """One estimator that may become a country's model."""

    name: Name = Field(description="short name, unique in the product", examples=["gbm"])
    estimator: Reference = Field(
        description="import path of an estimator class: scikit-learn, or LightGBM (its extra)",
        examples=["sklearn.ensemble.HistGradientBoostingRegressor"],
    )
    params: dict[str, bool | int | float | str | None] = Field(
        default={},
        description="its constructor parameters; the search starts at those that are in "
        "`space` too",
        examples=[{"max_iter": 200}],
    )
    scopes: list[Scope] = Field(
        default=["local", "pooled"],
        min_length=1,
        description="local: trained on the country's rows; region: on the countries of its "
        "region; pooled: on all countries together",
        examples=[["local", "pooled"]],
    )
    space: dict[Text, SpaceSpec] = Field(
        default={},
        description="parameters to search within the budget of `tuning`, and where",
        examples=[{"max_leaf_nodes": {"low": 7, "high": 63, "log": True}}],
    )
    offset: Text | None = Field(
        default=None,
        description="regression only: a feature subtracted from the label before fitting and "
        "added to the prediction, so that the model learns the change from it; default: none",
        examples=["price_lag_0"],
    )
    scale: Text | None = Field(
        default=None,
        description="regression only: a feature, always positive, by which the label (less the "
        "offset) is divided before fitting and the prediction multiplied, so that the model "
        "learns in units of it; rows weigh as much as it says; default: none",
        examples=["spread_28"],
    )

    @field_validator("scopes")
    @classmethod
    def _scopes_once(cls, value: list[Scope]) -> list[Scope]:
        for scope in repeats(value):
            raise ValueError(f"{scope} is listed more than once")
        return value


class BaselineSpec(Strict):
    """A naive rule every model must beat."""

    name: Name = Field(
        description="short name, unique among baselines and candidates", examples=["same_as_today"]
    )
    rule: Literal["feature", "mean"] = Field(
        description="feature: the value of a feature; mean: the mean label of the training rows "
        "(for classification the prior)",
        examples=["mean"],
    )
    feature: Text | None = Field(
        default=None,
        description="for rule feature, and only for it: the feature's name",
        examples=["price_lag_0"],
    )

    @model_validator(mode="after")
    def _feature_given(self) -> BaselineSpec:
        if (self.rule == "feature") != (self.feature is not None):
            text = "`feature` goes with rule: feature, and only with it"
            refuse("BaselineSpec", [rule_broken(text, "feature", found=self.feature)])
        return self
