"""One loaded product: its spec, and its contract and functions, imported when they are needed.

The bottom layer beside `spec`: it knows Python's import system, but neither Dagster nor YAML.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.errors import ConfigurationError
from mlops_assets.provenance import code_hash
from mlops_assets.spec import ProductSpec

if TYPE_CHECKING:
    from pandera.pandas import DataFrameModel

Part = Literal["contract", "features", "shared_features", "sample"]

_ALL_PARTS: tuple[Part, ...] = ("contract", "features", "shared_features")
_CLOCK = ("cutoffs", "as_of")
"""Arguments that a function takes by name, from the clock of a product with cut-offs."""
_DEFS = Path(__file__).parent / "defs"
_versions: dict[tuple[object, ...], str] = {}


@dataclass(frozen=True)
class Product:
    """A product's folder, checked.

    Attributes:
        name: name of the folder and of the product: lower-case letters, digits and `_`.
        folder: absolute path of the folder with `defs.yaml` and the product's modules.
        spec: the checked content of `defs.yaml`.
    """

    name: str
    folder: Path
    spec: ProductSpec

    def resolved(self, country: str) -> ProductSpec:
        """The spec as it holds in one listed country.

        Raises:
            ConfigurationError: the product does not list the country.
        """
        if country not in self.spec.countries:
            raise ConfigurationError(
                f"{self.name} does not list the country {country!r}.",
                way_out=f"Its countries are {', '.join(self.spec.countries)}; add it under "
                f"`countries` in {self.folder / 'defs.yaml'}.",
                culprits={"product": self.name, "country": country},
            )
        return self.spec.for_country(country)

    def contract(self) -> type[DataFrameModel]:
        """The pandera class of the `validated` table.

        Raises:
            ConfigurationError: the module fails to import, or the name is no DataFrameModel, or
                its required columns are not those of `source`.
        """
        found = self.contract_class()
        self._require_same_columns(self.spec.contract.schema_class, found)
        return found

    def contract_class(self) -> type[DataFrameModel]:
        """The same, whatever its columns are.

        Raises:
            ConfigurationError: the module fails to import, or the name is no DataFrameModel.
        """
        import pandera.pandas as pa

        reference = self.spec.contract.schema_class
        found = self._imported("contract", reference)
        if not (isinstance(found, type) and issubclass(found, pa.DataFrameModel)):
            raise self._unusable("contract", reference, "is not a pandera DataFrameModel")
        return found

    def feature_function(self) -> Callable[..., Any]:
        """The pure function from one country's validated frame to its features frame.

        With `shared_features` it takes their frame as a second argument, with `cutoffs` an
        argument of that name and, if it has one, `as_of`.

        Raises:
            ConfigurationError: the module fails to import, or the name is not a function of these
                arguments.
        """
        arguments = ["validated", *(["shared"] if self.spec.shared_features else [])]
        required = ["cutoffs"] if self.spec.cutoffs else []
        return self._function("features", self.spec.features, arguments, required)

    def shared_function(self) -> Callable[..., Any] | None:
        """The pure function from the validated frames of all countries to shared features.

        It takes a mapping from country to frame; None when the product has no such function.

        Raises:
            ConfigurationError: the module fails to import, or the name is not a function of one
                argument (with `cutoffs`, it may have one of that name, and `as_of`).
        """
        reference = self.spec.shared_features
        return self._function("shared_features", reference, ["validated"]) if reference else None

    def sample_function(self) -> Callable[..., Any] | None:
        """The seeded generator of demonstration data, or None when the product has none.

        Raises:
            ConfigurationError: the module fails to import, or the name is not callable.
        """
        return self._function("sample", self.spec.sample) if self.spec.sample else None

    def code_version(self, *parts: Part) -> str:
        """12 hex digits over the code of `parts` (default: contract and both feature functions).

        Modules of the folder that these import count as well. Comments, blank lines and layout do
        not: the hash is over the parsed code.
        """
        parts = parts or _ALL_PARTS
        modules = tuple(self._module_of(part) for part in parts)
        # Parsed once for files as they are: a run asks for it a dozen times.
        key = (self.folder, self._package, modules, _stamp(self.folder))
        if key not in _versions:
            _versions[key] = code_hash(self.modules(*parts), self.folder)
        return _versions[key]

    def modules(self, *parts: Part) -> set[Path]:
        """Files of the parts and all files of the folder that they import, directly or not."""
        found: set[Path] = set()
        waiting = [path for part in parts if (path := self._module_of(part)) is not None]
        while waiting:
            path = waiting.pop()
            if path not in found:
                found.add(path)
                waiting += _imported_siblings(path, self.folder, self._package)
        return found

    def _module_of(self, part: Part) -> Path | None:
        reference = {
            "contract": self.spec.contract.schema_class,
            "features": self.spec.features,
            "shared_features": self.spec.shared_features,
            "sample": self.spec.sample,
        }[part]
        return reference and module_file(self.folder, reference.rpartition(".")[0])

    @property
    def _package(self) -> str | None:
        """Dotted name of the folder when it is inside this project's `defs`."""
        if not self.folder.is_relative_to(_DEFS):
            return None
        return ".".join(["mlops_assets", "defs", *self.folder.relative_to(_DEFS).parts])

    def _imported(self, part: Part, reference: str) -> Any:
        module, _, attribute = reference.rpartition(".")
        try:
            package = self._package or self._package_of_folder()
            return getattr(importlib.import_module(f"{package}.{module}"), attribute)
        except Exception as error:
            problem = f"cannot be imported: {type(error).__name__}: {error}"
            raise self._unusable(part, reference, problem) from error

    def _package_of_folder(self) -> str:
        """Make a folder outside the project a package, under a name of its path and content."""
        sources = sorted(self.folder.rglob("*.py"))
        content = b"\0".join([str(self.folder).encode(), *(path.read_bytes() for path in sources)])
        name = f"mlops_assets_product_{self.name}_{hashlib.sha256(content).hexdigest()[:12]}"
        if name not in sys.modules:
            sys.modules[name] = _folder_as_package(name, self.folder)
            importlib.invalidate_caches()
        return name

    def _function(
        self,
        part: Part,
        reference: str,
        arguments: Sequence[str] | None = None,
        required: Sequence[str] = (),
    ) -> Callable[..., Any]:
        """A function of `arguments` in that order (None: of any) and of what it takes by name."""
        found = self._imported(part, reference)
        if not callable(found):
            raise self._unusable(part, reference, "is not a function")
        if arguments is None:
            return found
        named = self._named(part, reference, found, len(arguments), required=required)
        if not _takes(found, len(arguments), named):
            expected = f"{len(arguments) + len(named)} ({', '.join([*arguments, *named])})"
            raise self._unusable(part, reference, f"does not take {expected} as its arguments")
        return found

    def _named(
        self,
        part: Part,
        reference: str,
        function: Callable[..., Any],
        count: int,
        *,
        required: Sequence[str],
    ) -> list[str]:
        """What of the clock the function is given by name; nothing without `cutoffs`."""
        takes = _parameters(function)
        if self.spec.cutoffs is not None:
            return [name for name in _CLOCK if name in required or name in takes]
        wanted = [name for name in _CLOCK if takes.get(name, False)]
        if wanted and not _takes(function, count, ()):
            problem = f"takes {' and '.join(wanted)}, and the YAML declares no `cutoffs`"
            raise self._unusable(part, reference, problem)
        return []

    def _require_same_columns(self, reference: str, contract: type[DataFrameModel]) -> None:
        columns = contract.to_schema().columns
        source = self.spec.source
        named = [*source.columns, *source.derived]
        missing = [str(n) for n, column in columns.items() if column.required and n not in named]
        unknown = [name for name in named if name not in columns]
        if missing:
            problem = (
                f"has columns {', '.join(missing)}, which neither source.columns nor "
                "source.derived names"
            )
            raise self._unusable("contract", reference, problem)
        if unknown:
            problem = f"has no columns {', '.join(unknown)}, which `source` names"
            raise self._unusable("contract", reference, problem)

    def _unusable(self, part: Part, reference: str, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name}: the {part} `{reference}` {problem}.",
            way_out=f"Correct it in {self._module_of(part)}, or its name in "
            f"{self.folder / 'defs.yaml'}.",
            culprits={"product": self.name, "part": part, "reference": reference},
        )


