"""Products: one folder each, with `defs.yaml`, a contract and a feature function."""
