"""Performance: what predictions turned out to be worth, beside what the champion promised."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.ml.monitoring.beside_baseline import against_baseline, serving_naive
from mlops_assets.ml.monitoring.performance import (
    Promise,
    Realised,
    against_previous,
    by_period,
    by_slice,
    describe_promise,
    no_performance,
    promise_of,
    realised,
    record_predictions,
)
from mlops_assets.ml.monitoring.performance_plot import realised_plot
from mlops_assets.ml.reports.tables import format_estimate, metric_unit
from mlops_assets.ml.stats.metrics import Estimate, format_gain
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    Storage,
    asset_key,
    country_check,
    country_step,
    naive,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.lineage import named_input, of_performance, serving_baseline
from mlops_assets.stages.common.ui_metadata import (
    as_before,
    facts_metadata,
    preview,
    schema,
    svg_metadata,
    table_metadata,
)
from mlops_assets.stages.training.serving import (
    PROMISE_REPORT,
    Served,
    report_from_json,
    who_serves,
)
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets.storage.io_manager import METADATA_PREFIX, Unchanged

PERFORMANCE_CHECK = "realised_error"
REALISED = f"{METADATA_PREFIX}realised"
"""In a snapshot's metadata: `Realised` as JSON, an estimate as value, lower and upper end."""
ON_PREVIOUS = f"{METADATA_PREFIX}on_previous"
"""The same: gain of the champion on the model before it, as value, lower and upper end."""
ON_BASELINE = f"{METADATA_PREFIX}on_baseline"
"""The same: gain of the champion on the baseline that would serve in its place."""
RECORDED = f"{METADATA_PREFIX}recorded"
"""The same: version of the newest predictions snapshot whose predictions are in the table."""
_CHECK_DESCRIPTION = (
    "The realised error of the champion on the newest matured labels is not significantly worse "
    "than what "
    "it was promoted for, beyond monitoring.tolerance. Too few labels, or a baseline in use: not "
    "judged, and passed."
)
_GRAIN = (
    "One row is a prediction that counts, for an entity of the country at an event time: the last "
    "one made before its label was known, else the first made after by a model that did not learn "
    "from it; with the label once it has matured, and as it was then. Rows stay for ever."
)
_PAGE_ROWS = 15
_ESTIMATES = ("value", "expected", "compared")
_TIMES = ("first", "last")


def build_performance(product: Product) -> list[dg.AssetsDefinition]:
    """`performance` of a product with its check against the promise."""
    key = asset_key(product, "performance")

    @dg.multi_asset(
        **country_step(product, "performance"),
        deps=[asset_key(product, name) for name in ("predictions", "features", "champion")],
        outs={
            "performance": output(
                product,
                "performance",
                "monitoring",
                {"parquet"},
                description=_GRAIN,
                columns=_columns(product),
            )
        },
        check_specs=[country_check(product, "performance", PERFORMANCE_CHECK, _CHECK_DESCRIPTION)],
    )
    def performance(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        ctx = storage.product(product, mlflow.registry()).country(context.partition_key)
        served, store = who_serves(ctx), ctx.store
        lineage, made = of_performance(ctx, served.aliases), ctx.current("performance")
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), "performance", metadata=as_before(context, key))
            yield _check(key, realised_of(made))
            return
        spec = ctx.spec
        source, newest = (named_input(ctx, lineage, name) for name in ("features", "predictions"))
        features = store.read(source.asset, ctx.country, version=source.version)
        rows = record_predictions(_held(store, made), _new(store, newest, made), features, spec)
        promise = _promise(spec, served)
        found = realised(spec, rows, promise, _version(served))
        naive = serving_naive(spec, rows, features, serving_baseline(ctx).name)
        gains = {
            ON_PREVIOUS: against_previous(spec, rows, found.version),
            ON_BASELINE: against_baseline(spec, rows, found.version, naive),
        }
        shown = _shown(spec, rows, features, promise, found=found, gains=gains)
        recorded = {RECORDED: newest.version, **lineage.metadata()}
        yield dg.Output(rows, "performance", metadata={**shown, **recorded})
        yield _check(key, found)

    return [performance]


