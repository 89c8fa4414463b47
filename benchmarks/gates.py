"""How many known-bad candidates the gates and the decision stop, and how many equal ones pass.

On the published files, after the main job ran on them once: in every country that is tried, bad
candidates of each kind are made out of the champion and its rows (`mutants`), judged by the very
functions that judge real candidates, and compared with the champion. A candidate that is promoted
was not caught. Equal candidates are the champion's recipe and rows with another seed; one that is
promoted is a false promotion. A leaked target is stopped before any training, by the point-in-time
check of `features`.

Nothing is registered, so `loads_and_predicts` and `latency_and_size` are taken as passed and stop
nobody here. For what the gates do alone, everything is judged once more as if there were no
champion yet (`caught_without_champion`).

    python -m benchmarks.gates [--data ../shared/data] [--home FOLDER] [--countries 6] [--seeds 2]

Printed, and kept in `benchmarks/results/gates.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.mutants import BAD, Ground, Mutant, another_seed
from mlops_assets.components.loading import load_product
from mlops_assets.ml.features.feature_frame import build_features, check_point_in_time
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.judgement import judge
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import split
from mlops_assets.ml.promotion.decision import decide
from mlops_assets.ml.training.selection import pooled_rows, region_of
from mlops_assets.product import Product
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.settings import PROJECT_ROOT, load_settings
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import path
from mlops_assets.stages.training.intervals import intervals_of
from mlops_assets.stages.training.serving import (
    evaluation_model,
    evaluation_split,
    fitted,
    params_of,
)
from mlops_assets.storage import SnapshotStore

RESULTS = Path(__file__).parent / "results" / "gates.json"
LEAK = "a leaked target"
EQUAL = "another seed"
COUNTRIES: Mapping[str, tuple[str, ...]] = {
    "power_price": ("DEU", "FRA", "ESP", "POL", "GRC", "SWE", "ITA", "HUN", "NLD", "FIN"),
    "booking_cancellation": ("PRT", "GBR", "FRA", "ESP", "DEU", "ITA", "IRL", "BEL", "BRA", "NLD"),
}
"""Large and small ones, of every corner; the first so many are tried."""
GOAL_CAUGHT, GOAL_OF_A_KIND, GOAL_FALSE = 0.95, 0.90, 0.05
USABLE = tuple(
    GateResult(name, True, float("nan"), float("nan"), "not tried here")
    for name in ("loads_and_predicts", "latency_and_size")
)


@dataclass(frozen=True)
class Trial:
    """What became of one candidate.

    Attributes:
        product: whose.
        country: where.
        kind: of candidate.
        seed: it was made with.
        promoted: over the champion.
        promoted_first: had there been no champion.
        stopped_by: the gates that failed, or `decision` when only the comparison stopped it.
    """

    product: str
    country: str
    kind: str
    seed: int
    promoted: bool
    promoted_first: bool
    stopped_by: tuple[str, ...]


def try_candidate(ground: Ground, kind: str, mutant: Mutant, product: str, *, seed: int) -> Trial:
    """Judge a candidate as a training would, and decide."""
    low, high = (mutant.predicted + side for side in mutant.width)
    verdicts: dict[bool, tuple[str, tuple[GateResult, ...]]] = {}
    for with_champion in (True, False):
        judged = judge(
            ground.spec,
            ground.parts.holdout,
            mutant.model,
            mutant.predicted,
            train=ground.parts.final,
            low=low,
            high=high,
            champion=ground.predicted if with_champion else None,
            usable=USABLE,
            next_rows=mutant.next_rows,
        )
        pair = ModelPair(candidate="2", champion="1" if with_champion else "")
        made = decide(ground.spec, judged.evidence, judged.gates, pair)
        verdicts[with_champion] = made.verdict, judged.gates
    verdict, gates = verdicts[True]
    failed = tuple(gate.name for gate in gates if gate.passed is False)
    promoted = verdict == "promoted"
    stopped = () if promoted else failed or ("decision",)
    return Trial(
        product, ground.country, kind, seed, promoted, verdicts[False][0] == "promoted", stopped
    )


def trials_of(ground: Ground, product: str, seeds: Sequence[int]) -> Iterator[Trial]:
    """Every kind of candidate in one country, as often as there are seeds."""
    for seed in seeds:
        for kind, make in {**BAD, EQUAL: another_seed}.items():
            yield try_candidate(ground, kind, make(ground, seed), product, seed=seed)


def summary(trials: Sequence[Trial]) -> dict[str, object]:
    """Shares over all trials and by kind, and which gate stopped how many."""
    bad = [trial for trial in trials if trial.kind != EQUAL]
    equal = [trial for trial in trials if trial.kind == EQUAL]
    return {
        "caught": _share_caught(bad),
        "false_promotions": 1.0 - _share_caught(equal),
        "caught_without_champion": float(np.mean([not each.promoted_first for each in bad])),
        "kinds": {kind: _of_kind(trials, kind) for kind in dict.fromkeys(t.kind for t in trials)},
        "countries": dict(Counter(f"{t.product} {t.country}" for t in trials)),
        "promoted_though_bad": [
            f"{each.product} {each.country}: {each.kind}, seed {each.seed}"
            for each in bad
            if each.promoted
        ],
    }


def _of_kind(trials: Sequence[Trial], kind: str) -> dict[str, object]:
    own = [trial for trial in trials if trial.kind == kind]
    stopped = Counter(name for trial in own for name in trial.stopped_by)
    return {
        "tried": len(own),
        "stopped": _share_caught(own),
        "stopped_without_champion": float(np.mean([not each.promoted_first for each in own])),
        "stopped_by": {name: count / len(own) for name, count in stopped.most_common()},
    }


def _share_caught(trials: Sequence[Trial]) -> float:
    return float(np.mean([not trial.promoted for trial in trials])) if trials else float("nan")


def missed_goals(found: Mapping[str, object]) -> list[str]:
    """What is not as it must be, in words."""
    kinds: Mapping[str, Mapping[str, float]] = found["kinds"]  # type: ignore[assignment]
    problems = [
        f"{kind}: {held['stopped']:.0%} stopped, at least {GOAL_OF_A_KIND:.0%} must be"
        for kind, held in kinds.items()
        if kind != EQUAL and held["stopped"] < GOAL_OF_A_KIND
    ]
    if float(found["caught"]) < GOAL_CAUGHT:  # type: ignore[arg-type]
        problems.append(f"caught {found['caught']:.1%}, at least {GOAL_CAUGHT:.0%} must be")
    if float(found["false_promotions"]) > GOAL_FALSE:  # type: ignore[arg-type]
        text = f"{found['false_promotions']:.1%} of equal candidates promoted"
        problems.append(f"{text}, at most {GOAL_FALSE:.0%} may be")
    return problems


def grounds(product: Product, countries: Sequence[str]) -> Iterator[Ground]:
    """Those of the countries that have a champion."""
    settings = load_settings()
    store = SnapshotStore(settings.storage)
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts)
    frames = store.read_all(path(product, "features"), list(product.spec.countries))
    champions = registry.champions(product.name)
    for country in [name for name in countries if name in champions]:
        yield _ground(product, country, frames, champions[country], registry=registry)


def _ground(
    product: Product,
    country: str,
    frames: Mapping[str, pd.DataFrame],
    version: ModelVersion,
    *,
    registry: Registry,
) -> Ground:
    spec, name = product.resolved(country), version.tags["candidate"]
    parts = split(frames[country], evaluation_split(version, spec))
    model = fitted(name, evaluation_model(version), spec, registry)
    predicted = predict(model, parts.holdout, spec.task)
    recipe = next(each for each in spec.candidates if each.name == name)
    return Ground(
        country=country,
        spec=spec,
        parts=parts,
        rows=_learned_from(product, country, frames, version),
        other=_unlike(product, country, frames),
        recipe=recipe.model_copy(update={"params": dict(params_of(version)), "space": {}}),
        champion=model,
        predicted=predicted,
        width=_width(spec, parts.holdout, predicted, version, registry=registry),
    )


def _learned_from(
    product: Product, country: str, frames: Mapping[str, pd.DataFrame], version: ModelVersion
) -> pd.DataFrame:
    """What the champion had learned when it was judged: the rows of its country, region or all."""
    spec = product.resolved(country)
    if version.kind == "local":
        return split(frames[country], evaluation_split(version, spec)).final
    region = spec.regions.get(region_of(spec, country), [])
    shared = region if version.kind == "region" else list(frames)
    return pooled_rows(product.spec, {name: frames[name] for name in shared}).final


def _width(
    spec: ProductSpec,
    holdout: pd.DataFrame,
    predicted: np.ndarray,
    version: ModelVersion,
    *,
    registry: Registry,
) -> tuple[np.ndarray, np.ndarray]:
    if spec.task != "regression":
        none = np.full(len(predicted), np.nan)
        return none, none
    around = intervals_of(version, holdout, predicted, spec, registry=registry)
    return around.low - predicted, around.high - predicted


def _unlike(product: Product, country: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Training rows of the country whose labels are least like this one's, among those with many.

    Like: the mean of the label, in units of this country's spread.
    """
    finals = {
        name: split(frame, product.resolved(name).split).final for name, frame in frames.items()
    }
    own = finals[country]["label"]
    enough = product.spec.split.min_train_rows
    far = {
        name: abs(rows["label"].mean() - own.mean()) / own.std()
        for name, rows in finals.items()
        if name != country and len(rows) >= enough and rows["label"].nunique() > 1
    }
    return finals[max(far, key=lambda name: far[name])]


