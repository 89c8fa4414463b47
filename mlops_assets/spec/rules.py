"""Rules between sections, one function each; all broken ones are reported together."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from mlops_assets.spec.country_names import same_country
from mlops_assets.spec.fields import METRICS_OF_TASK, repeats, rule_broken

if TYPE_CHECKING:
    from mlops_assets.spec.product import ProductSpec
    from mlops_assets.spec.training import SpaceSpec

OVERRIDABLE: frozenset[str] = frozenset(
    {
        "contract",
        "split",
        "candidates",
        "tuning",
        "evaluation",
        "gates",
        "decision",
        "monitoring",
        "predictions",
        "retraining",
        "metric",
        "seed",
    }
)
"""Sections a country may change; the others define the product itself."""


Rule = Callable[["ProductSpec"], Iterator[InitErrorDetails]]
_RULES: list[tuple[frozenset[str], Rule]] = []


def _rule(*sections: str) -> Callable[[Rule], Rule]:
    """Register a rule between sections; it is judged once all of them are valid."""

    def register(rule: Rule) -> Rule:
        _RULES.append((frozenset(sections), rule))
        return rule

    return register


def broken_rules(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    """Every rule between valid sections that is broken."""
    for sections, rule in _RULES:
        if sections <= vars(spec).keys():
            yield from rule(spec)


def again(details: Any, *prefix: str) -> InitErrorDetails:
    """An error of one validation as part of another one, below `prefix`."""
    known: dict[str, Any] = {"input": details["input"], "loc": (*prefix, *details["loc"])}
    if details["type"] == "rule":
        return rule_broken(details["ctx"]["problem"], *known["loc"], found=known["input"])
    return InitErrorDetails(type=details["type"], ctx=details.get("ctx", {}), **known)


@_rule("countries")
def _countries_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country in repeats(spec.countries):
        last = len(spec.countries) - 1 - spec.countries[::-1].index(country)
        yield rule_broken(f"{country!r} is listed more than once", "countries", last)


@_rule("countries")
def _countries_told_apart(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    """Folders of some file systems ignore case, and people do not see how an é is written."""
    seen: dict[str, str] = {}
    for place, country in enumerate(spec.countries):
        first = seen.setdefault(unicodedata.normalize("NFKC", country).casefold(), country)
        if first != country:
            text = (
                f"{country!r} and {first!r} differ only in case or in how a letter is written, and "
                "are one folder on some file systems; list one, with the other under `aliases`"
            )
            yield rule_broken(text, "countries", place)


@_rule("countries", "source")
def _countries_differ(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    """Two keys of one country of ISO 3166 leave open which of them its names lead to."""
    for keys in same_country(spec.countries) if spec.source.country_names == "standard" else ():
        text = f"{', '.join(keys)} are one country of ISO 3166; list one of them, or set "
        yield rule_broken(f"{text}source.country_names: listed", "countries")


@_rule("countries", "aliases")
def _aliases_lead_to_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for alias, country in spec.aliases.items():
        if country not in spec.countries:
            yield rule_broken(
                f"alias {alias!r} stands for {country!r}, which is not a listed country",
                "aliases",
                alias,
                found=country,
            )
        if alias in spec.countries:
            yield rule_broken(
                f"{alias!r} is a listed country itself, so it cannot be an alias", "aliases", alias
            )


@_rule("countries", "shared_features", "sharing")
def _sharing_of_listed_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country in spec.sharing.accepted:
        if country not in spec.countries:
            text = f"{country!r} is not a listed country, so nothing of it is accepted"
            yield rule_broken(text, "sharing", "accepted", country)
    if spec.shared_features is None and "sharing" in spec.model_fields_set:
        yield rule_broken("nothing is shared without `shared_features`", "sharing")


@_rule("source", "contract")
def _null_limits_of_columns(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    known = [*spec.source.columns, *spec.source.derived]
    for column in spec.contract.max_null_share:
        if column not in known:
            text = f"{column!r} is not a contract column ({', '.join(known)})"
            yield rule_broken(text, "contract", "max_null_share", column)


@_rule("task", "metric")
def _metric_of_the_task(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    allowed = METRICS_OF_TASK[spec.task]
    if spec.metric not in allowed:
        yield rule_broken(
            f"{spec.metric} is not a metric of {spec.task}; its metrics are " + ", ".join(allowed),
            "metric",
            found=spec.metric,
        )


@_rule("metric", "gates")
def _floor_of_the_metric(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    floor = spec.gates.floor
    if floor is None:
        return
    if floor < 0 or (spec.metric in ("auc", "brier") and floor > 1):
        limits = "between 0 and 1" if spec.metric in ("auc", "brier") else "not negative"
        yield rule_broken(
            f"{spec.metric} is always {limits}, so the floor {floor} says nothing",
            "gates",
            "floor",
            found=floor,
        )


@_rule("baselines", "candidates")
def _names_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    """Baselines and candidates stand in one table of results, under their names."""
    named = [("baselines", i, item.name) for i, item in enumerate(spec.baselines)]
    named += [("candidates", i, item.name) for i, item in enumerate(spec.candidates)]
    for repeated in repeats(name for *_, name in named):
        section, place, _ = [entry for entry in named if entry[2] == repeated][-1]
        text = f"the name {repeated!r} is given to more than one baseline or candidate"
        yield rule_broken(text, section, place, "name", found=repeated)


@_rule("task", "candidates")
def _offset_in_regression(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for place, candidate in enumerate(spec.candidates):
        for key in ("offset", "scale"):
            named = getattr(candidate, key)
            if named and spec.task != "regression":
                text = f"{key} is for regression only"
                yield rule_broken(text, "candidates", place, key, found=named)


@_rule("task", "predictions")
def _probabilities(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for key in ("minimum", "maximum"):
        value = getattr(spec.predictions, key)
        if spec.task == "classification" and not 0 <= value <= 1:
            yield rule_broken(
                f"{value} is no probability; classification predicts 0 to 1",
                "predictions",
                key,
                found=value,
            )


@_rule("countries", "resources")
def _sizes_of_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country in spec.resources.sizes:
        if country not in spec.countries:
            text = f"{country!r} is not a listed country"
            yield rule_broken(text, "resources", "sizes", country)


@_rule("countries", "overrides")
def _overrides_of_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country, changes in spec.overrides.items():
        if country not in spec.countries:
            yield rule_broken(f"{country!r} is not a listed country", "overrides", country)
        contract = changes.get("contract")
        if isinstance(contract, dict) and "schema_class" in contract:
            text = "one table has one contract; a country may change its limits only"
            yield rule_broken(text, "overrides", country, "contract", "schema_class")
        for section in sorted(changes.keys() - OVERRIDABLE):
            allowed = ", ".join(sorted(OVERRIDABLE))
            yield rule_broken(
                f"{section!r} cannot differ in one country; what can: {allowed}",
                "overrides",
                country,
                section,
            )


@_rule("countries", "candidates", "split", "overrides")
def _one_answer_to_refit(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    if all(candidate.scopes == ["local"] for candidate in spec.candidates):
        return
    for country, changes in spec.overrides.items():
        split = changes.get("split")
        own = split.get("refit", spec.split.refit) if isinstance(split, dict) else spec.split.refit
        if isinstance(own, bool) and own != spec.split.refit:
            text = "a pooled model serves many countries, so `refit` is the same in all of them"
            yield rule_broken(text, "overrides", country, "split", "refit", found=own)


def broken_overrides(
    spec: ProductSpec, known: Iterable[InitErrorDetails]
) -> Iterator[InitErrorDetails]:
    """Every country's resolved spec is as valid as the product's; what is `known` is told once."""
    told = {(problem.get("loc"), str(problem["type"])) for problem in known}
    for country, changes in getattr(spec, "overrides", {}).items():
        if country not in getattr(spec, "countries", ()) or not changes.keys() <= OVERRIDABLE:
            continue
        try:
            spec.for_country(country)
        except ValidationError as error:
            for details in error.errors():
                section_is_refused = details["type"] == "missing" and len(details["loc"]) == 1
                if not section_is_refused and (details["loc"], details["msg"]) not in told:
                    yield again(details, "overrides", country)


@_rule("countries", "regions")
def _regions_of_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    seen: dict[str, str] = {}
    for region, countries in spec.regions.items():
        for place, country in enumerate(countries):
            if country not in spec.countries:
                text = f"{country!r} is not a listed country"
                yield rule_broken(text, "regions", region, place, found=country)
            if country in seen:
                text = f"{country!r} is in region {seen[country]!r} already"
                yield rule_broken(text, "regions", region, place, found=country)
            seen[country] = region


@_rule("candidates", "regions")
def _region_scope_needs_regions(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for place, candidate in enumerate(spec.candidates):
        if "region" in candidate.scopes and not spec.regions:
            text = "scope region needs `regions`, and none is named"
            yield rule_broken(text, "candidates", place, "scopes")


@_rule("candidates", "tuning")
def _a_search_has_a_budget(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    tuning = spec.tuning
    local = tuning.trials or tuning.seconds
    pooled = tuning.pooled_trials or tuning.pooled_seconds
    for place, candidate in enumerate(spec.candidates):
        if candidate.space and not (local or pooled):
            text = "a `space` needs a budget: trials or seconds (pooled_...) of `tuning`"
            yield rule_broken(text, "candidates", place, "space")


@_rule("task", "gates")
def _behavioural_tests_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for name in repeats(each.name for each in spec.gates.behaviour):
        text = f"the name {name!r} is given to more than one behavioural test"
        yield rule_broken(text, "gates", "behaviour", found=name)


@_rule("candidates", "tuning")
def _each_scope_has_a_budget(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    tuning = spec.tuning
    local, pooled = tuning.trials or tuning.seconds, tuning.pooled_trials or tuning.pooled_seconds
    for place, candidate in enumerate(spec.candidates):
        if candidate.space and (local or pooled):
            of_scope = [local if scope == "local" else pooled for scope in candidate.scopes]
            if not any(of_scope):
                kind = "trials or seconds" if candidate.scopes == ["local"] else "pooled_trials"
                text = f"`tuning` has no {kind} for the scopes of this `space`"
                yield rule_broken(text, "candidates", place, "space")


@_rule("candidates")
def _a_search_starts_inside(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for place, candidate in enumerate(spec.candidates):
        for name, where in candidate.space.items():
            start = candidate.params.get(name)
            if start is not None and not _holds(where, start):
                text = f"the search starts at {start!r} of `params`, which is not in this space"
                yield rule_broken(text, "candidates", place, "space", name, found=start)


def _holds(space: SpaceSpec, value: bool | int | float | str) -> bool:
    if space.choices:
        return value in space.choices
    if isinstance(value, bool | str) or space.low is None or space.high is None:
        return False
    return space.low <= value <= space.high


@_rule("source")
def _known_with_the_record(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    source = spec.source
    for place, column in enumerate(source.known_later):
        if column in source.key and column not in (source.country, source.event_time):
            text = f"{column!r} is in `key`, so it is known with the record, not later"
            yield rule_broken(text, "source", "known_later", place, found=column)
        if column == source.arrival_time:
            text = f"{column!r} is the arrival time, which is known with the record, not later"
            yield rule_broken(text, "source", "known_later", place, found=column)


@_rule("evaluation", "gates")
def _slices_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    slices = [(*_cut(each), "") for each in spec.evaluation.slices]
    groups = [(*_cut(each), each.measure) for each in spec.gates.fairness]
    for where, named in ((("evaluation", "slices"), slices), (("gates", "fairness"), groups)):
        for place, each in enumerate(named):
            if each in named[:place]:
                text = f"{each[0]!r} is declared twice in the same way"
                yield rule_broken(text, *where, place, "feature", found=each[0])


def _cut(declared: Any) -> tuple[str, tuple[float, ...]]:
    return declared.feature, tuple(declared.edges)


@_rule("gates", "predictions")
def _tests_that_can_be_passed(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for place, test in enumerate(spec.gates.behaviour):
        least, most, where = test.at_least, test.at_most, ("gates", "behaviour", place)
        if least is not None and most is not None and least > most:
            text = f"at_least {least} is above at_most {most}, so no prediction passes"
            yield rule_broken(text, *where, "at_least", found=least)
        if least is not None and least > spec.predictions.maximum:
            text = f"at_least {least} is above predictions.maximum {spec.predictions.maximum}"
            yield rule_broken(text, *where, "at_least", found=least)
        if most is not None and most < spec.predictions.minimum:
            text = f"at_most {most} is below predictions.minimum {spec.predictions.minimum}"
            yield rule_broken(text, *where, "at_most", found=most)


@_rule("retraining")
def _old_enough_to_be_trained_again(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    age, pause = spec.retraining.max_age_days, spec.retraining.cooldown_days
    if age is not None and age < pause:
        text = f"max_age_days {age} is below cooldown_days {pause}, which keeps a country from it"
        yield rule_broken(text, "retraining", "max_age_days", found=age)
