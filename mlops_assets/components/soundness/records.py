"""The contract against the columns, countries and roles that the YAML names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlops_assets.components.soundness.found import not_among, problem
from mlops_assets.components.strict_yaml import Loc, YamlProblem
from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Product
from mlops_assets.spec import ProductSpec

if TYPE_CHECKING:
    from pandera.pandas import DataFrameModel

_CLASS: Loc = ("contract", "schema_class")
_SHOWN = 5


def contract_problems(product: Product) -> Iterator[YamlProblem]:
    """What the contract and the YAML say of columns that contradicts each other."""
    spec = product.spec
    try:
        contract = product.contract_class()
        schema = contract.to_schema()
    except ConfigurationError as error:
        yield problem(_CLASS, error.problem.rstrip("."))
        return
    except Exception as error:  # pandera's own, of a rule that names what is not there
        yield problem(_CLASS, f"{spec.contract.schema_class} cannot be used: {_short(error)}")
        return
    columns = {str(name): column for name, column in schema.columns.items()}
    yield from _names(spec, columns)
    for name in _unique(schema):
        if name not in columns:
            text = not_among(name, "column of the contract, whose `unique` names it", columns)
            yield problem(_CLASS, text)
    yield from _roles(spec, columns)
    yield from _countries(spec, contract, columns)


def _names(spec: ProductSpec, columns: Mapping[str, Any]) -> Iterator[YamlProblem]:
    source = spec.source
    for name in source.columns:
        if name not in columns:
            text = not_among(name, f"column of {spec.contract.schema_class}", columns)
            yield problem(("source", "columns", name), text)
    for place, name in enumerate(source.derived):
        if name not in columns:
            text = not_among(name, f"column of {spec.contract.schema_class}", columns)
            yield problem(("source", "derived", place), text)
    named = [*source.columns, *source.derived]
    for name, column in columns.items():
        if column.required and name not in named:
            text = f"{spec.contract.schema_class} needs the column {name}: "
            text += not_among(name, "key of source.columns or one of source.derived", named)
            yield problem(("source", "columns"), text)


def _unique(schema: Any) -> list[str]:
    unique = schema.unique or []
    return [unique] if isinstance(unique, str) else [str(name) for name in unique]


def _roles(spec: ProductSpec, columns: Mapping[str, Any]) -> Iterator[YamlProblem]:
    """Times are times, and the country is text."""
    source = spec.source
    for role, name in (("event_time", source.event_time), ("arrival_time", source.arrival_time)):
        if name is not None and name in columns and _letter(columns[name]) != "M":
            text = f"{name!r} is {columns[name].dtype} in {spec.contract.schema_class}, not a time"
            yield problem(("source", role), text)
    country = source.country
    if country in columns and _letter(columns[country]) not in ("O", "U"):
        text = f"{country!r} is {columns[country].dtype} in {spec.contract.schema_class}, not text"
        yield problem(("source", "country"), text)


def _letter(column: Any) -> str:
    """The letter numpy has for a column's type; O for text and others."""
    return getattr(getattr(column.dtype, "type", None), "kind", "O")


def _countries(
    spec: ProductSpec, contract: type[DataFrameModel], columns: Mapping[str, Any]
) -> Iterator[YamlProblem]:
    """Listed countries that the contract would reject whole."""
    import pandas as pd

    column = columns.get(spec.source.country)
    if column is None or _letter(column) not in ("O", "U"):
        return
    for place, country in enumerate(spec.countries):
        values = pd.Series([country], dtype="object", name=spec.source.country)
        for check in column.checks:
            if type(check).is_builtin_check(check.name) and not check(values).check_passed:
                text = f"{country!r} breaks the rule {check.error or check.name} of the column "
                text += f"{spec.source.country} in {contract.__name__}: all of its rows would"
                yield problem(("countries", place), text)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
