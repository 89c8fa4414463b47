"""Pooled models beside those in use, compared once when they are trained.

A country's decision reads what was stored then (`ml.gates.succession`). It looks at no other one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.gates.succession import (
    HoldoutRows,
    PooledComparison,
    compare_successors,
    comparison_for,
    comparisons_from_json,
    comparisons_to_json,
    model_title,
    pooled_predictions,
)
from mlops_assets.ml.training.selection import (
    PooledModel,
    pooled_name,
    pooled_names,
    pooled_rows,
    region_of,
)
from mlops_assets.registry import ModelVersion, Registry, TrackedRun
from mlops_assets.registry.names import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import INPUTS
from mlops_assets.stages.training.serving import (
    evaluation_model,
    fitted,
    pooled_key,
    pooled_versions,
)

POOLED_EVIDENCE = "pooled_evidence"
"""Snapshots of the holdout rows of all countries with the predictions of pooled models."""
SUCCESSION_FILE = "succession.json"
POOLED_EVIDENCE_TAG = f"snapshot.{POOLED_EVIDENCE}"
"""On a registered pooled model: content hash of the rows it was compared with others on. Retention
keeps what a `snapshot.` tag names."""


def keep_comparisons(
    ctx: ProductContext,
    run: TrackedRun,
    models: Mapping[str, PooledModel],
    versions: Mapping[str, ModelVersion],
    *,
    frames: Mapping[str, pd.DataFrame],
    made_from: Mapping[str, str],
) -> list[PooledComparison]:
    """Compare pooled models with those they may follow, and store rows and outcome.

    Nothing is stored where no pooled model is in use yet.

    Args:
        ctx: the product.
        run: the MLflow run of the training.
        models: that may be put into use, by pooled name.
        versions: of them, as they were registered.
        frames: the features of all countries, which they were trained on.
        made_from: content hash of these, by country.
    """
    rivals = _in_use(ctx)
    if not models or not rivals:
        return []
    spec, rows = ctx.spec, pooled_rows(ctx.spec, frames)
    held = HoldoutRows(rows.holdout, rows.holdout_country)
    titles = []
    for name, model in models.items():
        predicted = pooled_predictions(spec, held, model.final, region=model.region)
        if predicted is not None:
            titles.append(model_title(name, versions[name].version))
            held = held.having(titles[-1], predicted)
    candidates = list(held.predictions)
    held = _with_rivals(spec, held, rivals, ctx.registry)
    evidence = held.frame(spec)
    written = ctx.store.write(
        ctx.path(POOLED_EVIDENCE),
        None,
        evidence,
        run_id=run.run_id,
        metadata={INPUTS: dict(made_from)},
    )
    digest = written.snapshot.content_hash
    champions = [title for title in held.predictions if title in rivals]
    made = [
        replace(each, evidence=digest)
        for each in compare_successors(spec, evidence, candidates, champions)
        if each.rows
    ]
    run.log_texts({SUCCESSION_FILE: comparisons_to_json(made)})
    for version in versions.values():
        ctx.registry.tag(version, {POOLED_EVIDENCE_TAG: digest})
    return made


def comparison_of(
    ctx: CountryContext, candidate: ModelVersion, champion: ModelVersion | None
) -> PooledComparison | None:
    """The pooled models behind a country's candidate and champion, as they were compared.

    Args:
        ctx: the country.
        candidate: a version of the country's.
        champion: the one in use; None without one.

    Returns:
        None where one of the two is no pooled model.
    """
    ours, theirs = pooled_title(candidate), pooled_title(champion) if champion else ""
    if not ours or not theirs:
        return None
    try:
        made = _made_with(ctx.whole, candidate)
    except RegistryError as error:
        return PooledComparison(ours, theirs, problem=error.problem)
    return comparison_for(made, ours, theirs, region_of(ctx.product.spec, ctx.country))


def pooled_title(version: ModelVersion) -> str:
    """What the pooled model of a country's version is called in comparisons; "" for a local one."""
    number = version.tags.get("pooled_version", "")
    return model_title(_pooled_name(version), number) if number else ""


def _pooled_name(version: ModelVersion) -> str:
    return pooled_name(version.tags["candidate"], version.tags.get("region", ""))


def _made_with(ctx: ProductContext, candidate: ModelVersion) -> list[PooledComparison]:
    """All comparisons made when a country's pooled candidate was trained."""
    name = registered_name(ctx.name, pooled_key(_pooled_name(candidate)))
    pooled = ctx.registry.version(name, candidate.tags["pooled_version"])
    if POOLED_EVIDENCE_TAG not in pooled.tags:
        return []
    return comparisons_from_json(ctx.registry.artifact(pooled, SUCCESSION_FILE))


def _in_use(ctx: ProductContext) -> dict[str, ModelVersion]:
    """Pooled models in use in a country, and those offered to all so far, by title."""
    versions = {
        model_title(name, version.version): version
        for name, version in pooled_versions(ctx).items()
    }
    for champion in ctx.registry.champions(ctx.name).values():
        title = pooled_title(champion)
        if title and title not in versions and _pooled_name(champion) in pooled_names(ctx.spec):
            versions[title] = champion
    return versions


def _with_rivals(
    spec: ProductSpec,
    held: HoldoutRows,
    rivals: Mapping[str, ModelVersion],
    registry: Registry,
) -> HoldoutRows:
    """With what the models in use predict, as they were judged; those that cannot are left out."""
    for title, version in _known(rivals.items()):
        try:
            model = fitted(version.name, evaluation_model(version), spec, registry)
        except RegistryError:  # its countries are told that it was not compared
            continue
        region = version.tags.get("region", "")
        predicted = pooled_predictions(spec, held, model, region=region, unseen_from=model.until)
        if predicted is not None:
            held = held.having(title, predicted)
    return held


def _known(rivals: Iterable[tuple[str, ModelVersion]]) -> list[tuple[str, ModelVersion]]:
    """Those that say up to when they learned, without which no row is for certain new to them."""
    return [
        (title, version) for title, version in rivals if "until" in evaluation_model(version).tags
    ]
