"""What a record of wholesale electricity prices must be."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa


class PowerPrice(pa.DataFrameModel):
    """One day-ahead price: country and delivery day."""

    country: str = pa.Field(str_length=3, description="ISO 3166-1 alpha-3 code")
    date: pd.Timestamp = pa.Field(
        ge=pd.Timestamp("2000-01-01"), description="day of delivery; known at its end"
    )
    price: float = pa.Field(
        in_range={"min_value": -1000, "max_value": 5000},
        description="average day-ahead price of the day, EUR/MWh; can be negative",
    )

    class Config(pa.DataFrameModel.Config):
        """Types are coerced, other columns stay out."""

        coerce = True
        strict = "filter"
