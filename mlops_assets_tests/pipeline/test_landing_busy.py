"""The landing sensor where the next file is there before the last one is dealt with."""

from __future__ import annotations

import pandas as pd

from mlops_assets_tests.pipeline.test_landing import COUNTRIES, asked, ingest, launch
from mlops_assets_tests.pipeline.test_outcomes import OTHER, later, only
from mlops_assets_tests.platform import Platform, failures


def test_countries_go_on_while_files_keep_coming(platform: Platform, sample: pd.DataFrame) -> None:
    platform.deliver(sample)
    ingest(platform)
    platform.deliver(only(later(sample), OTHER), "second.parquet")

    request, *countries = asked(platform)
    assert request.job_name == "parcels_ingest"
    assert [each.partition_key for each in countries] == COUNTRIES

    assert launch(platform, request).success
    for each in countries:  # asked for before the second file was taken; they run after it
        made = launch(platform, each)
        assert made.success, failures(made)
    assert asked(platform) == []
