"""What goes from the records of one country into what all share."""

from __future__ import annotations

from pydantic import Field

from mlops_assets.spec.fields import Country, Day, Duration, Share, Strict


class SharingSpec(Strict):
    """How unlike its own past a country's records may be where other countries read them."""

    plausible: bool = Field(
        default=True,
        description="whether records that do not follow from the country's own past (another "
        "unit, another sign, no change any more) are held out of shared features; they stay in "
        "the country's own",
        examples=[True],
    )
    min_factor: float = Field(
        default=5.0,
        gt=1.0,
        description="smallest ratio to the newest steps before that can be implausible",
        examples=[5.0],
    )
    margin: float = Field(
        default=3.0,
        gt=1.0,
        description="by what factor the largest ratio of the country's own past must be exceeded",
        examples=[3.0],
    )
    accept_after: Duration = Field(
        default="28d",
        description="how long a jump goes on, in event time and over three steps at least, before "
        "it is taken for true by itself",
        examples=["28d"],
    )
    accepted: dict[Country, Day] = Field(
        default={},
        description="country: date up to which jumps that begin are true, because a person says "
        "so: the day the message names, for every column and for every earlier jump of the country",
        examples=[{"FRA": "2026-03-09"}],
    )
    incident_share: Share = Field(
        default=0.5,
        description="share of the countries with records of a day whose jump on it is an incident "
        "upstream: nobody's records of that day are shared",
        examples=[0.5],
    )
    incident_countries: int = Field(
        default=3,
        ge=2,
        description="fewest countries whose jumps are an incident upstream",
        examples=[3],
    )