def module_file(folder: Path, module: str) -> Path | None:
    """File of a dotted module inside a product's folder, or None if there is none."""
    path = folder.joinpath(*module.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _parameters(function: Callable[..., Any]) -> Mapping[str, bool]:
    """Names of a function's parameters, and whether each has to be given."""
    try:
        found = inspect.signature(function).parameters
    except ValueError:  # written in C, without one
        return {}
    return {name: each.default is each.empty for name, each in found.items()}


def _takes(function: Callable[..., Any], count: int, named: Sequence[str]) -> bool:
    """Whether a function can be called with so many arguments by position, and these by name."""
    try:
        inspect.signature(function).bind(*[None] * count, **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _folder_as_package(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    return importlib.util.module_from_spec(spec)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every module of a folder."""
    found = ((file, file.stat()) for file in sorted(folder.rglob("*.py")))
    return tuple((str(file), each.st_size, each.st_mtime_ns) for file, each in found)


def _imported_siblings(path: Path, folder: Path, package: str | None) -> Iterator[Path]:
    """Files of `folder` that the module in `path` names in an import."""
    here = path.parent.relative_to(folder).parts
    for module in _imported_names(ast.parse(path.read_bytes(), filename=str(path)), here, package):
        file = module_file(folder, module)
        if file is not None:
            yield file


def _imported_names(tree: ast.Module, here: tuple[str, ...], package: str | None) -> Iterator[str]:
    """Dotted names, below the folder, that may be modules of it."""
    inside = f"{package}."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(inside):
                    yield alias.name.removeprefix(inside)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, here, package)
            if base is not None:
                yield from (".".join([*base, alias.name]) for alias in node.names)
                if base:
                    yield ".".join(base)


def _base(
    node: ast.ImportFrom, here: tuple[str, ...], package: str | None
) -> tuple[str, ...] | None:
    """What `from X import` starts at, below the folder; None when it is outside."""
    named = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        up = len(here) - (node.level - 1)
        return (*here[:up], *named) if up >= 0 else None
    outer = tuple(package.split(".")) if package else ()
    return named[len(outer) :] if outer and named[: len(outer)] == outer else None
