"""What is said of a reproduction: its verdict, the reason, and both for people and programs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mlops_assets.ml.promotion.reproduction import (
    Change,
    ColumnGap,
    FeaturesGap,
    PredictionGap,
    reasons,
)

ReproductionVerdict = Literal["identical", "differs", "cannot be judged"]
_METRIC_TOLERANCE = 1e-9
_COLUMNS_NAMED = 5


@dataclass(frozen=True)
class FeaturesAgain:
    """The features made again from the recorded validated rows with the function of today.

    Attributes:
        gap: to the recorded features; None when they could not be made.
        problem: why not; "" when they could.
        broken: the function of today fails on the rows of then.
    """

    gap: FeaturesGap | None
    problem: str = ""
    broken: bool = False

    @property
    def differ(self) -> bool:
        """Whether today's function would not give these features."""
        return self.broken or (self.gap is not None and not self.gap.identical)


@dataclass(frozen=True)
class Reproduction:
    """What became of making a registered model again.

    Attributes:
        product: name of the product.
        country: the partition.
        version: of the country's registered model.
        kind: local or pooled.
        candidate: its name in the config.
        in_use: whether it is the country's champion.
        verdict: identical when predictions, metric and features are what they were.
        reason: what differs, by how much and why; or why it cannot be judged; "" if identical.
        predictions: registered against rebuilt model on the holdout.
        unit: of the predictions.
        metric: what the product compares by.
        recorded_value: of the metric on the holdout, when the model was trained.
        value: of the metric on the same rows today, by the registered model as it was judged.
        features: made again with today's function.
        changes: what is not as it was at training, whether or not it matters.
        config_changed: sections of the YAML that are not as they were; the recorded ones are used.
        snapshot: version of the country's features.
        mlflow_run: id of the training run.
    """

    product: str
    country: str
    version: str
    kind: str
    candidate: str
    in_use: bool
    verdict: ReproductionVerdict
    reason: str
    predictions: PredictionGap
    unit: str
    metric: str
    recorded_value: float
    value: float
    features: FeaturesAgain
    changes: tuple[Change, ...]
    config_changed: tuple[str, ...]
    snapshot: str
    mlflow_run: str


def judged(found: Reproduction) -> Reproduction:
    """The same with its verdict, and the reason where that is not `identical`."""
    problems = list(_problems(found))
    if problems:
        return replace(found, verdict="differs", reason="; ".join(problems))
    return replace(found, verdict="identical", reason="") if found.predictions.rows else found


def _problems(found: Reproduction) -> Iterator[str]:
    of_model = reasons(found.changes, without="product code")
    if not found.predictions.identical:
        yield f"predictions differ {_by(found)}, because {of_model}"
    if not _same_metric(found):
        yield (
            f"the registered model has {found.metric} {found.value:.6g} on its holdout today and "
            f"had {found.recorded_value:.6g}, because {of_model}"
        )
    if found.features.differ:
        yield f"features differ ({features_text(found.features)}), because {reasons(found.changes)}"


def _same_metric(found: Reproduction) -> bool:
    if math.isnan(found.value) or math.isnan(found.recorded_value):
        return math.isnan(found.value) and math.isnan(found.recorded_value)
    return math.isclose(found.value, found.recorded_value, rel_tol=_METRIC_TOLERANCE)


def _by(found: Reproduction) -> str:
    gap = found.predictions
    return (
        f"in {gap.differing:,} of {gap.rows:,} holdout rows ({gap.share:.1%}) by up to "
        f"{gap.largest:.3g} {found.unit}, {gap.mean:.3g} on average"
    )


def features_text(again: FeaturesAgain) -> str:
    """How the features came out, in half a line."""
    if again.gap is None:
        return again.problem
    gap = again.gap
    if gap.identical:
        return f"identical, {gap.rows:,} rows"
    rows = {"rows gone": gap.gone, "rows new": gap.new}
    more = len(gap.columns) - _COLUMNS_NAMED
    return ", ".join(
        [
            *(_column(each, gap) for each in gap.columns[:_COLUMNS_NAMED]),
            *([f"{more} more columns"] if more > 0 else []),
            *(f"{count:,} {name}" for name, count in rows.items() if count),
        ]
    )


def _column(each: ColumnGap, gap: FeaturesGap) -> str:
    if each.what == "values":
        return f"{each.name} in {each.values:,} of {gap.rows:,} rows"
    said = {"type": "has another type", "gone": "is gone", "new": "is new"}
    return f"{each.name} {said[each.what]}"


def describe_reproduction(result: Reproduction) -> list[str]:
    """What a person reads, a line a fact."""
    use = "in use" if result.in_use else "not in use"
    return [
        f"{result.product} {result.country} version {result.version} ({result.kind} "
        f"{result.candidate}, {use}): {result.verdict}",
        *([f"why: {result.reason}"] if result.reason else []),
        f"predictions: {_predictions(result)}",
        f"{result.metric} on the holdout: {_metric(result)}",
        f"features made again from validated: {features_text(result.features)}",
        "changed since training: "
        + ("; ".join(change.text for change in result.changes) or "nothing recorded"),
        f"config: {_config(result)}",
        f"recorded in: MLflow run {result.mlflow_run}, features {result.snapshot}",
    ]


def _predictions(result: Reproduction) -> str:
    if not result.predictions.rows:
        return "the recorded holdout has no rows"
    if result.predictions.identical:
        return f"the same bits on {result.predictions.rows:,} holdout rows"
    return f"differ {_by(result)}"


def _metric(result: Reproduction) -> str:
    if _same_metric(result):
        return f"{result.value:.6g}, as recorded"
    return f"{result.value:.6g}, recorded was {result.recorded_value:.6g}"


def _config(result: Reproduction) -> str:
    if not result.config_changed:
        return "as recorded"
    return (
        f"the recorded one was used; the YAML changed since in {', '.join(result.config_changed)}"
    )


def as_dict(result: Reproduction) -> dict[str, Any]:
    """The same for programs: plain JSON, with null for what is no finite number."""
    return _plain(asdict(result))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
