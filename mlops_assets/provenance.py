"""What a model is made with beside its data and config: code, Python, libraries, machine.

The bottom layer beside `spec`. It reads source files and the environment; what it finds is one
record that is stored with a model and compared with another one later.
"""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops")
"""Distributions whose version can change what a model predicts, or how it is stored."""
OPTIONAL_LIBRARIES = ("lightgbm",)
"""Likewise, where they are installed."""

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Provenance:
    """What a model was made with.

    Attributes:
        product_code: hash of the product's feature function.
        platform_code: hash of the code that splits, trains and judges.
        python: such as 3.11.7.
        libraries: distribution: its version.
        machine: `architecture` of the processor, `blas` kernels that NumPy and SciPy chose for it
            and `threads` they use: linear algebra rounds differently with other ones.
    """

    product_code: str
    platform_code: str
    python: str
    libraries: Mapping[str, str]
    machine: Mapping[str, str]

    def short(self) -> str:
        """Python and libraries in one line, such as `python 3.11.7, numpy 2.4.6`."""
        named = {"python": self.python, **self.libraries}
        return ", ".join(f"{name} {number}" for name, number in named.items())


def provenance_now(product_code: str) -> Provenance:
    """What a model trained in this process is made with.

    Args:
        product_code: `Product.code_version("features")`.
    """
    return Provenance(
        product_code=product_code,
        platform_code=platform_code(),
        python=platform.python_version(),
        libraries=_libraries(),
        machine=_machine(),
    )


def warm_up() -> None:
    """Find out what is the same for every product, so that forks of this process have it."""
    for find in (platform_code, _libraries, _machine):
        find()


@cache
def platform_code() -> str:
    """12 hex digits over the code of `mlops_assets.ml` and the spec, as this process found it."""
    folders = (_PACKAGE / "ml", _PACKAGE / "spec")
    return code_hash([file for folder in folders for file in folder.rglob("*.py")], _PACKAGE)


def code_hash(files: Iterable[Path], root: Path) -> str:
    """12 hex digits over parsed Python files and their paths below `root`.

    Comments, blank lines and layout do not count. Another minor version of Python may parse the
    same text into another tree.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        tree = ast.parse(file.read_bytes(), filename=str(file))
        digest.update(f"{file.relative_to(root).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _libraries() -> Mapping[str, str]:
    return {name: version(name) for name in (*LIBRARIES, *_installed(OPTIONAL_LIBRARIES))}


def _installed(names: Iterable[str]) -> list[str]:
    return [name for name in names if any(distributions(name=name))]


@cache
def _machine() -> Mapping[str, str]:
    import scipy.linalg  # noqa: F401  brings the BLAS of SciPy and NumPy, which are asked next
    from threadpoolctl import threadpool_info

    libraries = [each for each in threadpool_info() if each["user_api"] == "blas"]
    kernels = {str(each.get("architecture") or each["internal_api"]) for each in libraries}
    return {
        "architecture": platform.machine(),
        "blas": ", ".join(sorted(kernels)),
        "threads": str(max((each["num_threads"] for each in libraries), default=1)),
    }
