"""A product's history, written to a real store and a real registry, and kept beside them.

What happened is kept in plain lists, from which `needed` says again what retention has to keep,
without reading store or registry: rule by rule, over and over until nothing is added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
from mlflow.tracking import MlflowClient

from mlops_assets.product import Product
from mlops_assets.registry import LoggedModel, Registry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.lineage import INPUTS
from mlops_assets.stages.training_record import LINEAGE_FILE
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets_tests.test_spec import attributes

COUNTRIES = ("DEU", "Côte d'Ivoire")
SOURCES = {
    "raw": (),
    "validated": ("raw",),
    "quarantine": ("raw",),
    "features": ("validated",),
    "model": ("features",),
    "predictions": ("features",),
}
_numbers = count()


@dataclass
class Written:
    """One version file."""

    snapshot: Snapshot
    first_inputs: frozenset[str]
    last_inputs: frozenset[str]
    was_current: bool = True
    removed: bool = False

    @property
    def content(self) -> str:
        return self.snapshot.content_hash

    @property
    def place(self) -> tuple[str, str | None]:
        return self.snapshot.asset[1], self.snapshot.partition


@dataclass
class History:
    """A product, what it stored and registered, and when."""

    registry: Registry
    store: SnapshotStore = field(default_factory=lambda: SnapshotStore(f"memory://{uuid4().hex}"))
    name: str = field(default_factory=lambda: f"p{next(_numbers)}")
    files: list[Written] = field(default_factory=list)
    named: set[str] = field(default_factory=set)

    @property
    def product(self) -> Product:
        return Product(self.name, Path("/nowhere"), ProductSpec.model_validate(attributes()))

    def current(self, asset: str, country: str | None) -> Written | None:
        held = [f for f in self.files if f.place == (asset, country) and f.was_current]
        return held[-1] if held else None

    # What happens

    def write(
        self, asset: str, country: str | None, content: int, inputs: dict[str, str] | None = None
    ) -> None:
        """Store one of a few contents; equal content only replaces what it is made from."""
        made_from = self._inputs(asset, country) if inputs is None else inputs
        held = self.current(asset, country)
        rows, metadata = _rows(asset, country, content), {INPUTS: made_from}
        result = self.store.write((self.name, asset), country, rows, metadata=metadata)
        if result.changed:
            self._add(result.snapshot, made_from)
        else:
            assert held is not None
            held.last_inputs = frozenset(made_from.values())

    def leave_behind(self, asset: str, country: str | None, content: int) -> None:
        """Write as one does that is killed before the pointer moves."""
        held = self.store.current((self.name, asset), country)
        if held is None:
            return
        pointer = f"{held.uri.rpartition('/')[0]}/_current.json"
        before = self.store.filesystem.cat_file(pointer)
        inputs = self._inputs(asset, country)
        rows = _rows(asset, country, content)
        left = self.store.write((self.name, asset), country, rows, metadata={INPUTS: inputs})
        self.store.filesystem.pipe_file(pointer, before)
        if left.changed:
            self._add(left.snapshot, inputs).was_current = False

    def train(self, country: str, *, recorded: bool) -> None:
        """Register a model of the current features, and store the `model` snapshot."""
        features = self.current("features", country)
        if features is None:
            return
        record: dict[str, Any] = {"hash": features.content}
        if recorded:
            record["validated"] = sorted(features.last_inputs)
            self.named |= features.last_inputs
        lineage = {"features": {country: record}}
        self.register(country, {"snapshot.features": features.content}, lineage)
        self.named.add(features.content)
        self.write("model", country, len(self.files))

    def train_pooled(self) -> None:
        """Register a pooled model of the features there are, and store `pooled_model`."""
        features = {c: held.content for c in COUNTRIES if (held := self.current("features", c))}
        if features:
            # A tag of MLflow may not be named like every country; the record may.
            tags = {f"snapshot.{c}": content for c, content in features.items() if c.isalpha()}
            self.register("pooled-gbm", tags, {"features": features})
            self.named |= set(features.values())
            self.write("pooled_model", None, len(self.files), features)

    def register(self, country: str, tags: dict[str, str], lineage: dict[str, Any]) -> str:
        """A run and a version as training leaves them; the id of the run."""
        client = MlflowClient(self.registry.tracking_uri)
        run_id = client.create_run(self.registry.experiment(self.name), tags=tags).info.run_id
        client.set_terminated(run_id)
        if lineage:
            client.log_text(run_id, json.dumps(lineage), LINEAGE_FILE)
        self.register_from(country, run_id)
        return run_id

    def register_from(self, country: str, run_id: str) -> None:
        """A version of a run."""
        stored = LoggedModel(uri=f"runs:/{run_id}/model", digest="0")
        self.registry.register(self.name, country, stored, run_id=run_id, kind="local", tags={})

    def decide(self, country: str, chance: int) -> None:
        """Record a decision about features of any age."""
        held = [f for f in self.files if f.place == ("features", country) and not f.removed]
        if held:
            content = held[chance % len(held)].content
            number = f"decision {len(self.named)}"
            row = {"decision_id": number, "candidate_version": "", "features_hash": content}
            row["evidence"] = ""
            self.store.append((self.name, "decisions"), country, pd.DataFrame([row]))
            self.named.add(content)

    def _inputs(self, asset: str, country: str | None) -> dict[str, str]:
        held = {source: self.current(source, country) for source in SOURCES.get(asset, ())}
        return {name: each.content for name, each in held.items() if each is not None}

    def _add(self, snapshot: Snapshot, inputs: dict[str, str]) -> Written:
        made_from = frozenset(inputs.values())
        self.files.append(Written(snapshot, made_from, made_from))
        return self.files[-1]

    # What has to stay

    def needed(self, since: datetime) -> set[str]:
        """Versions that retention must not touch."""
        there = [each for each in self.files if not each.removed]
        kept = {
            each.snapshot.version
            for each in there
            if each is self._current_at(each.place, since)
            or each.snapshot.version >= self._version_in_use(each.place)
            or each.snapshot.created_at >= since
            or each.content in self.named
        }
        while True:
            made_from = {
                content
                for each in there
                if each.snapshot.version in kept
                for content in each.first_inputs | each.last_inputs
            }
            more = {each.snapshot.version for each in there if each.content in made_from}
            if more <= kept:
                return kept
            kept |= more

    def _version_in_use(self, place: tuple[str, str | None]) -> str:
        """A file that is newer than it may be of a writer who has not moved the pointer yet."""
        held = self.current(*place)
        return held.snapshot.version if held else ""

    def _current_at(self, place: tuple[str, str | None], moment: datetime) -> Written | None:
        then = [
            each
            for each in self.files
            if each.place == place and each.was_current and each.snapshot.created_at <= moment
        ]
        return then[-1] if then else None


def _rows(asset: str, country: str | None, content: int) -> pa.Table:
    columns = {"what": f"{asset} of {country}: {content}", "version": "1", "evidence": "0" * 32}
    return pa.table({name: [text] for name, text in columns.items()})
