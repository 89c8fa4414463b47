"""Drift: whether new rows and predictions are still what the champion learned from.

`drift` has no gate, so one run looks at any number of countries with one scan of their files; in a
country's own run it is one step of the chain.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.monitoring.drift import (
    PREDICTION,
    DriftState,
    FeatureDrift,
    Reference,
    Window,
    compare_all,
    continued,
    drift_not_judged,
    new_columns,
    state_of,
    window_ends,
)
from mlops_assets.ml.monitoring.drift_plot import drift_plot
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, ModelVersion
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    Storage,
    asset_key,
    country_check,
    output,
    partitions,
    passed,
    warned,
)
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import INPUTS, Lineage, of_drift
from mlops_assets.stages.common.ui_metadata import (
    as_before,
    facts_metadata,
    schema,
    svg_metadata,
    table_metadata,
)
from mlops_assets.stages.predictions.given_out import given_out_of
from mlops_assets.stages.training.references import stored_reference
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets.storage.io_manager import METADATA_PREFIX, Unchanged
from mlops_assets.storage.profiles import ProfileRequest, columns_of, newest_times, window_profiles

DRIFT_CHECK = "drift"
DRIFT = f"{METADATA_PREFIX}drift"
"""In a snapshot's metadata: `DriftState` as JSON."""
DRIFT_COLUMNS = {
    "window_end": ("timestamp", "event time at which the window ends, not part of it"),
    "window_rows": ("int", "rows in the window"),
    "deviates": ("boolean", "whether some feature of the window matters"),
    "score": ("float", "weighted sum of the changes of the window that matter"),
    "feature": ("string", "name of the feature; prediction for the predictions"),
    "distance": (
        "float",
        "Wasserstein distance in standard deviations of the reference; of a category total "
        "variation, 0 to 1",
    ),
    "effect": (
        "float",
        "shift of the mean in standard deviations of the reference; of a category Cohen's w",
    ),
    "nulls": ("float", "share of rows without a value, less that in the reference"),
    "weight": ("float", "share of the champion's importance; 1 for the predictions"),
    "probability": ("float", "of a window so different if nothing changed"),
    "matters": ("boolean", "unlikely enough, large enough and important enough"),
    "reason": ("string", "in words"),
    "model_version": ("string", "of the champion whose reference it is"),
}
_CHECK_DESCRIPTION = (
    "New rows and predictions are like those the champion learned from, where it matters to it: "
    "fails when monitoring.alarm_after of the newest monitoring.of_windows windows deviate. Quiet, "
    "watched and not judged pass, and say so."
)
_GRAIN = (
    "One row compares one feature (or the predictions) of one of the newest judged windows of the "
    "country with what its champion learned from; no row where nothing can be judged."
)
_INPUTS = ("features", "predictions")
_LOOKED_AT = 13
"""Newest windows that are compared: a quarter of a year of weekly ones."""
_PAGE_ROWS = 15
_TIMES = ("since", "end")
_FEATURE_FIELDS = tuple(each.name for each in fields(FeatureDrift))
_DTYPES = {
    "timestamp": "datetime64[ns]",
    "int": "int64",
    "float": "float64",
    "boolean": "bool",
    "string": "object",
}


@dataclass(frozen=True)
class _Country:
    """One country to look at.

    Attributes:
        country: its key.
        spec: the product as it is there.
        inputs: its features and predictions.
        lineage: what the outcome is made from.
        made: the last outcome.
        version: the champion; None while the baseline serves.
        reference: what it learned from; None where that is not known.
        problem: why nothing can be judged; "" when it can.
    """

    country: str
    spec: ProductSpec
    inputs: Mapping[str, Snapshot]
    lineage: Lineage
    made: Snapshot | None
    version: ModelVersion | None
    reference: Reference | None
    problem: str


