"""What a record of hotel bookings must be."""

from __future__ import annotations

import calendar

import pandas as pd
import pandera.pandas as pa

LONGEST_LEAD = 2000
"""Days; a longer lead time is a mistake and would be outside the calendar."""
MONTHS = {name: number for number, name in enumerate(calendar.month_name) if name}


class Booking(pa.DataFrameModel):
    """One booking, as the hotels' system holds it after the stay."""

    booking: int = pa.Field(ge=0, description="number of the booking")
    country: str = pa.Field(
        str_length=3,
        description="ISO 3166-1 alpha-3 code of the guests; at some hotels Portugal stands until "
        "check-in corrects it, so PRT holds cancelled bookings of others too",
    )
    hotel: str = pa.Field(isin=["City Hotel", "Resort Hotel"], description="kind of hotel")
    lead_time: int = pa.Field(
        in_range={"min_value": 0, "max_value": LONGEST_LEAD},
        description="days from booking to arrival",
    )
    arrival_year: int = pa.Field(in_range={"min_value": 2000, "max_value": 2100})
    arrival_month: str = pa.Field(description="English name of the month")
    arrival_day: int = pa.Field(in_range={"min_value": 1, "max_value": 31})
    weekend_nights: int = pa.Field(ge=0, description="Saturday and Sunday nights")
    week_nights: int = pa.Field(ge=0, description="Monday to Friday nights")
    adults: int = pa.Field(ge=0)
    children: float = pa.Field(ge=0, nullable=True)
    babies: int = pa.Field(ge=0)
    meal: str = pa.Field(description="BB, HB, FB, SC or Undefined")
    market_segment: str = pa.Field()
    distribution_channel: str = pa.Field()
    repeated_guest: int = pa.Field(isin=[0, 1], description="1: has stayed before")
    previous_cancellations: int = pa.Field(ge=0, description="bookings the guest cancelled before")
    previous_stays: int = pa.Field(ge=0, description="bookings the guest kept before")
    room_type: str = pa.Field(description="code of the room type asked for")
    agent: str = pa.Field(nullable=True, description="number of the travel agency; none: no agent")
    company: str = pa.Field(nullable=True, description="number of the paying company")
    customer_type: str = pa.Field()
    daily_rate: float = pa.Field(
        in_range={"min_value": 0, "max_value": 1000},
        description="average price of a night, EUR; 0 is a free stay",
    )
    special_requests: int = pa.Field(ge=0, description="requests such as a high floor")
    is_canceled: int = pa.Field(
        isin=[0, 1], description="1: cancelled or no-show; known on the day of arrival"
    )
    arrival_date: pd.Timestamp = pa.Field(description="derived from year, month and day")
    booking_date: pd.Timestamp = pa.Field(description="derived: arrival less lead time")

    @pa.dataframe_parser
    def add_dates(cls, frame: pd.DataFrame) -> pd.DataFrame:
        """Arrival and booking date; missing where there is no such day."""
        day = {
            "year": frame["arrival_year"],
            "month": frame["arrival_month"].map(MONTHS),
            "day": frame["arrival_day"],
        }
        arrival = pd.to_datetime(pd.DataFrame(day), errors="coerce")
        lead = pd.to_timedelta(frame["lead_time"].clip(0, LONGEST_LEAD), unit="D")
        return frame.assign(arrival_date=arrival, booking_date=arrival - lead)

    @pa.dataframe_check
    def somebody_comes(cls, frame: pd.DataFrame) -> pd.Series:
        """A booking is for at least one person."""
        return frame["adults"] + frame["children"].fillna(0) + frame["babies"] > 0

    class Config(pa.DataFrameModel.Config):
        """Types are coerced, other columns stay out."""

        coerce = True
        strict = "filter"
