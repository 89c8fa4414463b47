"""The floor from the delivered file to features: the functions of `ml/`, and plain Parquet."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmarks.overhead.place import Place


def delivered(place: Place) -> dict[str, pd.DataFrame]:
    """The rows of the one file by country, with where each is from."""
    with place.clock.part("reading and validation"):
        (file,) = (place.home / "landing" / place.product.name).glob("*.parquet")
        frame = pd.read_parquet(file)
        frame["_source_file"] = file.name
        frame["_source_line"] = range(1, len(frame) + 1)
        frame["_ingested_at"] = pd.Timestamp.now("UTC")
        published = place.product.spec.source.columns[place.product.spec.source.country]
        groups = frame.groupby(published, sort=False)
        return {
            str(country): rows.reset_index(drop=True)
            for country, rows in groups
            if country in place.product.spec.countries
        }


def validated(place: Place, country: str, raw: pd.DataFrame) -> pd.DataFrame:
    """The country's records that keep the contract; raw, good and bad ones are stored.

    Raises:
        RuntimeError: too many do not.
    """
    from mlops_assets.ml.datasets.validation import validate

    spec = place.product.resolved(country)
    with place.clock.part("reading and validation"):
        found = validate(raw, place.product.contract(), spec.source, spec.country_names)
    if found.missing_columns or found.rejected_share > spec.contract.max_rejected_share:
        raise RuntimeError(f"{country} breaks its contract")
    place.write(raw, "raw", country)
    place.write(found.quarantine, "quarantine", country)
    place.write(found.accepted, "validated", country)
    return found.accepted


def shared(place: Place, records: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The features of all countries, checked with the future hidden."""
    from mlops_assets.ml.features.shared_features import build_shared, check_shared_point_in_time

    spec, function = place.product.spec, place.product.shared_function()
    assert function is not None
    with place.clock.part("features"):
        frame = build_shared(records, function)
        found = check_shared_point_in_time(
            records, frame, function, spec.source, target=spec.target, seed=spec.seed
        )
        assert found.passed
    place.write(frame, "shared_features")
    return frame


def features(
    place: Place, country: str, records: pd.DataFrame, shared: pd.DataFrame
) -> pd.DataFrame:
    """The country's features, checked with the future hidden."""
    from mlops_assets.ml.features.feature_frame import build_features, check_point_in_time

    spec, function = place.product.resolved(country), place.product.feature_function()
    with place.clock.part("features"):
        frame = build_features(records, function, spec.target, shared)
        found = check_point_in_time(
            records, frame, function, spec.source, target=spec.target, shared=shared, seed=spec.seed
        )
        assert found.passed
    place.write(frame, "features", country)
    return frame