def realised_of(snapshot: Snapshot) -> Realised:
    """What the champion was worth when a snapshot of `performance` was made."""
    held = snapshot.metadata[REALISED]
    read: dict[str, Any] = {
        **held,
        **{name: _estimate(held[name]) for name in _ESTIMATES},
        **{name: pd.Timestamp(held[name]) if held[name] else None for name in _TIMES},
        **{name: _float(held[name]) for name in ("baseline", "excess")},
    }
    return Realised(**read)


def gain_of(snapshot: Snapshot, key: str) -> Estimate:
    """A gain of the champion that was recorded with a snapshot of `performance`.

    Args:
        snapshot: that holds it.
        key: `ON_PREVIOUS` or `ON_BASELINE`.
    """
    return _estimate(snapshot.metadata[key])


def _columns(product: Product) -> dg.TableSchema:
    target = product.spec.target
    return schema(
        {
            "entity": ("string", "what the prediction is about"),
            "event_time": ("timestamp", "when the prediction is made for"),
            "label_time": ("timestamp", "when the label is known"),
            "made": ("string", "ahead: before the label was known; late: after, not learned from"),
            "predicted_at": ("timestamp", "when the prediction was made, UTC"),
            "model_version": ("string", "registered version; empty for a baseline"),
            "model_kind": ("string", "local, pooled or baseline"),
            "prediction": ("float", f"{target.description} ({target.unit})"),
            "lower": ("float", "lower end of the prediction's interval; empty for a class"),
            "upper": ("float", "upper end of it"),
            "baseline": ("float", f"by the baseline {product.spec.baselines[0].name}"),
            "previous_version": ("string", "in use before the model; empty for none"),
            "previous_prediction": ("float", "by that version; empty where it learned the label"),
            "label": ("float", "as it is known now; empty while it is open"),
            "first_label": ("float", "as it was when it matured"),
        }
    )


def _held(store: SnapshotStore, made: Snapshot | None) -> pd.DataFrame:
    if made is None:
        return no_performance()
    return store.read(made.asset, made.partition, version=made.version)


def _new(store: SnapshotStore, newest: Snapshot, made: Snapshot | None) -> pd.DataFrame:
    """Predictions that are not recorded yet, with the time they were made."""
    frames = [
        store.read(each.asset, each.partition, version=each.version).assign(
            predicted_at=_made_at(each)
        )
        for each in _unrecorded(store, newest, made)
    ]
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _unrecorded(store: SnapshotStore, newest: Snapshot, made: Snapshot | None) -> list[Snapshot]:
    """The newest predictions, and those before that no run of this step has seen."""
    if made is None or (last := made.metadata[RECORDED]) in (newest.version, newest.previous):
        return [newest]
    every = store.versions(newest.asset, newest.partition)
    return [each for each in reversed(every) if last < each.version <= newest.version]


def _made_at(snapshot: Snapshot) -> pd.Timestamp:
    """When a snapshot was made, as frames hold times."""
    return naive(snapshot.created_at).as_unit("ns")


def _version(served: Served) -> str:
    return served.version.version if served.version else ""


def _promise(spec: ProductSpec, served: Served) -> Promise:
    tags = served.version.tags if served.version else {}
    pooled = PROMISE_REPORT in tags
    text = tags.get(PROMISE_REPORT if pooled else "report")
    return promise_of(spec, report_from_json(text) if text else None, pooled=pooled)


def _check(key: dg.AssetKey, found: Realised) -> dg.AssetCheckResult:
    numbers = {
        "version": found.version,
        "rows": found.rows,
        "open_rows": found.open_rows,
        **({"excess": found.excess} if np.isfinite(found.excess) else {}),
    }
    told_of = warned if found.worse else passed
    return told_of(key, PERFORMANCE_CHECK, found.reason, numbers)


