"""What a candidate is judged by, and what becomes of it."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from mlops_assets.spec.fields import (
    GREATER_IS_BETTER,
    Name,
    Strict,
    Text,
    added_later,
    refuse,
    rule_broken,
)

GateName = Literal[
    "beats_baseline",
    "above_floor",
    "slices",
    "fairness",
    "calibration",
    "coverage",
    "stability",
    "behaviour",
    "within_range",
    "loads_and_predicts",
    "latency_and_size",
]


GATES: tuple[GateName, ...] = get_args(GateName)


class SliceSpec(Strict):
    """Parts of the rows that are judged one by one."""

    feature: Text = Field(description="the feature that tells the parts", examples=["hotel"])
    edges: list[float] = Field(
        default=[],
        description="for numbers: where one part ends and the next begins (a value equal to an "
        "edge is in the upper part); default: every value is a part",
        examples=[[7, 30, 90]],
    )

    @field_validator("edges")
    @classmethod
    def _ascending(cls, value: list[float]) -> list[float]:
        if value != sorted(set(value)):
            raise ValueError(f"{value} are not ascending")
        return value


class EvaluationSpec(Strict):
    """How a candidate is judged on the holdout."""

    calendar: ClassVar[bool] = True
    """Whether blocks are of calendar days; else of days that have rows."""

    draw_by: Literal["auto", "time", "entity", "both"] = added_later(
        "auto",
        description="what the bootstrap draws. time: blocks of days; entity: entities, each with "
        "all its rows; both: a row counts by its entity and by its day; auto: by time, and where "
        "event times are far apart both, or by entity if they are too few",
        examples=["entity"],
    )
    block_days: int = Field(
        default=7,
        ge=1,
        le=366,
        description="calendar days that are drawn together in the bootstrap, because errors of "
        "neighbouring days are alike; where event times are farther apart and labels overlap "
        "all the same, as many as a label takes",
        examples=[7],
    )
    draws: int = Field(
        default=1000, ge=200, le=20000, description="of the bootstrap", examples=[1000]
    )
    confidence: float = Field(
        default=0.9,
        ge=0.5,
        lt=1.0,
        description="of the intervals around metrics; 0.9: 5 % on either side",
        examples=[0.9],
    )
    slices: list[SliceSpec] = Field(
        default=[],
        description="parts of the rows in which no candidate may be worse than the champion",
        examples=[[{"feature": "hotel"}]],
    )
    worst_cases: int = Field(
        default=10, ge=0, le=100, description="shown of each evaluation", examples=[10]
    )


class EarlierEvaluationSpec(EvaluationSpec):
    """Of a decision recorded before `draw_by`, when blocks were of days that have rows."""

    calendar: ClassVar[bool] = False


class FairnessSpec(SliceSpec):
    """Groups that must be treated alike."""

    measure: Literal["error", "rate", "calibration"] = Field(
        default="error",
        description="what is compared. error: the metric (for auc the Brier score); rate: the "
        "mean prediction; calibration: the mean prediction less the mean label",
        examples=["calibration"],
    )
    max_difference: float | None = Field(
        default=None,
        gt=0.0,
        description="largest difference between two groups, in the measure's unit; default: none",
        examples=[0.1],
    )
    min_ratio: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="smallest share that one group's measure may be of another's; default: none",
        examples=[0.8],
    )
    min_rows: int = Field(
        default=100, ge=2, description="fewest rows of a group that is judged", examples=[100]
    )

    @model_validator(mode="after")
    def _limit_given(self) -> FairnessSpec:
        if self.max_difference is None and self.min_ratio is None:
            text = "one of `max_difference` and `min_ratio` is needed, or nothing is judged"
            refuse("FairnessSpec", [rule_broken(text, "max_difference")])
        if self.min_ratio is not None and self.measure == "calibration":
            text = "calibration is around 0, where a ratio says nothing; use max_difference"
            refuse("FairnessSpec", [rule_broken(text, "min_ratio")])
        return self


class ChangeSpec(Strict):
    """What happens to a feature in a behavioural test; exactly one of the three."""

    set: bool | int | float | str | None = Field(
        default=None, description="its new value", examples=[0]
    )
    add: float | None = Field(default=None, description="added to a number", examples=[1])
    multiply: float | None = Field(
        default=None, description="multiplied with a number", examples=[2]
    )

    @model_validator(mode="after")
    def _one(self) -> ChangeSpec:
        if sum(each is not None for each in (self.set, self.add, self.multiply)) != 1:
            text = "exactly one of `set`, `add` and `multiply` is needed"
            refuse("ChangeSpec", [rule_broken(text, "set")])
        return self


class BehaviourSpec(Strict):
    """A test of what a model does when features of the holdout rows change."""

    name: Name = Field(description="short name, unique in the product", examples=["guest_count"])
    test: Literal["invariance", "direction", "minimum"] = Field(
        description="invariance: the prediction moves by no more than tolerance; direction: it "
        "moves as expect says; minimum: it is between at_least and at_most",
        examples=["direction"],
    )
    change: dict[Text, ChangeSpec] = Field(
        min_length=1,
        description="feature: what happens to it",
        examples=[{"special_requests": {"add": 1}}],
    )
    expect: Literal["higher", "lower"] | None = Field(
        default=None, description="for direction, and only for it", examples=["lower"]
    )
    tolerance: float = Field(
        default=0.0,
        ge=0.0,
        description="movement that is ignored, in the prediction's unit",
        examples=[0.02],
    )
    at_least: float | None = Field(
        default=None, description="for minimum: smallest prediction; default: none", examples=[0.0]
    )
    at_most: float | None = Field(
        default=None, description="for minimum: largest prediction; default: none", examples=[0.9]
    )
    min_share: float = Field(
        default=0.9,
        gt=0.0,
        le=1.0,
        description="share of the rows that must behave",
        examples=[0.9],
    )

    @model_validator(mode="after")
    def _complete(self) -> BehaviourSpec:
        if (self.test == "direction") != (self.expect is not None):
            text = "`expect` goes with test: direction, and only with it"
            refuse("BehaviourSpec", [rule_broken(text, "expect")])
        bounds = [self.at_least, self.at_most]
        if (self.test == "minimum") != any(bound is not None for bound in bounds):
            text = "`at_least` and `at_most` go with test: minimum, and it needs one of them"
            refuse("BehaviourSpec", [rule_broken(text, "at_least")])
        return self


class GatesSpec(Strict):
    """Limits a candidate must keep to become champion; each is a blocking check."""

    min_improvement: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="by which share the candidate's error must be under the best baseline's "
        "(for auc: by how much above it), for certain: by the lower end of the interval; "
        "0: any improvement",
        examples=[0.02],
    )
    floor: float | None = Field(
        default=None,
        description="absolute limit of the metric: at most for errors, at least for auc; "
        "default: none",
        examples=[30.0],
    )
    slice_margin: float = Field(
        default=0.1,
        ge=0.0,
        description="by which share the error in a slice may be above the champion's (for auc: "
        "by how much under it); without a champion, the best baseline's",
        examples=[0.1],
    )
    min_slice_rows: int = Field(
        default=50, ge=2, description="fewest rows of a slice that is judged", examples=[50]
    )
    min_slice_class_rows: int = Field(
        default=20,
        ge=1,
        description="for auc: fewest rows of either class in a slice that is judged, because "
        "ranks against a handful of rows say little",
        examples=[20],
    )
    fairness: list[FairnessSpec] = Field(
        default=[],
        description="groups that must be treated alike; default: none",
        examples=[[{"feature": "repeated_guest", "measure": "calibration", "max_difference": 0.1}]],
    )
    max_calibration_error: float = Field(
        default=0.1,
        gt=0.0,
        le=1.0,
        description="classification: largest expected calibration error, the mean distance of "
        "predicted and observed share over ten bins of equal size",
        examples=[0.1],
    )
    calibration_margin: float = Field(
        default=0.03,
        ge=0.0,
        le=1.0,
        description="classification: by how much the expected calibration error may be above the "
        "champion's",
        examples=[0.03],
    )
    coverage_tolerance: float = Field(
        default=0.05,
        gt=0.0,
        lt=1.0,
        description="regression: how far the share of labels inside the prediction interval may "
        "be from predictions.interval",
        examples=[0.05],
    )
    min_coverage_rows: int = Field(
        default=200,
        ge=1,
        description="fewest holdout rows for which coverage and calibration are judged",
        examples=[200],
    )
    min_months_better: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="share of the holdout months in which the candidate is better than the best "
        "baseline",
        examples=[0.6],
    )
    behaviour: list[BehaviourSpec] = Field(
        default=[],
        description="behavioural tests; default: none",
        examples=[
            [
                {
                    "name": "more_requests",
                    "test": "direction",
                    "change": {"special_requests": {"add": 1}},
                    "expect": "lower",
                }
            ]
        ],
    )
    max_predict_seconds: float = Field(
        default=1.0,
        gt=0.0,
        description="longest time to load the model and predict 100 rows, in seconds",
        examples=[1.0],
    )
    max_row_milliseconds: float = Field(
        default=200.0,
        gt=0.0,
        description="longest time to predict a single row, in milliseconds",
        examples=[50.0],
    )
    max_megabytes: float = Field(
        default=50.0,
        gt=0.0,
        description="largest size of the model's files, in MB",
        examples=[10.0],
    )
    switched_off: dict[Text, Text] = Field(
        default={},
        description="gates that are switched off, and why; every report and decision says so",
        examples=[{"stability": "less than three months of holdout until March"}],
    )

    @field_validator("switched_off")
    @classmethod
    def _gates_exist(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.keys() - set(GATES):
            raise ValueError(f"there is no gate {name!r}; there are {', '.join(GATES)}")
        return value


REFRESH_MARGIN, REFRESH_MARGIN_AUC = 0.05, 0.01
"""By how much a fresher candidate may be worse: a share of the error, and a difference of auc."""


class DecisionSpec(Strict):
    """When a candidate that passed its gates replaces the champion."""

    level: float = Field(
        default=0.05,
        gt=0.0,
        lt=0.5,
        description="probability with which a candidate no better than the champion may be "
        "promoted",
        examples=[0.05],
    )
    max_false_promotions: float = Field(
        default=1.0,
        gt=0.0,
        description="most false promotions to be expected when every country of the product "
        "decides once; lowers the level where there are many countries",
        examples=[1.0],
    )
    margin: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="by which share the candidate's error must be under the champion's (for auc: "
        "by how much above it)",
        examples=[0.01],
    )
    refresh_after_days: int | None = Field(
        default=7,
        ge=1,
        description="a candidate that learned from rows at least so many days newer is promoted "
        "when it is, for certain, not worse than the champion by more than `refresh_margin`; "
        "null: only better ones are promoted",
        examples=[28],
    )
    refresh_margin: float | None = added_later(
        None,
        gt=0.0,
        lt=1.0,
        description="by which share the error of a fresher candidate may be above the champion's "
        "(for auc: by how much under it); default: the margin, and where that is 0 a twentieth of "
        "the error, for auc 0.01",
        examples=[0.03],
    )
    refresh_level: float = added_later(
        0.2,
        gt=0.0,
        le=0.5,
        description="probability with which a fresher candidate that is worse by `refresh_margin` "
        "may be promoted: newer knowledge speaks for it, and one that turns out worse is rolled "
        "back",
        examples=[0.1],
    )
    approval: bool = Field(
        default=False,
        description="whether a promotion waits until a person approves it",
        examples=[True],
    )

    before_refresh_margin: ClassVar[bool] = False

    def fresher_may_be_worse_by(self, metric: str) -> float:
        """Of a candidate that knows more days: a share of the error, for auc a difference."""
        usual = REFRESH_MARGIN_AUC if metric in GREATER_IS_BETTER else REFRESH_MARGIN
        return self.refresh_margin or self.margin or usual


class EarlierDecisionSpec(DecisionSpec):
    """Of a decision recorded before `refresh_margin`, when a fresher candidate was judged as any.

    By the margin, at the level that is lowered where many countries decide; and whoever followed a
    champion had to beat the baseline for certain even where the champion did not.
    """

    before_refresh_margin: ClassVar[bool] = True

    def fresher_may_be_worse_by(self, metric: str) -> float:
        """The margin, whatever the metric."""
        return self.margin


class PredictionsSpec(Strict):
    """What a valid prediction is."""

    minimum: float = Field(
        description="smallest valid prediction, in the target's unit (classification: at least 0)",
        examples=[-500.0],
    )
    maximum: float = Field(
        description="largest valid prediction, in the target's unit (classification: at most 1)",
        examples=[4000.0],
    )
    interval: float = Field(
        default=0.8,
        gt=0.0,
        lt=1.0,
        description="nominal coverage of the prediction interval, a share between 0 and 1",
        examples=[0.8],
    )

    interval_window: int = Field(
        default=250,
        ge=20,
        le=100000,
        description="newest rows with a known label whose errors make the interval",
        examples=[250],
    )
    beyond: Literal["refuse", "clip", "leave_out", "baseline"] = added_later(
        "refuse",
        description="what becomes of a prediction beyond minimum or maximum, or with no number. "
        "clip: it is the limit (no number: left out); leave_out: the row has no prediction; "
        "baseline: the baseline answers the row; refuse: all predictions of the model are refused. "
        "Rows whose label is due already are left out under refuse, and refuse nothing",
        examples=["clip"],
    )
    beyond_share: float = added_later(
        0.05,
        ge=0.0,
        le=1.0,
        description="largest share of the rows that wait for their label of which this is taken, "
        "above 0 at least one row; beyond it all predictions of the model are refused. A candidate "
        "is held to the same, and on its holdout where `beyond` is refuse as well",
        examples=[0.05],
    )
    if_refused: Literal["previous", "baseline", "keep"] = added_later(
        "previous",
        description="who predicts when the predictions of the model in use are refused. previous: "
        "the version in use before, or else the baseline; baseline: the baseline; keep: nobody, "
        "the last good predictions stay",
        examples=["baseline"],
    )

    @model_validator(mode="after")
    def _order(self) -> PredictionsSpec:
        if self.minimum >= self.maximum:
            text = f"minimum {self.minimum} is not below maximum {self.maximum}"
            refuse("PredictionsSpec", [rule_broken(text, "minimum", found=self.minimum)])
        return self


class RetentionSpec(Strict):
    """How long old snapshots are kept that nothing else needs."""

    as_of_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="days back for which every snapshot is kept, so that any moment since then "
        "can be looked at",
        examples=[90],
    )
