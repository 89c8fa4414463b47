"""Parts of the split in which no label could ever be known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from mlops_assets.components.soundness.found import problem, specs_of
from mlops_assets.components.strict_yaml import YamlProblem
from mlops_assets.product import Product
from mlops_assets.spec import ProductSpec


def maturity_problems(product: Product) -> Iterator[YamlProblem]:
    """Where every label matures after `matures_after`: parts that end before it has passed.

    A function that names `label_time` may give rows labels that are known earlier; what holds there
    is seen when it runs.
    """
    if any(b"label_time" in file.read_bytes() for file in product.modules("features")):
        return
    maturity = product.spec.target.maturity
    yield from too_short(
        product.spec, maturity, f"matures_after {product.spec.target.matures_after}"
    )


def too_short(spec: ProductSpec, maturity: dt.timedelta, said: str) -> Iterator[YamlProblem]:
    """Parts of the split no longer than a label takes to be known.

    Args:
        spec: the product.
        maturity: after which the earliest label of any event is known.
        said: where that stands.
    """
    told: set[tuple[str, int]] = set()
    for where, own in specs_of(spec, "split"):
        split = own.split
        days = {"validation_days": split.validation_days, "holdout_days": split.holdout_days}
        if split.train_days is not None:
            days["train_days"] = split.train_days - split.validation_days
        for key, length in days.items():
            if length is None or dt.timedelta(days=length) > maturity or (key, length) in told:
                continue
            told.add((key, length))
            part = key.removesuffix("_days")
            less = " less validation_days" if key == "train_days" else ""
            text = f"{key}{less} is {length}, no longer than {said}: no label of the {part} would "
            yield problem((*where, "split", key), f"{text}be known within it")