@dataclass(frozen=True)
class _Looked:
    """What was seen of a country.

    Attributes:
        of: the country.
        windows: compared, the oldest first.
        state: they amount to.
        columns: features that the reference does not know, and those that are gone.
    """

    of: _Country
    windows: tuple[Window, ...]
    state: DriftState
    columns: tuple[list[str], list[str]]


def build_drift(product: Product) -> list[dg.AssetsDefinition]:
    """`drift` of a product with its check."""
    key = asset_key(product, "drift")
    check = country_check(product, "drift", DRIFT_CHECK, _CHECK_DESCRIPTION)

    @dg.multi_asset(
        name=f"{product.name}__drift",
        partitions_def=partitions(product),
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[asset_key(product, name) for name in ("predictions", "features", "champion")],
        outs={
            "drift": output(
                product,
                "drift",
                "monitoring",
                {"parquet", "duckdb"},
                description=_GRAIN,
                columns=schema(DRIFT_COLUMNS),
            )
        },
        check_specs=[check],
    )
    def drift(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        whole = storage.product(product, mlflow.registry())
        if len(context.partition_keys) > 1:
            _many(whole, context)
            # The step has to end each check; its results are told with their countries.
            yield dg.Output(None, check.get_python_identifier())
            return
        ctx = whole.country(context.partition_key)
        champion, made = ctx.champion(), ctx.current("drift")
        lineage = of_drift(ctx, champion.version if champion else "")
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), "drift", metadata=as_before(context, key))
            yield _check(key, state_of_snapshot(made))
            return
        looked, missing = _look(whole, [ctx.country])
        if missing:
            raise _nothing_to_look_at(product, missing)
        found = looked[ctx.country]
        yield dg.Output(_frame(found), "drift", metadata=_shown(found))
        yield _check(key, found.state)

    return [drift]


def state_of_snapshot(snapshot: Snapshot) -> DriftState:
    """What was seen when a snapshot of `drift` was made."""
    held = snapshot.metadata[DRIFT]
    times = {name: pd.Timestamp(held[name]) if held[name] else None for name in _TIMES}
    return DriftState(**{**held, **times})


def _many(ctx: ProductContext, context: dg.AssetExecutionContext) -> None:
    """Look at many countries; each one's outcome and check are told with its partition.

    One output would mark every country as made, and one check result would be for none.
    """
    looked, missing = _look(ctx, context.partition_keys)
    asset, key = ctx.path("drift"), asset_key(ctx.product, "drift")
    for country, found in looked.items():
        shown = _shown(found)
        held = {n: _plain(v) for n, v in shown.items() if n.startswith(METADATA_PREFIX)}
        written = ctx.store.write(
            asset, country, _frame(found), run_id=context.run.run_id, metadata=held
        )
        context.log_event(_materialization(ctx.product, written.snapshot, shown))
        result = _evaluation(key, country, found.state)
        context.log_event(result)  # pyright: ignore[reportArgumentType] (it takes them, undeclared)
    if missing:
        raise _nothing_to_look_at(ctx.product, missing)


def _look(ctx: ProductContext, countries: Sequence[str]) -> tuple[dict[str, _Looked], list[str]]:
    """What is seen of each country, and those that have no predictions yet."""
    view = ctx.read_once(countries)
    of_each = [view.country(country) for country in countries]
    there = [each for each in of_each if all(each.current(name) for name in _INPUTS)]
    champions = _champions(ctx, [each.country for each in there])
    found = [_country(each, champions.get(each.country)) for each in there]
    windows, columns = _windows(ctx.store, found), _columns(ctx.store, found)
    looked = {
        each.country: _looked(each, windows.get(each.country, []), columns.get(each.country, []))
        for each in found
    }
    return looked, [country for country in countries if country not in looked]


def _champions(ctx: ProductContext, countries: Sequence[str]) -> dict[str, ModelVersion]:
    """Who serves, by country; those with a baseline left out."""
    if len(countries) > 1:
        return ctx.registry.champions(ctx.name)
    found = {country: ctx.country(country).champion() for country in countries}
    return {country: version for country, version in found.items() if version is not None}


