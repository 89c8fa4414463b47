"""The landing sensor where the next file is there before the last one is dealt with."""

from __future__ import annotations

import pandas as pd

from mlops_assets_tests.pipeline.test_landing import asked, ingest, launch
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, OTHER, later, only
from mlops_assets_tests.platform import Platform, failures


def test_countries_go_on_while_files_keep_coming(platform: Platform, sample: pd.DataFrame) -> None:
    platform.deliver(sample[sample["Country"] != "NO"])
    ingest(platform)
    platform.deliver(only(later(sample), OTHER), "second.parquet")

    request, *countries = asked(platform)
    assert request.job_name == "parcels_ingest"
    assert [each.partition_key for each in countries] == [OTHER, COUNTRY]

    assert launch(platform, request).success
    for each in countries:  # asked for before the second file was taken; they run after it
        made = launch(platform, each)
        assert made.success, failures(made)
    assert asked(platform) == []
