"""What is learned, from which rows, by which candidates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mlops_assets.spec.fields import (
    Day,
    Duration,
    ImportPath,
    Name,
    Scope,
    Strict,
    Text,
    added_later,
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


@dataclass(frozen=True)
class SplitDates:
    """Event dates at which the parts of a split begin.

    Attributes:
        train_from: of the rows that are trained on; None: all history.
        validation_from: of the validation window.
        holdout_from: of the holdout.
    """

    train_from: dt.date | None
    validation_from: dt.date
    holdout_from: dt.date


class SplitSpec(Strict):
    """Time-ordered split: train, then validation, then a holdout that no candidate sees."""

    train_from: Day | None = Field(
        default=None,
        description="first event date used for training; default: all history, or `train_days`",
        examples=["2019-01-01"],
    )
    train_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="instead of `train_from`: so many days before the holdout are trained on, "
        "validation included",
        examples=[2190],
    )
    holdout_from: Day | None = Field(
        default=None,
        description="first event date of the holdout; rows whose label matures later than this "
        "are never trained on, unless `refit`; either this or `holdout_days`",
        examples=["2025-01-01"],
    )
    holdout_days: int | None = Field(
        default=None,
        ge=1,
        le=36500,
        description="instead of `holdout_from`: the holdout is the newest so many days of known "
        "labels, and moves with them",
        examples=[365],
    )
    validation_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="days before the holdout used to choose between candidates",
        examples=[90],
    )
    refit: bool = Field(
        default=False,
        description="whether a model, once it is judged on the holdout, is fitted again on all "
        "known labels, the holdout included, and serves like that",
        examples=[True],
    )
    min_train_rows: int = Field(
        default=500,
        ge=1,
        description="fewest rows for a local model; below it the pooled model serves",
        examples=[500],
    )
    min_validation_rows: int = added_later(
        100,
        ge=1,
        description="fewest validation rows by which a country chooses between pooled candidates "
        "on its own; with fewer they are compared on those of all countries of its region, or of "
        "all countries",
        examples=[200],
    )
    min_holdout_rows: int = Field(
        default=30,
        ge=1,
        description="fewest holdout rows to judge a country on its own; with fewer, or where they "
        "cannot tell, a pooled candidate is judged on the holdout of all its countries, and a "
        "local one is not judged",
        examples=[30],
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> SplitSpec:
        problems = []
        if (self.holdout_from is None) == (self.holdout_days is None):
            text = "either `holdout_from` or `holdout_days` is needed"
            problems.append(rule_broken(text, "holdout_from", found=self.holdout_from))
        if self.train_from is not None and self.train_days is not None:
            text = "`train_from` and `train_days` do not go together"
            problems.append(rule_broken(text, "train_days", found=self.train_days))
        refuse("SplitSpec", problems)
        return self

    @model_validator(mode="after")
    def _order(self) -> SplitSpec:
        holdout = self.holdout_from
        if holdout and holdout.toordinal() <= self.validation_days:
            text = f"{self.validation_days} days before {holdout} is before all dates"
            refuse("SplitSpec", [rule_broken(text, "validation_days")])
        if holdout and self.train_from and self.train_from >= self._validation_from(holdout):
            text = (
                f"holdout_from {holdout} less validation_days {self.validation_days} "
                f"leaves no history to train on after train_from {self.train_from}"
            )
            refuse("SplitSpec", [rule_broken(text, "holdout_from")])
        if self.train_days is not None and self.train_days <= self.validation_days:
            text = (
                f"train_days {self.train_days} less validation_days {self.validation_days} "
                "leaves no history to train on"
            )
            refuse("SplitSpec", [rule_broken(text, "train_days")])
        return self

    @property
    def rolling(self) -> bool:
        """Whether the holdout moves with the newest known labels."""
        return self.holdout_from is None

    def dates(self, newest: dt.datetime | None) -> SplitDates | None:
        """When the parts begin; None while no label is known and the split moves with them.

        Args:
            newest: label time of the newest known label; not used by a split of fixed dates.
        """
        holdout = self.holdout_from
        if holdout is None and newest is not None:
            holdout = newest.date() - dt.timedelta(days=self.holdout_days or 0)
        if holdout is None:
            return None
        train = self.train_from
        if self.train_days is not None:
            train = holdout - dt.timedelta(days=self.train_days)
        return SplitDates(train, self._validation_from(holdout), holdout)

    def fixed(self, holdout_from: dt.date) -> SplitSpec:
        """The split as it was on the day its holdout began at this date."""
        return self.model_copy(update={"holdout_from": holdout_from, "holdout_days": None})

    def _validation_from(self, holdout: dt.date) -> dt.date:
        return holdout - dt.timedelta(days=self.validation_days)


ALTERNATIVES: Mapping[str, str] = {
    "holdout_from": "holdout_days",
    "holdout_days": "holdout_from",
    "train_from": "train_days",
    "train_days": "train_from",
}
"""Key of a split: the other one, which a country that changes the key does not take over."""


def changed_split(base: Any, change: Any) -> Any:
    """A split with a country's changes; a date takes the place of a number of days and so on."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    replaced = {ALTERNATIVES[key] for key in change if key in ALTERNATIVES} - change.keys()
    return {**base, **dict.fromkeys(replaced), **change}


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
    estimator: ImportPath = Field(
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
