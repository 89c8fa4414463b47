"""From a registered model to predictions of a features frame, and back to how it was judged."""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.evaluation.behaviour import behaved_from_json
from mlops_assets.ml.evaluation.report import Footprint, Report
from mlops_assets.ml.models.fitted_model import FittedModel, Param, predict
from mlops_assets.ml.stats.draws import Drawn
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.ml.training.pooled_scores import PooledScores, merged_scores, scores_from_json
from mlops_assets.ml.training.selection import PooledModel, pooled_names, region_of
from mlops_assets.registry import Aliases, LoggedModel, ModelVersion, Registry
from mlops_assets.registry.models import CHAMPION, DIGEST_TAG, POOLED, PREVIOUS
from mlops_assets.registry.names import registered_name
from mlops_assets.spec import ProductSpec, SplitSpec
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import serving_baseline
from mlops_assets.stages.training.version_identity import require_recorded

VALIDATION_URI = "validation_uri"
VALIDATION_DIGEST = "validation_sha256"
JUDGED_URI = "judged_uri"
JUDGED_DIGEST = "judged_sha256"
_JUDGED_LEARNED = ("train_rows", "until")
EVALUATION_MODEL_TAGS = (JUDGED_URI, JUDGED_DIGEST, *(f"judged_{name}" for name in _JUDGED_LEARNED))
"""Tags of a registered version: the files of its evaluation model, which has not seen the holdout,
and what it had learned."""
KNOWN_UNTIL = "known_until"
"""Tag of a registered version: label time of the newest label that was known at its training."""
HOLDOUT_FROM = "holdout_from"
PARAMS = "params"
"""Tag of a registered version: its estimator's parameters as JSON, the chosen ones included."""
SCORES = "scores"
"""Tag of a registered pooled model: `PooledScores` as JSON; missing in older ones."""
BEHAVED = "behaved"
"""The same: outcome of its behavioural tests on the holdout of all its countries."""
PROMISE_REPORT = "promise_report"
"""Tag of a country's version: report of the pooled model on the holdout of all its countries, which
is what it promises; only where the country's own holdout is too small to promise anything."""
_EXAMPLE_ROWS = 50
_ESTIMATES = ("gain", "champion", "champion_gain", "calibration", "coverage")
"""Fields of a report that are a value with an interval."""


@dataclass(frozen=True)
class Served:
    """Who predicts in a country, and why.

    Attributes:
        kind: local, region, pooled or baseline.
        version: as registered; None for a baseline.
        reason: why this one.
        previous: what was in use before the version; None for nothing.
        baseline: name of the one that predicts; "" where a version does.
    """

    kind: str
    version: ModelVersion | None
    reason: str
    previous: ModelVersion | None = None
    baseline: str = ""

    @property
    def aliases(self) -> Aliases:
        """What the registry names, as far as it serves."""
        return Aliases(
            self.version.version if self.version else "",
            self.previous.version if self.previous else "",
        )


def pooled_key(name: str) -> str:
    """What stands for the country in the registered name of a pooled model."""
    return f"{POOLED}-{name}"


def can_choose(spec: ProductSpec, country: str) -> list[str]:
    """Pooled names a country can choose: those of all countries, and of its region."""
    own = ("", region_of(spec, country))
    return [name for name, (_, region) in pooled_names(spec).items() if region in own]


def pooled_versions(ctx: ProductContext, country: str | None = None) -> dict[str, ModelVersion]:
    """The pooled champions by pooled name; those not trained yet are absent.

    Args:
        ctx: the product.
        country: only those it can choose; None: every one.
    """
    names = pooled_names(ctx.spec) if country is None else can_choose(ctx.spec, country)
    found = {
        name: ctx.registry.by_alias(registered_name(ctx.name, pooled_key(name)), CHAMPION)
        for name in names
    }
    return {name: version for name, version in found.items() if version is not None}


def load_pooled(
    spec: ProductSpec, versions: Mapping[str, ModelVersion], registry: Registry
) -> dict[str, PooledModel]:
    """The pooled champions ready to be compared with a country's own candidates."""
    return {name: _pooled(name, version, spec, registry) for name, version in versions.items()}


def scores_of_newest(ctx: ProductContext) -> PooledScores:
    """Scores of the pooled models of the newest training, in use or not; empty without any."""
    made = ctx.current("pooled_model")
    if made is None:
        return {}
    held = ctx.store.read(made.asset, None, version=made.version)
    return (
        merged_scores(scores_from_json(str(each)) for each in held[SCORES])
        if SCORES in held
        else {}
    )


