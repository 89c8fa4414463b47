"""The same orders, as many as wanted, in a file of each format."""

from __future__ import annotations

from pathlib import Path

import duckdb

QUERY = """
SELECT
    'C' || lpad((chance(record, 0) % 40)::VARCHAR, 2, '0') AS country,
    record,
    DATE '2015-01-01' + (chance(record, 1) % 4000)::INTEGER AS day,
    CASE WHEN chance(record, 2) % 500 = 0 THEN 9999.0
         ELSE (chance(record, 3) % 100000) / 100 END AS price,
    (chance(record, 4) % 100000)::INTEGER AS volume,
    CASE WHEN chance(record, 5) % 10 > 0 THEN (chance(record, 6) % 10000) / 10000 END AS share,
    CASE WHEN chance(record, 7) % 1000 = 0 THEN 'unknown'
         ELSE ['red', 'green', 'blue', 'black'][1 + (chance(record, 8) % 4)::INTEGER] END AS colour,
    'city ' || (chance(record, 9) % 500) AS city,
    CASE WHEN chance(record, 10) % 20 > 0 THEN (chance(record, 11) % 90)::INTEGER END AS age,
    round((chance(record, 12) % 10000) / 1000 - 5, 3) AS delta,
    chance(record, 13) % 2 = 0 AS flag,
    CASE WHEN chance(record, 14) % 4 > 0 THEN 'note ' || (chance(record, 15) % 10000) END AS note
FROM (SELECT place - CASE WHEN place % 1000 = 999 THEN 500 ELSE 0 END AS record
      FROM range({rows}) AS places(place))
"""
"""One record in a thousand comes twice, three in a thousand break the contract."""


def write_orders(parquet: Path, csv: Path, rows: int, seed: int) -> None:
    """Generate orders.

    Args:
        parquet: file with typed columns.
        csv: file with the same rows as text.
        rows: records, the repeated ones counted.
        seed: of everything; equal seeds give equal rows.
    """
    with duckdb.connect() as con:
        con.execute("SET enable_progress_bar = false")
        con.execute(f"CREATE MACRO chance(record, what) AS hash(record * 64 + what + {seed} * 16)")
        con.execute(f"COPY ({QUERY.format(rows=rows)}) TO '{parquet}' (FORMAT parquet)")
        con.execute(f"COPY (FROM '{parquet}') TO '{csv}' (HEADER)")