def leak_is_stopped(product: Product, country: str, store: SnapshotStore) -> bool:
    """Whether the point-in-time check stops a feature that is the label itself."""
    spec, function = product.resolved(country), product.feature_function()
    validated = store.read((product.name, "validated"), country)
    named = product.spec.shared_features
    shared = store.read((product.name, "shared_features"), None) if named else None

    def leaking(*inputs: pd.DataFrame) -> pd.DataFrame:
        made = function(*inputs)
        return made.assign(leaked=made["label"])

    frame = build_features(validated, leaking, spec.target, shared)
    result = check_point_in_time(
        validated, frame, leaking, spec.source, target=spec.target, seed=spec.seed, shared=shared
    )
    return not result.passed


def leak_trials(product: Product, countries: Sequence[str]) -> Iterator[Trial]:
    """A feature that is the label itself, in every country."""
    store = SnapshotStore(load_settings().storage)
    for country in countries:
        stopped = leak_is_stopped(product, country, store)
        by = ("point_in_time",) if stopped else ()
        yield Trial(product.name, country, LEAK, 0, not stopped, not stopped, by)


def report(found: Mapping[str, object]) -> str:
    """The shares as a table for the terminal."""
    kinds: Mapping[str, Mapping[str, Any]] = found["kinds"]  # type: ignore[assignment]
    lines = [f"{'kind':34} {'tried':>5} {'stopped':>8} {'first':>8}  stopped by"]
    for kind, held in kinds.items():
        by = ", ".join(f"{name} {share:.0%}" for name, share in held["stopped_by"].items())
        lines.append(
            f"{kind:34} {held['tried']:5} {held['stopped']:8.1%} "
            f"{held['stopped_without_champion']:8.1%}  {by}"
        )
    lines.append(
        f"caught {found['caught']:.1%} of the bad ones, promoted {found['false_promotions']:.1%} "
        f"of the equal ones; without a champion {found['caught_without_champion']:.1%} caught"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__)
    parser.add_argument("--data", type=Path, default=PROJECT_ROOT.parent / "shared" / "data")
    parser.add_argument("--home", type=Path, help="where the main job ran; default: run it now")
    parser.add_argument("--countries", type=int, default=6, help="of each product")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLOPS_ASSETS_HOME"] = str(given.home or folder)
        if given.home is None:
            command = [sys.executable, "-m", "mlops_assets.cli", "demo", "--data", str(given.data)]
            subprocess.run(command, check=True)
        trials = list(_all_trials(given.countries, range(given.seeds)))
    found = summary(trials)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))
    problems = missed_goals(found)
    print("\n".join(problems) or "every goal is met")
    return 1 if problems else 0


def _all_trials(countries: int, seeds: Sequence[int]) -> Iterator[Trial]:
    for name, chosen in COUNTRIES.items():
        product = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / name)
        yield from leak_trials(product, chosen[:countries])
        for ground in grounds(product, chosen[:countries]):
            print(f"{name} {ground.country}", flush=True)
            for trial in trials_of(ground, name, seeds):
                if trial.promoted:
                    print(f"  promoted: {trial.kind}, seed {trial.seed}", flush=True)
                yield trial


if __name__ == "__main__":
    sys.exit(main())
