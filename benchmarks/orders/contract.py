"""What an order must be: the checks a person would write."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa


class Order(pa.DataFrameModel):
    """One order."""

    country: str = pa.Field(str_length=3)
    record: int = pa.Field(ge=0)
    day: pd.Timestamp = pa.Field(ge=pd.Timestamp("2000-01-01"))
    price: float = pa.Field(in_range={"min_value": 0, "max_value": 1000})
    volume: int = pa.Field(in_range={"min_value": 0, "max_value": 1_000_000})
    share: float = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 1})
    colour: str = pa.Field(isin=["red", "green", "blue", "black"])
    city: str = pa.Field()
    age: pd.Int64Dtype = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 120})
    delta: float = pa.Field(in_range={"min_value": -10, "max_value": 10})
    flag: bool = pa.Field()
    note: str = pa.Field(nullable=True)

    class Config(pa.DataFrameModel.Config):
        """Types are coerced, other columns stay out."""

        coerce = True
        strict = "filter"
