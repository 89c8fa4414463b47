"""What a run of a country may use, by how large the country is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.spec.fields import Country, Strict, refuse, rule_broken

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")
"""Smallest first."""


class SizeClass(Strict):
    """What a run of a country of this size is given where runs have machines of their own."""

    cpu: float = Field(
        default=1.0, gt=0.0, le=256.0, description="cores, requested for a run", examples=[1.0]
    )
    memory_gb: float = Field(
        default=2.0,
        gt=0.0,
        le=4096.0,
        description="GiB of memory, requested for a run, and its limit",
        examples=[2.0],
    )


_DEFAULTS: Mapping[Size, SizeClass] = {
    "small": SizeClass(cpu=1.0, memory_gb=2.0),
    "medium": SizeClass(cpu=1.0, memory_gb=4.0),
    "large": SizeClass(cpu=2.0, memory_gb=8.0),
}


class ResourcesSpec(Strict):
    """How large each country is, and what its runs are given.

    A country that is named nowhere has the size its own newest run says, and is small before its
    first one.
    """

    small: SizeClass = Field(
        default=_DEFAULTS["small"], description="a small country", examples=[{"cpu": 1.0}]
    )
    medium: SizeClass = Field(
        default=_DEFAULTS["medium"], description="a medium country", examples=[{"cpu": 1.0}]
    )
    large: SizeClass = Field(
        default=_DEFAULTS["large"],
        description="a large country; runs of this size have a queue of their own and never take "
        "every worker",
        examples=[{"cpu": 4.0, "memory_gb": 16.0}],
    )
    sizes: dict[Country, Size] = Field(
        default={},
        description="countries whose size is set here and not learned from their runs",
        examples=[{"DEU": "large"}],
    )
    whole: Size = Field(
        default="large",
        description="size of the runs of all countries at once that train or compute: pooled "
        "models and shared features",
        examples=["large"],
    )
    medium_seconds: float = Field(
        default=120.0,
        gt=0.0,
        description="a country whose newest full run took longer is medium",
        examples=[120.0],
    )
    large_seconds: float = Field(
        default=600.0,
        gt=0.0,
        description="a country whose newest full run took longer is large",
        examples=[600.0],
    )

    @model_validator(mode="after")
    def _rules(self) -> ResourcesSpec:
        if self.large_seconds < self.medium_seconds:
            text = f"{self.large_seconds:g} is below medium_seconds, {self.medium_seconds:g}"
            refuse("ResourcesSpec", [rule_broken(text, "large_seconds")])
        return self

    def of(self, size: Size) -> SizeClass:
        """What a run of this size is given."""
        given: SizeClass = getattr(self, size)
        return given

    def learned(self, seconds: float | None, memory_mb: float | None) -> Size:
        """The size that a run says.

        Args:
            seconds: wall time of the newest successful run; None: there was none.
            memory_mb: peak memory of its process in MiB; None: not known.
        """
        took, used = seconds or 0.0, (memory_mb or 0.0) / 1024.0
        if took > self.large_seconds or used > self.medium.memory_gb:
            return "large"
        return "medium" if took > self.medium_seconds or used > self.small.memory_gb else "small"
