"""When a model in use is taken out of use: it is significantly worse than the naive rule.

What serves in its place is decided where it is done, from the same rows (`promotion.withdrawal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.spec import RetrainingSpec

if TYPE_CHECKING:
    from mlops_assets.ml.retraining.plan import CountryState


@dataclass(frozen=True)
class WithdrawalAsk:
    """A champion that is to be taken out of use.

    Args:
        key: the same for the same version and evidence: what was decided is not asked again.
        reason: in words, with numbers.
    """

    key: str
    reason: str


def ask_withdrawal(policy: RetrainingSpec, country_state: CountryState) -> WithdrawalAsk | None:
    """Whether a country's champion is to be taken out of use; None: it stays.

    Args:
        policy: of the country.
        country_state: whose realised error and `on_baseline` are of the champion.
    """
    champion, gain = country_state.champion, country_state.on_baseline
    if not (policy.withdraw and champion and gain.has_interval and gain.upper < 0.0):
        return None
    realised = country_state.realised
    if realised is not None and realised.version != champion:
        return None
    seen = country_state.evidence.get("performance", "")
    reason = (
        f"version {champion} is significantly worse than the baseline on the same matured rows: "
        f"gain {gain.value:.3g}, at most {gain.upper:.3g}"
    )
    return WithdrawalAsk(f"{country_state.country} withdraw of version {champion}: {seen}", reason)