def _country(ctx: CountryContext, version: ModelVersion | None) -> _Country:
    lineage = of_drift(ctx, version.version if version else "")
    reference, problem = None, "the baseline serves, which learned nothing"
    if version is not None:
        try:
            reference = stored_reference(version, ctx.registry)
            reference = reference and _comparable(reference, ctx.current("predictions"))
            problem = f"version {version.version} was registered without a reference"
        except RegistryError as error:  # one country's damaged file must not stop the others
            problem = str(error)
    return _Country(
        ctx.country,
        ctx.spec,
        {name: made for name in _INPUTS if (made := ctx.current(name)) is not None},
        lineage,
        ctx.current("drift"),
        version,
        reference,
        "" if reference else problem,
    )


def _windows(store: SnapshotStore, found: Sequence[_Country]) -> dict[str, list[Window]]:
    """The newest windows of every country with a reference, compared with it."""
    known = {each.country: each for each in found if each.reference is not None}
    newest = newest_times(store, {name: each.inputs["features"] for name, each in known.items()})
    asked = {
        name: ProfileRequest(
            _reference(each),
            each.inputs["features"],
            each.inputs["predictions"],
            _ends(each, newest[name]),
            pd.Timedelta(days=each.spec.monitoring.window_days),
        )
        for name, each in known.items()
        if name in newest
    }
    return {
        name: compare_all(known[name].spec, _reference(known[name]), profiles)
        for name, profiles in window_profiles(store, asked).items()
    }


def _comparable(reference: Reference, predictions: Snapshot | None) -> Reference:
    """Without predictions where another one than the champion made them: they are not like its."""
    if not given_out_of(predictions).by:
        return reference
    own = {name: each for name, each in reference.features.items() if name != PREDICTION}
    return replace(reference, features=own)


def _columns(store: SnapshotStore, found: Sequence[_Country]) -> dict[str, list[str]]:
    """Columns of the features of every country with a reference."""
    known = [each for each in found if each.reference is not None]
    return columns_of(store, {each.country: each.inputs["features"] for each in known})


def _reference(of: _Country) -> Reference:
    assert of.reference is not None
    return of.reference


def _ends(of: _Country, newest: pd.Timestamp) -> tuple[pd.Timestamp, ...]:
    """Ends of the newest windows with rows that the champion has not learned."""
    count = max(_LOOKED_AT, of.spec.monitoring.of_windows)
    ends = window_ends(of.spec, newest, count)
    return tuple(end for end in ends if end > _reference(of).last)


def _looked(of: _Country, windows: Sequence[Window], columns: Sequence[str]) -> _Looked:
    if of.reference is None:
        return _Looked(of, (), drift_not_judged(of.problem), ([], []))
    state = state_of(of.spec, windows)
    before = state_of_snapshot(of.made) if of.made is not None and _same_champion(of) else None
    return _Looked(
        of,
        tuple(windows),
        continued(state, before),
        new_columns(of.reference, columns),
    )


def _same_champion(of: _Country) -> bool:
    assert of.made is not None
    return of.made.metadata[INPUTS]["champion"] == of.lineage.inputs["champion"]


def _frame(found: _Looked) -> pd.DataFrame:
    """One row per judged window and feature, columns `DRIFT_COLUMNS`."""
    version = found.of.version.version if found.of.version else ""
    rows = [
        (window.end, window.rows, window.deviates, window.score, *vars(each).values(), version)
        for window in found.windows
        for each in window.features
    ]
    names = [*list(DRIFT_COLUMNS)[:4], *_FEATURE_FIELDS, "model_version"]
    frame = pd.DataFrame(rows, columns=names)
    return frame[list(DRIFT_COLUMNS)].astype(
        {name: _DTYPES[kind] for name, (kind, _) in DRIFT_COLUMNS.items()}
    )


