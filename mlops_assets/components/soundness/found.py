"""How a problem of a product is told: at its key, with what is expected there and an example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlops_assets.components import schema
from mlops_assets.components.strict_yaml import Loc, YamlProblem
from mlops_assets.spec import ProductSpec

_SHOWN = 30


def problem(loc: Loc, text: str) -> YamlProblem:
    """A broken rule at a key of `attributes`."""
    inside = loc[2:] if loc[:1] == ("overrides",) else loc
    expected, example = schema.expectation(inside), schema.example_value(inside)
    return YamlProblem(("attributes", *loc), text, expected, example, is_rule=True)


def not_among(word: str, what: str, known: Iterable[str]) -> str:
    """That a name is none of those there are, which of them was probably meant, and all."""
    names = list(known)
    close = schema.closest(word, names)
    hint = f", did you mean {close}?" if close else "."
    shown = ", ".join(names[:_SHOWN]) + (" and more" if len(names) > _SHOWN else "")
    return f"{word!r} is no {what}{hint} There are {shown or 'none'}"


def specs_of(spec: ProductSpec, section: str) -> Iterator[tuple[Loc, ProductSpec]]:
    """The product's spec and those of countries that change a section, each with where it stands.

    A country that breaks what the product breaks already is not told again.
    """
    yield (), spec
    for country, changes in spec.overrides.items():
        if section in changes:
            yield ("overrides", country), spec.for_country(country)
