"""Text of any encoding as the UTF-8 that DuckDB reads."""

from __future__ import annotations

import codecs
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlops_assets.sources.files.formats import Layout, unzipped
from mlops_assets.sources.files.landing import CHUNK, Place, file_place
from mlops_assets.sources.files.rules import Unusable


@contextmanager
def as_utf8(
    places: Sequence[Place], layout: Layout, encoding: str
) -> Iterator[tuple[list[Place], Layout]]:
    """The files as DuckDB can read them, with their layout; copies live as long as the context.

    Raises:
        Unusable: when a file is not of the encoding.
    """
    if encoding == "utf-8" or layout.kind == "parquet":
        yield list(places), layout
        return
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, str(number)) for number in range(len(places))]
        for place, copy in zip(places, copies, strict=True):
            _copy(place, copy, encoding, zipped=layout.zipped)
        yield [file_place(str(copy)) for copy in copies], replace(layout, zipped=False)


def _copy(place: Place, copy: Path, encoding: str, *, zipped: bool) -> None:
    # Line ends stay as they are, and nothing is read whole.
    with place.open() as stream, copy.open("w", encoding="utf-8", newline="") as target:
        try:
            if zipped:
                with unzipped(stream) as content:
                    shutil.copyfileobj(codecs.getreader(encoding)(content), target, CHUNK)
            else:
                shutil.copyfileobj(codecs.getreader(encoding)(stream), target, CHUNK)
        except UnicodeError as error:
            rule = f"it is not {encoding.upper()} ({error})"
            raise Unusable(rule, "Correct `encoding` under `source`.") from None