def _pooled(name: str, version: ModelVersion, spec: ProductSpec, registry: Registry) -> PooledModel:
    served, twin = fitted(name, version, spec, registry), evaluation_model(version)
    return PooledModel(
        candidate=version.tags["candidate"],
        for_validation=fitted(name, _validation_twin(version), spec, registry),
        final=served if twin is version else fitted(name, twin, spec, registry),
        served=served,
        report=report_from_json(version.tags["report"]),
        region=version.tags["region"],
        known_until=tagged_time(version, KNOWN_UNTIL),
        scores=scores_from_json(version.tags.get(SCORES, "")),
        behaved=behaved_from_json(version.tags.get(BEHAVED, "")),
    )


def evaluation_model(version: ModelVersion) -> ModelVersion:
    """The files of a version that were judged on its holdout, which they have not seen.

    The version itself where what was judged serves: without `split.refit`.
    """
    if JUDGED_URI not in version.tags:
        return version
    tags = {**version.tags, DIGEST_TAG: version.tags[JUDGED_DIGEST]}
    for name in _JUDGED_LEARNED:
        tags[name] = version.tags[f"judged_{name}"]
    return replace(version, uri=version.tags[JUDGED_URI], tags=tags)


def evaluation_model_tags(twin: LoggedModel, model: FittedModel) -> dict[str, str]:
    """What a registered version says of its evaluation model; `evaluation_model` reads it."""
    told = model_tags(model, "")
    return {
        JUDGED_URI: twin.uri,
        JUDGED_DIGEST: twin.digest,
        **{f"judged_{name}": told[name] for name in _JUDGED_LEARNED},
    }


def unseen_predictions(
    version: ModelVersion, holdout: pd.DataFrame, spec: ProductSpec, registry: Registry
) -> np.ndarray:
    """What a version predicts as it was judged, shape (rows,); NaN before its own holdout.

    Raises:
        RegistryError: its files are lost or damaged, those that serve or those that were judged.
        TrainingError: it needs features that the rows do not have.
    """
    twin = evaluation_model(version)
    if twin is not version:
        registry.require_intact(version)
    model = fitted(version.name, twin, spec, registry)
    predicted = predict(model, holdout, spec.task)
    began = tagged_time(version, HOLDOUT_FROM)
    if began is None:
        return predicted
    return np.where((holdout["event_time"] < began).to_numpy(), np.nan, predicted)


def evaluation_split(version: ModelVersion, spec: ProductSpec) -> SplitSpec:
    """The split with the very holdout that a version was judged on, wherever it is by now."""
    began = version.tags.get(HOLDOUT_FROM)
    return spec.split.fixed(dt.date.fromisoformat(began)) if began else spec.split


def tagged_time(version: ModelVersion, tag: str) -> pd.Timestamp | None:
    """A time that a version says of itself; None when it does not."""
    return pd.Timestamp(version.tags[tag]) if tag in version.tags else None


def known_to(version: ModelVersion, rows: pd.DataFrame) -> np.ndarray:
    """Whether the truth of a row may have been known when a version was trained, shape (rows,)."""
    until = tagged_time(version, KNOWN_UNTIL)
    if until is None:
        return np.zeros(len(rows), dtype=bool)
    return (rows["label_time"] <= until).to_numpy()


def fitted(name: str, version: ModelVersion, spec: ProductSpec, registry: Registry) -> FittedModel:
    """A registered version as the pure functions take it."""
    loaded, tags = registry.load(version), version.tags
    return FittedModel(
        name=name,
        estimator=loaded.estimator,
        features=loaded.features,
        task=spec.task,
        rows=int(tags["train_rows"]),
        params=params_of(version),
        until=tagged_time(version, "until"),
    )


def model_tags(model: FittedModel, candidate: str, region: str = "") -> dict[str, str]:
    """What a registered version says of the model itself; `fitted` reads it."""
    until = {"until": model.until.isoformat()} if model.until is not None else {}
    return {
        "candidate": candidate,
        "region": region,
        "train_rows": str(model.rows),
        PARAMS: json.dumps(dict(model.params)),
        **until,
    }


def params_of(version: ModelVersion) -> dict[str, Param]:
    """The parameters a registered model was made with; empty where the tag that says them is lost.

    Raises:
        RegistryError: the tag is not what was written.
    """
    try:
        return dict(json.loads(version.tags.get(PARAMS, "{}")))
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"The tag {PARAMS} of {version.name} version {version.version} is damaged: {error}.",
            stored="Nothing was written; the model itself is untouched.",
            way_out=f"Put it back from the parameters of MLflow run {version.run_id}.",
            culprits={"model": version.name, "version": version.version},
        ) from error


