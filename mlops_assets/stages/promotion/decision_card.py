"""The model card that a training left in MLflow, and the decision that is written into it."""

from mlops_assets.errors import RegistryError
from mlops_assets.ml.promotion.card_decision import with_decision
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.registry import ModelVersion, Registry, TrackedRun
from mlops_assets.registry.names import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.promotion.decision_log import Entry, log_of
from mlops_assets.stages.training.evaluation_metadata import CARD_FILE


def stored_card(
    ctx: CountryContext,
    number: str | None = None,
) -> str:
    """The model card that the training of a version left, with what became of it since.

    Args:
        ctx: the country.
        number: registered version; None: the champion.

    Raises:
        RegistryError: there is no such version, or no card with it.
    """
    spec = ctx.spec
    version = (
        ctx.registry.champion(ctx.product.name, ctx.country)
        if number is None
        else ctx.registry.version(registered_name(ctx.product.name, ctx.country), number)
    )
    if version is None:
        raise RegistryError(
            f"{ctx.product.name} has no champion in {ctx.country}.",
            stored="Nothing was read.",
            way_out="Name a version with --version, or materialize the country first.",
        )
    text = ctx.registry.artifact(version, CARD_FILE)
    decided = [
        entry.comparison.decision
        for entry in log_of(ctx)
        if entry.comparison.candidate == version.version or _withdrew(entry, version)
    ]
    return with_decision(text, decided[-1], spec) if decided else text


def _withdrew(entry: Entry, version: ModelVersion) -> bool:
    return entry.verdict == "withdrawn" and entry.before.champion == version.version


def write_decision(
    registry: Registry, version: ModelVersion, decision: Decision, spec: ProductSpec
) -> None:
    """Write a decision into the card in MLflow, which was there before it.

    Raises:
        RegistryError: the card is lost.
    """
    text = with_decision(registry.artifact(version, CARD_FILE), decision, spec)
    TrackedRun(version.run_id, "", "", registry.tracking_uri).log_texts({CARD_FILE: text})