def _shown(found: _Looked) -> dict[str, Any]:
    """Metadata of the asset's page, and what the snapshot keeps of it."""
    of, state, newest = found.of, found.state, found.windows[-1:]
    new, gone = found.columns
    shown: dict[str, Any] = {
        "summary": f"{state.state.replace('_', ' ')}: {state.reason}",
        "next": state.next,
        "numbers": facts_metadata(
            {
                "champion": f"version {of.version.version}" if of.version else "none",
                "reference": _days(of.reference),
                "newest window ends": state.end,
                "deviates since": state.since,
                "score": state.score,
                "looks broken": state.upstream,
                "new columns": ", ".join(new),
                "columns that are gone": ", ".join(gone),
            }
        ),
    }
    if newest:
        shown["change"] = svg_metadata(
            drift_plot(found.windows, of.spec.monitoring.min_effect), "change by window"
        )
        shown["windows"] = table_metadata(_windows_page(found.windows))
        if newest[0].features:
            shown["newest_window"] = table_metadata(_features_page(newest[0]))
    return {**shown, DRIFT: dg.MetadataValue.json(_as_json(state)), **of.lineage.metadata()}


def _windows_page(windows: Sequence[Window]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "end": [each.end for each in windows],
            "rows": [each.rows for each in windows],
            "outcome": [
                each.problem or ("deviates" if each.deviates else "as learned") for each in windows
            ],
            "score": [each.score for each in windows],
        }
    ).iloc[::-1]


def _features_page(window: Window) -> pd.DataFrame:
    shown = [each for each in window.features if each.matters]
    shown += [each for each in window.features if not each.matters]
    return pd.DataFrame([vars(each) for each in shown[:_PAGE_ROWS]])[
        ["feature", "weight", "effect", "distance", "nulls", "reason"]
    ]


def _days(reference: Reference | None) -> str:
    if reference is None:
        return ""
    return f"{reference.rows:,} rows, {reference.first.date()} to {reference.last.date()}"


def _as_json(state: DriftState) -> dict[str, Any]:
    times = {name: getattr(state, name) for name in _TIMES}
    return {**asdict(state), **{name: each and each.isoformat() for name, each in times.items()}}


def _verdict(state: DriftState) -> tuple[bool, str, dict[str, Any]]:
    """Whether the check passes, why, and its numbers."""
    told = f"{state.state.replace('_', ' ')}: {state.reason} Next: {state.next}."
    numbers: dict[str, Any] = {"state": state.state, "next": state.next, "score": state.score}
    if state.since is not None:
        numbers["since"] = str(state.since.date())
    return state.state != "alarm", told, numbers


def _check(key: dg.AssetKey, state: DriftState) -> dg.AssetCheckResult:
    holds, told, numbers = _verdict(state)
    return (passed if holds else warned)(key, DRIFT_CHECK, told, numbers)


def _evaluation(key: dg.AssetKey, country: str, state: DriftState) -> dg.AssetCheckEvaluation:
    """The result of the check for one country of a run over many."""
    holds, told, numbers = _verdict(state)
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=DRIFT_CHECK,
        passed=holds,
        metadata=numbers,
        severity=dg.AssetCheckSeverity.WARN,
        description=told,
        blocking=False,
        partition=country,
    )


def _materialization(
    product: Product, snapshot: Snapshot, shown: Mapping[str, Any]
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key(product, "drift"),
        partition=snapshot.partition,
        metadata={
            **shown,
            "dagster/partition_row_count": snapshot.rows,
            "dagster/uri": snapshot.uri,
        },
        tags={
            "dagster/data_version": snapshot.content_hash,
            "dagster/code_version": RECIPES["drift"].code_version(product),
        },
    )


def _plain(value: object) -> object:
    return value.value if isinstance(value, dg.MetadataValue) else value


def _nothing_to_look_at(product: Product, missing: Sequence[str]) -> dg.Failure:
    return dg.Failure(
        f"{product.name} has no predictions yet in {', '.join(missing)}. Nothing was looked at "
        "there; every other country was. Materialize `predictions` of these countries first."
    )
