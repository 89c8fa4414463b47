"""How much of what could go on for ever a test run tries."""

from __future__ import annotations

import os

WHOLE = os.environ.get("MLOPS_ASSETS_TEST_EFFORT") == "whole"
_PART = 16
_LEAST = 6


def examples(number: int) -> int:
    """Inputs for hypothesis to try: so many in `make nightly`, a sixteenth otherwise."""
    return number if WHOLE else min(number, max(_LEAST, number // _PART))