def who_serves(ctx: CountryContext) -> Served:
    """The champion of the country; the baseline when none was ever promoted.

    Raises:
        RegistryError: the registry's champion has the number of the recorded one, and is another.
    """
    version = ctx.registry.champion(ctx.product.name, ctx.country)
    if version is not None:
        require_recorded(ctx, version)
        before = ctx.registry.by_alias(version.name, PREVIOUS)
        return Served(version.kind, version, version.tags.get("reason", ""), before)
    decisions = ctx.store.read_log(ctx.path("decisions"), ctx.country)
    naive = serving_baseline(ctx)
    why = f"; baseline {naive.name}: {naive.reason}" if naive.reason else ""
    reason = (
        "no model was trained in this country yet"
        if decisions.empty
        else str(decisions["reason"].iloc[-1])
    )
    return Served("baseline", None, f"{reason}{why}", baseline=naive.name)


def model_example(model: FittedModel, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows and their predictions for a model's signature: numbers as float64, the rest as text.

    Whole numbers become float64 because a later row may lack the value.
    """
    inputs = rows[list(model.features)].head(_EXAMPLE_ROWS)
    numeric = {name: pd.api.types.is_numeric_dtype(kind) for name, kind in inputs.dtypes.items()}
    typed = {
        name: inputs[name].astype("float64") if is_number else inputs[name].astype(str)
        for name, is_number in numeric.items()
    }
    return pd.DataFrame(typed), predict(model, inputs, model.task)


def logged(version: ModelVersion) -> LoggedModel:
    """The stored files of a version, to register them for a country without a copy."""
    return LoggedModel(uri=version.uri, digest=version.tags[DIGEST_TAG])


def report_to_json(report: Report) -> str:
    """The numbers of a report without its tables; a few kilobytes, which a tag can hold."""
    held = {
        "rows": report.rows,
        "first": str(report.first),
        "last": str(report.last),
        "metric": report.metric,
        "value": _number(report.value),
        "metrics": {name: _number(value) for name, value in report.metrics.items()},
        "baselines": {name: _number(value) for name, value in report.baselines.items()},
        "best_baseline": report.best_baseline,
        "estimates": {name: _ends(each) for name, each in report.estimates.items()},
        "calibration_error": _number(report.calibration_error),
        "footprint": None if report.footprint is None else asdict(report.footprint),
        "interval_problem": report.interval_problem,
        "drawn": None if report.drawn is None else asdict(report.drawn),
        "baselines_by_country": report.baselines_by_country,
    }
    return json.dumps(held | {name: _ends(getattr(report, name)) for name in _ESTIMATES})


def report_from_json(text: str) -> Report:
    """The report `report_to_json` wrote, its tables empty."""
    held = json.loads(text)
    told: dict[str, Any] = {name: _estimate(held[name]) for name in _ESTIMATES}
    footprint, drawn = held["footprint"], held.get("drawn")  # not told by older ones
    return Report(
        rows=held["rows"],
        first=_time(held["first"]),
        last=_time(held["last"]),
        metric=held["metric"],
        value=_float(held["value"]),
        metrics={name: _float(value) for name, value in held["metrics"].items()},
        baselines={name: _float(value) for name, value in held["baselines"].items()},
        best_baseline=held["best_baseline"],
        by_month=pd.DataFrame(),
        reliability=None,
        estimates={name: _estimate(each) for name, each in held["estimates"].items()},
        calibration_error=_float(held["calibration_error"]),
        footprint=None if footprint is None else Footprint(**footprint),
        interval_problem=held["interval_problem"],
        drawn=None if drawn is None else Drawn(**drawn),
        baselines_by_country=held.get("baselines_by_country", False),
        **told,
    )


def report_numbers(report: Report) -> dict[str, Any]:
    """What the tables show of a report."""
    return {
        "holdout_rows": report.rows,
        "metric": report.metric,
        "value": report.value,
        "baseline": report.best_baseline,
        "baseline_value": report.baseline_value,
        "improvement": report.improvement,
    }


def _validation_twin(version: ModelVersion) -> ModelVersion:
    tags = {**version.tags, DIGEST_TAG: version.tags[VALIDATION_DIGEST]}
    return replace(version, uri=version.tags[VALIDATION_URI], tags=tags)


def _ends(estimate: Estimate) -> list[float | None]:
    return [_number(each) for each in (estimate.value, estimate.lower, estimate.upper)]


def _estimate(ends: list[float | None]) -> Estimate:
    return Estimate(*(_float(each) for each in ends))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def _time(value: Any) -> pd.Timestamp | None:
    return None if value in (None, "None", "NaT") else pd.Timestamp(value)
