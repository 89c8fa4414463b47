"""What a person finds on an asset's page: columns, previews, facts, plots; narrow enough to read.

The UI cuts off what is wider than the page, so that wide frames are shown with a row a column.
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.storage.io_manager import METADATA_PREFIX

if TYPE_CHECKING:
    import pandas as pd

_PREVIEW_ROWS = 5
_WIDE_COLUMNS = 8
_WIDE_PREVIEW = ("newest", "second newest", "third newest")
_WIDE_TEXT = 25  # characters of a value in a wide preview: a time with its zone fits
_SET_BY_IO_MANAGER = ("dagster/row_count", "dagster/partition_row_count", "dagster/uri")
_TYPES = {"object": "string", "str": "string", "category": "string", "bool": "boolean"}

SOURCE_COLUMN_DOCS = {
    "_source_file": ("string", "name of the delivered file"),
    "_source_hash": ("string", "hash of the file's content"),
    "_source_line": ("int", "number of the record in the file, from 1"),
    "_ingested_at": ("timestamp", "when the file was taken, UTC"),
}
REPLACED_COLUMN = {
    "_replaced_at": (
        "timestamp",
        "when a newer version of the file came without this row; empty while the row stands",
    ),
}


def schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    """Column: type and description, as the UI lists them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=kind, description=text)
            for name, (kind, text) in columns.items()
        ]
    )


def frame_schema(frame: "pd.DataFrame", described: Mapping[str, str]) -> dg.TableSchema:
    """Columns of a frame; those without a description get their range and share of empty values."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                str(name),
                type=_type(values.dtype),
                description=described.get(str(name)) or _range(values),
            )
            for name, values in frame.items()
        ]
    )


def raw_schema(product: Product) -> dg.TableSchema:
    """Published columns with the names they get."""
    published = {
        column: ("as published", f"becomes `{name}`")
        for name in product.spec.source.columns
        for column in product.spec.source.published(name)
    }
    return schema({**published, **SOURCE_COLUMN_DOCS, **REPLACED_COLUMN})


def quarantine_schema(product: Product) -> dg.TableSchema:
    """Published columns as text, where they are from, and the rules they broke."""
    published = {
        column: ("string", f"as delivered; `{name}` in the contract")
        for name in product.spec.source.columns
        for column in product.spec.source.published(name)[:1]
    }
    rules = {"_rules": ("string", "names of the broken rules, with ; between them")}
    return schema({**published, **SOURCE_COLUMN_DOCS, **rules})


def predictions_schema(product: Product) -> dg.TableSchema:
    """Columns of `predictions`, in the unit of the target."""
    spec = product.spec
    share = f"{spec.predictions.interval:.0%}"
    return schema(
        {
            "entity": ("string", "what the prediction is about"),
            "event_time": ("timestamp", "when the prediction is made"),
            "prediction": ("float", f"{spec.target.description} ({spec.target.unit})"),
            "lower": ("float", f"lower end of the {share} interval; empty for a class"),
            "upper": ("float", f"upper end of the {share} interval; empty for a class"),
            "made": (
                "string",
                "hindcast: its truth was known when the model was trained, by a model that had not "
                "seen it; late: known by now; ahead: not known yet",
            ),
            "model_kind": ("string", "local, region, pooled or baseline"),
            "model_version": ("string", "registered version; empty for a baseline"),
            "reason": ("string", "why this model serves"),
            "features_version": ("string", "content hash of the features it was made from"),
            "previous_version": ("string", "version in use before; empty for none"),
            "previous_prediction": (
                "float",
                "what that one predicts; empty for rows whose truth was known at its training or "
                "the model's",
            ),
            "beyond": (
                "string",
                "clipped: the model's is beyond the range, and this is the limit; baseline: the "
                "baseline answers in its place; empty: as the model says",
            ),
            "as_predicted": ("float", "what the model says where `beyond` is not empty"),
        }
    )


def table_metadata(frame: "pd.DataFrame") -> dg.TableMetadataValue:
    """A frame as a table."""
    records = [
        dg.TableRecord({str(k): _cell(v) for k, v in row.items()})
        for row in frame.to_dict(orient="records")
    ]
    columns = [dg.TableColumn(str(name), type=_type(kind)) for name, kind in frame.dtypes.items()]
    return dg.TableMetadataValue(records, dg.TableSchema(columns=columns))


def facts_metadata(values: Mapping[str, object]) -> dg.TableMetadataValue:
    """A table of two columns, what and value; values that are not there are left out."""
    records = [
        dg.TableRecord({"what": name, "value": str(_cell(value))})
        for name, value in values.items()
        if value is not None and value == value and value != ""
    ]
    columns = [dg.TableColumn("what", type="string"), dg.TableColumn("value", type="string")]
    return dg.TableMetadataValue(records, dg.TableSchema(columns=columns))


def preview(frame: "pd.DataFrame") -> dict[str, Any]:
    """The last rows of a frame, which are the newest; of a wide one three, side by side."""
    if len(frame.columns) <= _WIDE_COLUMNS:
        return {"preview": table_metadata(frame.tail(_PREVIEW_ROWS))}
    newest = frame.tail(len(_WIDE_PREVIEW)).iloc[::-1]
    names = _WIDE_PREVIEW[: len(newest)]
    records = [
        dg.TableRecord(
            {
                "column": str(column),
                **{name: _text(value) for name, value in zip(names, newest[column], strict=True)},
            }
        )
        for column in newest.columns
    ]
    columns = [dg.TableColumn(name, type="string") for name in ("column", *names)]
    return {"preview": dg.TableMetadataValue(records, dg.TableSchema(columns=columns))}


def svg_metadata(image: str, alt: str) -> dg.MarkdownMetadataValue:
    """A small plot."""
    encoded = base64.b64encode(image.encode()).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{encoded})")


def as_before(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, Any]:
    """What the page showed so far, for an output without news: else a rerun would empty it."""
    partitions = [context.partition_key] if context.has_partition_key else None
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions), limit=1
    ).records
    made = found[0].asset_materialization if found else None
    return {
        name: value
        for name, value in (made.metadata.items() if made else ())
        if name not in _SET_BY_IO_MANAGER and not name.startswith(METADATA_PREFIX)
    }


def rounded(value: float) -> float:
    """Six significant digits: more say nothing."""
    return float(f"{value:.6g}")


def _type(kind: object) -> str:
    name = str(kind)
    if name.startswith("datetime64"):
        return "timestamp"
    return _TYPES.get(name, name)


def _range(values: "pd.Series") -> str:
    import pandas as pd

    empty = float(values.isna().mean()) if len(values) else 0.0
    tail = f", {empty:.1%} empty" if empty else ""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return f"{values.nunique()} values{tail}"
    if values.notna().sum() == 0:
        return "empty"
    return f"{values.min():.4g} to {values.max():.4g}{tail}"


def _text(value: object) -> str:
    cell = _cell(value)
    text = "" if cell is None else str(cell)
    return text if len(text) <= _WIDE_TEXT else f"{text[: _WIDE_TEXT - 1]}…"


def _cell(value: object) -> str | int | float | bool | None:
    import pandas as pd

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return None if value != value else rounded(value)
    if isinstance(value, pd.Timestamp):
        return str(value.date()) if value == value.normalize() else str(value.floor("s"))
    return None if value is pd.NaT else str(value)
