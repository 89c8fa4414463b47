from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import RegistryError
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.stages.training.intervals import SCALE_TAG, intervals_of
from mlops_assets_tests.defs.world import spec_of

PREDICTED = np.array([10.0, 20.0])


def rows() -> pd.DataFrame:
    days = pd.to_datetime(["2025-01-01", "2025-01-02"])
    return pd.DataFrame({"event_time": days, "label_time": days, "label": [11.0, np.nan]})


def version(tags: dict[str, str]) -> ModelVersion:
    return ModelVersion("power_price.DEU", "1", "nowhere", "no-run", "local", tags)


def test_probabilities_have_no_intervals(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/none.db", str(tmp_path))
    ends = intervals_of(
        version({SCALE_TAG: ""}),
        rows(),
        PREDICTED,
        spec_of("booking_cancellation"),
        registry=registry,
    )
    assert np.isnan(ends.low).all()
    assert np.isnan(ends.high).all()


def test_lost_errors_are_an_error_that_names_them(tmp_path: Path, mlflow_template: Path) -> None:
    registry = Registry(f"sqlite:///{mlflow_template}", str(tmp_path))
    with pytest.raises(RegistryError, match=r"residuals\.csv"):
        intervals_of(
            version({SCALE_TAG: "spread"}),
            rows(),
            PREDICTED,
            spec_of("power_price"),
            registry=registry,
        )
