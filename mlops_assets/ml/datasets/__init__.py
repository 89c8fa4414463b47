"""From delivered rows to records that keep the contract."""
