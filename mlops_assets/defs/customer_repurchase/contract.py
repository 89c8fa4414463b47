"""What a record of invoices must be."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa


class Invoice(pa.DataFrameModel):
    """One invoice, as the shop's system holds it when it is written."""

    invoice: str = pa.Field(str_length={"min_value": 1}, description="number of the invoice")
    country: str = pa.Field(str_length=3, description="ISO 3166-1 alpha-3 code of the customer")
    customer: str = pa.Field(nullable=True, description="number of the customer; none: a guest")
    invoiced_at: pd.Timestamp = pa.Field(description="when the invoice was written, UTC")
    items: int = pa.Field(ge=1, description="pieces sold")
    amount: float = pa.Field(
        in_range={"min_value": 0, "max_value": 100_000}, description="sum of the invoice, GBP"
    )

    class Config(pa.DataFrameModel.Config):
        """Types are coerced, and columns that are not named above stay out."""

        coerce = True
        strict = "filter"