def _shown(
    spec: ProductSpec,
    rows: pd.DataFrame,
    features: pd.DataFrame,
    promise: Promise,
    *,
    found: Realised,
    gains: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Metadata of the asset's page, and what the snapshot keeps of it."""
    periods, slices = by_period(spec, rows), by_slice(spec, rows, features)
    image = realised_plot(spec, periods, promise, found.version, unit=metric_unit(spec))
    shown: dict[str, Any] = {
        "summary": found.reason,
        "numbers": facts_metadata(_facts(spec, found, promise, gains)),
        "realised_against_promised": svg_metadata(image, "realised against promised")
        if len(rows)
        else None,
        "by_period": table_metadata(_page(spec, periods).tail(_PAGE_ROWS))
        if len(periods)
        else None,
        "by_slice": table_metadata(_page(spec, slices).head(_PAGE_ROWS)) if len(slices) else None,
        **(preview(rows) if len(rows) else {}),
    }
    return {
        **{name: value for name, value in shown.items() if value is not None},
        REALISED: dg.MetadataValue.json(_plain(found)),
        **{name: dg.MetadataValue.json(_ends(gain)) for name, gain in gains.items()},
    }


def _page(spec: ProductSpec, parts: pd.DataFrame) -> pd.DataFrame:
    """A table of parts in the words of the page."""
    who = parts["model_version"].where(parts["model_version"] != "", "baseline")
    return parts.assign(model_version=who).rename(columns={"value": spec.metric})


def _facts(
    spec: ProductSpec, found: Realised, promise: Promise, gains: Mapping[str, Estimate]
) -> Mapping[str, object]:
    unit = f" ({metric_unit(spec)})" if metric_unit(spec) else ""
    days = f"{_day(found.first)} to {_day(found.last)}"
    return {
        "champion": f"version {found.version}" if found.version else "none, a baseline serves",
        f"realised {spec.metric}{unit}": format_estimate(found.value),
        f"promised {spec.metric} on its holdout{unit}": describe_promise(
            promise.value, promise.pooled
        ),
        f"the promise on these rows{unit}": describe_promise(found.expected, found.pooled),
        f"baseline {spec.baselines[0].name}{unit}": found.baseline,
        "worse than promised by": _describe_gain(spec, found.excess),
        "matured rows": f"{found.rows:,}, of {days}" if found.rows else "0",
        "intervals": found.drawn if found.value.has_interval else "",
        "open rows": f"{found.open_rows:,}",
        "revised labels": f"{found.revised:,}",
        "gain on the version before": _gain(spec, gains[ON_PREVIOUS]),
        "gain on the baseline that would serve": _gain(spec, gains[ON_BASELINE]),
    }


def _describe_gain(spec: ProductSpec, gain: float) -> str:
    return format_gain(spec.metric, gain) if np.isfinite(gain) else ""


def _gain(spec: ProductSpec, gain: Estimate) -> str:
    if not gain.has_interval:
        return _describe_gain(spec, gain.value)
    ends = f"{format_gain(spec.metric, gain.lower)} to {format_gain(spec.metric, gain.upper)}"
    return f"{format_gain(spec.metric, gain.value)} ({ends})"


def _plain(found: Realised) -> dict[str, Any]:
    """As JSON; numbers that are not known are null."""
    return {
        **vars(found),
        **{name: _ends(getattr(found, name)) for name in _ESTIMATES},
        **{name: _iso(getattr(found, name)) for name in _TIMES},
        **{name: _number(getattr(found, name)) for name in ("baseline", "excess")},
    }


def _ends(each: Estimate) -> list[float | None]:
    return [_number(end) for end in (each.value, each.lower, each.upper)]


def _estimate(ends: list[float | None]) -> Estimate:
    return Estimate(*(_float(end) for end in ends))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def _iso(time: pd.Timestamp | None) -> str | None:
    return None if time is None else time.isoformat()


def _day(time: pd.Timestamp | None) -> str:
    return "-" if time is None else str(time.date())
