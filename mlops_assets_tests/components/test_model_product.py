"""The component in Dagster: what `dg` scaffolds loads, and what is wrong is told with its line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

import mlops_assets
from mlops_assets.components import ModelProduct
from mlops_assets.components.scaffold import FILES, new_product
from mlops_assets.errors import ConfigurationError

PACKAGE = Path(mlops_assets.__file__).parent
TYPE = "mlops_assets.components.ModelProduct"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one product."""
    root = tmp_path_factory.mktemp("project")
    without = shutil.ignore_patterns("power_price", "booking_cancellation", "customer_repurchase")
    shutil.copytree(PACKAGE, root / "mlops_assets", ignore=without)
    shutil.copy(PACKAGE.parent / "pyproject.toml", root)
    new_product("parcels", root / "mlops_assets" / "defs")
    return root


def dg_command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dg` on the copy, which comes before the installed project on the path."""
    command = Path(sys.executable).with_name("dg")
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MLOPS_ASSETS")}
    own = {"PYTHONPATH": str(root), "DO_NOT_TRACK": "1", "DAGSTER_HOME": "", "COLUMNS": "250"}
    return subprocess.run(
        [str(command), *arguments], cwd=root, env=kept | own, capture_output=True, text=True
    )


def spoil(project: Path, old: str, new: str) -> tuple[Path, str]:
    """Change one place of the product's file; gives the file and what it was."""
    file = project / "mlops_assets" / "defs" / "parcels" / "defs.yaml"
    before = file.read_text()
    assert before.count(old) == 1
    file.write_text(before.replace(old, new))
    return file, before


def context_of(folder: Path, defs: Path) -> Any:
    """The part of Dagster's load context that the component reads."""
    return SimpleNamespace(path=folder, defs_module_path=defs)


@pytest.mark.nightly  # starts another program that imports everything
def test_dg_scaffolds_a_product_that_passes_its_checks(project: Path) -> None:
    ran = dg_command(project, "scaffold", "defs", TYPE, "plots")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    folder = project / "mlops_assets" / "defs" / "plots"
    assert {path.name for path in folder.iterdir() if path.is_file()} == set(FILES)
    ran = dg_command(project, "check", "defs")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "All component YAML validated successfully." in ran.stdout
    assert "All definitions loaded successfully." in ran.stdout


def test_dg_check_yaml_points_at_a_wrong_value(project: Path) -> None:
    file, before = spoil(project, "min_improvement: 0.02", 'min_improvement: "0.02"')
    try:
        ran = dg_command(project, "check", "yaml")
    finally:
        file.write_text(before)
    line = before[: before.index("min_improvement")].count("\n") + 1
    assert ran.returncode != 0
    assert f"{file}:{line} - {TYPE} attributes.gates.min_improvement" in ran.stdout
    assert "^ '0.02' is not of type 'number'" in ran.stdout


@pytest.mark.nightly  # starts another program that imports everything
def test_dg_check_defs_tells_what_dagster_reads_over(project: Path) -> None:
    file, before = spoil(project, "  metric: mae", "  metric: mae\n  metric: rmse")
    try:
        yaml = dg_command(project, "check", "yaml")
        ran = dg_command(project, "check", "defs")
    finally:
        file.write_text(before)
    line = before[: before.index("  metric: mae")].count("\n") + 2
    assert yaml.returncode == 0
    assert ran.returncode != 0
    told = f"{file}:{line}: attributes.metric: found the key `metric` again"
    assert told in ran.stdout + ran.stderr


@pytest.mark.nightly  # starts another program that imports everything
def test_dg_lists_the_component_with_its_schema(project: Path) -> None:
    ran = dg_command(project, "utils", "inspect-component", TYPE, "--defs-yaml-json-schema")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "by which share the candidate's error must be under the best baseline's" in ran.stdout


# Dagster calls checks with partitions a preview; the gates are made of them.
@pytest.mark.filterwarnings("ignore:Specifying a partitions_def on an AssetCheckSpec")
def test_the_component_makes_the_assets_of_its_folder(tmp_path: Path) -> None:
    folder = new_product("parcels", tmp_path)
    made = ModelProduct().build_defs(context_of(folder, tmp_path))
    assets = [asset for asset in made.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    keys = {key for asset in assets for key in asset.keys}
    assert dg.AssetKey(["parcels", "champion"]) in keys
    assert {key.path[0] for key in keys} == {"parcels"}


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = new_product("parcels", tmp_path)
    new_product("parcels", tmp_path / "more")
    with pytest.raises(ConfigurationError, match="The product name parcels is taken twice"):
        ModelProduct().build_defs(context_of(folder, tmp_path))
