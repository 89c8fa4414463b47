"""Whether a product can work: its YAML against its own contract, functions and estimators.

What needs scikit-learn or a feature function that runs is left to `dg check defs` and
`mlops-assets doctor`, so that loading the code location stays cheap.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlops_assets.components.loading import FILE, as_error
from mlops_assets.components.soundness.estimators import estimator_problems
from mlops_assets.components.soundness.features import feature_problems
from mlops_assets.components.soundness.maturity import maturity_problems
from mlops_assets.components.soundness.records import contract_problems
from mlops_assets.components.strict_yaml import YamlProblem, read
from mlops_assets.product import Product

_VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"
"""Set by `dg check defs`, for code that wants to know."""


def is_checked() -> bool:
    """Whether the definitions are loaded by `dg check defs`, which may take its time."""
    return os.environ.get(_VALIDATING) == "1"


def require_sound(product: Product, *, thorough: bool) -> None:
    """Refuse a product that cannot work.

    Args:
        product: as it was loaded.
        thorough: also make every estimator, and run the feature function on the product's sample
            (without one, on no rows) to learn the names of the features.

    Raises:
        ConfigurationError: each problem with file, line, key, what is wrong and what is expected.
    """
    problems = list(_problems(product, thorough=thorough))
    if problems:
        file = product.folder / FILE
        raise as_error(file, read(file.read_bytes()), problems)


def _problems(product: Product, *, thorough: bool) -> Iterator[YamlProblem]:
    yield from maturity_problems(product)
    of_contract = list(contract_problems(product))
    yield from of_contract
    if thorough:
        yield from estimator_problems(product.spec)
        if not of_contract:
            yield from feature_problems(product)
