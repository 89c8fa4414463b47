"""The features that the YAML names, against those that the function gives."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlops_assets.components.soundness.found import not_among, problem, specs_of
from mlops_assets.components.soundness.maturity import too_short
from mlops_assets.components.strict_yaml import Loc, YamlProblem
from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Product
from mlops_assets.spec import ProductSpec

if TYPE_CHECKING:
    import pandas as pd

Named = tuple[Loc, str, bool]
"""Where a feature is named, its name, and whether it has to be a number."""


def feature_problems(product: Product) -> Iterator[YamlProblem]:
    """Features that are not there or of another kind, labels of another task, a failing function.

    A function that cannot be run on no rows says nothing; the first run of a country will.
    """
    spec = product.spec
    records = sample_records(product)
    if isinstance(records, str):
        yield problem(("contract", "schema_class"), records)
        return
    filled = len(records) > 0
    try:
        frame = _features(product, records)
    except Exception as error:  # the product's own code may raise anything
        if filled:
            yield problem(("features",), str(getattr(error, "problem", error)).rstrip("."))
        return
    yield from _named_problems(spec, frame, filled)
    if filled:
        yield from _label_problems(spec, frame)


def sample_records(product: Product) -> pd.DataFrame | str:
    """Validated records of one country of the product's sample, no rows without one.

    Returns:
        The records, or why the contract cannot judge them.
    """
    import pandas as pd

    from mlops_assets.ml.datasets.validation import validate

    spec, contract, function = product.spec, product.contract(), product.sample_function()
    published = function(spec.seed) if function else pd.DataFrame()
    names = spec.country_names
    rows = pd.DataFrame(columns=spec.source.all_published, dtype="object")
    present = [each for each in spec.source.published(spec.source.country) if each in published]
    if present and len(published):
        countries = published[present[0]].map(names.resolve)
        first = countries.dropna().iloc[:1]
        rows = published[countries.isin(first)] if len(first) else rows
    try:
        return validate(rows, contract, spec.source, names).accepted
    except ConfigurationError as error:
        return error.problem.rstrip(".")


def _features(product: Product, records: pd.DataFrame) -> pd.DataFrame:
    from mlops_assets.ml.features.calendar import calendar_of
    from mlops_assets.ml.features.feature_frame import build_features
    from mlops_assets.ml.features.shared_features import build_shared

    spec, shared = product.spec, None
    calendar = calendar_of(spec.cutoffs, _clock(spec, records))
    if (function := product.shared_function()) is not None:
        first = spec.countries[0]
        if len(records):
            value = records[spec.source.country].iloc[0]
            first = value if value in spec.countries else first
        none = records.iloc[:0]
        shared = build_shared(
            {c: records if c == first else none for c in spec.countries}, function, calendar
        )
    function = product.feature_function()
    return build_features(records, function, spec.target, shared, calendar=calendar)


def _clock(spec: ProductSpec, records: pd.DataFrame) -> dt.datetime | None:
    """What the product's clock shows by the newest of these records; None without cut-offs."""
    if spec.cutoffs is None:
        return None
    newest = records[spec.source.event_time].max() if len(records) else None
    return spec.cutoffs.clock(newest, spec.target.maturity)


def _named_problems(spec: ProductSpec, frame: pd.DataFrame, filled: bool) -> Iterator[YamlProblem]:
    from pandas.api import types

    from mlops_assets.ml.features.feature_frame import feature_columns

    names = feature_columns(frame)
    told: set[tuple[Loc, str]] = set()
    for loc, name, is_number in named_features(spec):
        short = loc[2:] if loc[:1] == ("overrides",) else loc
        if (short, name) in told:
            continue
        told.add((short, name))
        if name not in names:
            yield problem(loc, not_among(name, "feature", names))
        elif is_number and filled and not types.is_numeric_dtype(frame[name].dtype):
            text = f"the feature {name} is {frame[name].dtype}, and this needs a number"
            yield problem(loc, text)


def named_features(spec: ProductSpec) -> Iterator[Named]:
    """Every feature that the YAML names, of countries that name others too."""
    for place, baseline in enumerate(spec.baselines):
        if baseline.feature:
            yield ("baselines", place, "feature"), baseline.feature, True
    for where, own in specs_of(spec, "candidates"):
        for place, candidate in enumerate(own.candidates):
            for key in ("offset", "scale"):
                if name := getattr(candidate, key):
                    yield (*where, "candidates", place, key), name, True
    for where, own in specs_of(spec, "evaluation"):
        yield from _of_slices(own.evaluation.slices, (*where, "evaluation", "slices"))
    for where, own in specs_of(spec, "gates"):
        yield from _of_slices(own.gates.fairness, (*where, "gates", "fairness"))
        for place, test in enumerate(own.gates.behaviour):
            for name, change in test.change.items():
                number = change.add is not None or change.multiply is not None
                yield (*where, "gates", "behaviour", place, "change", name), name, number


def _of_slices(slices: Any, where: Loc) -> Iterator[Named]:
    for place, declared in enumerate(slices):
        yield (*where, place, "feature"), declared.feature, bool(declared.edges)


def _label_problems(spec: ProductSpec, frame: pd.DataFrame) -> Iterator[YamlProblem]:
    known: Mapping[Any, int] = frame["label"].dropna().value_counts().to_dict()
    strange = [value for value in known if value not in (0.0, 1.0)]
    if spec.task == "classification" and strange:
        text = f"labels of classification are 0 and 1; {spec.features} gives {strange[0]} too"
        yield problem(("task",), text)
    labelled = frame[frame["label"].notna()]
    if len(labelled):
        shortest = (labelled["label_time"] - labelled["event_time"]).min()
        days = shortest.total_seconds() / 86_400
        said = f"the {days:.1f} days after which {spec.features} says that the first label is known"
        yield from too_short(spec, dt.timedelta(days=days), said)
