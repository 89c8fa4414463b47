"""Whether every candidate's estimator can be made with its parameters, and does the task."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from mlops_assets.components import schema
from mlops_assets.components.soundness.found import not_among, problem, specs_of
from mlops_assets.components.strict_yaml import Loc, YamlProblem
from mlops_assets.spec import CandidateSpec, ProductSpec, Task

_OPEN_ENDED = 0.6


def estimator_problems(spec: ProductSpec) -> Iterator[YamlProblem]:
    """Every candidate that cannot be made or cannot do the task; of a country's own ones too."""
    told: set[str] = set()
    for where, own in specs_of(spec, "candidates"):
        for place, candidate in enumerate(own.candidates):
            if (known := candidate.model_dump_json()) not in told:
                told.add(known)
                yield from _of(candidate, own.task, (*where, "candidates", place))


def _of(candidate: CandidateSpec, task: Task, loc: Loc) -> Iterator[YamlProblem]:
    found, wrong = _class_of(candidate.estimator)
    if wrong:
        yield problem((*loc, "estimator"), wrong)
        return
    unknown = list(_unknown_parameters(candidate, found, loc))
    yield from unknown
    if unknown:
        return
    try:
        made = found(**candidate.params)
    except Exception as error:
        text = f"{candidate.estimator} refuses its parameters: {type(error).__name__}: {error}"
        yield problem((*loc, "params"), text)
        return
    if text := _not_for(made, candidate, task):
        yield problem((*loc, "estimator"), text)


def _class_of(path: str) -> tuple[Any, str]:
    """The class, or why there is none."""
    module, _, name = path.rpartition(".")
    try:
        inside = importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = (
            f'; install it: pip install "mlops_assets[{package}]"' if package == "lightgbm" else ""
        )
        return None, f"{path} cannot be imported: {error}{extra}"
    found = getattr(inside, name, None)
    if found is None:
        classes = [n for n, each in vars(inside).items() if _is_estimator(each)]
        return None, not_among(name, f"class of {module}", sorted(classes))
    if not _is_estimator(found):
        return None, f"{path} is no estimator class: it has no `fit`, `predict` and `get_params`"
    return found, ""


def _is_estimator(found: Any) -> bool:
    has = all(hasattr(found, each) for each in ("fit", "predict", "get_params"))
    return inspect.isclass(found) and has


def _unknown_parameters(candidate: CandidateSpec, found: Any, loc: Loc) -> Iterator[YamlProblem]:
    """Names in `params` and `space` that the constructor does not take."""
    takes = inspect.signature(found).parameters
    known = [name for name, each in takes.items() if each.kind != inspect.Parameter.VAR_KEYWORD]
    takes_others = len(known) < len(takes)
    for key in ("params", "space"):
        for name in getattr(candidate, key):
            if name in known or (takes_others and schema.closest(name, known) is None):
                continue
            text = not_among(name, f"parameter of {candidate.estimator}", sorted(known))
            yield problem((*loc, key, name), text)


def _not_for(made: Any, candidate: CandidateSpec, task: Task) -> str:
    """Why an estimator cannot do the task; "" if it can."""
    from sklearn.base import is_classifier, is_regressor

    other = is_classifier(made) if task == "regression" else is_regressor(made)
    if other:
        kind = "classifier" if task == "regression" else "regressor"
        return f"{candidate.estimator} is a {kind}, and the task is {task}"
    if task == "classification" and not hasattr(made, "predict_proba"):
        text = (
            f"{candidate.estimator} as it is set up gives no probabilities (predict_proba), which"
        )
        return f"{text} classification needs"
    return ""
