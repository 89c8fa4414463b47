"""From a product's folder to a checked `Product`, reading its files without running them."""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlops_assets.components import schema
from mlops_assets.components.strict_yaml import Document, Loc, YamlProblem, read
from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Product, module_file
from mlops_assets.spec import NAME, REFERENCE, ProductSpec

FILE = "defs.yaml"
FILE_KEYS = ("type", "attributes", "post_processing", "requirements")
COMPONENT = "mlops_assets.components.ModelProduct"

_RULE = ("rule", "value_error")
"""Types of pydantic errors whose text is ours and a whole sentence."""

_REFERENCES: tuple[tuple[Loc, type[ast.AST] | tuple[type[ast.AST], ...], str], ...] = (
    (("contract", "schema_class"), ast.ClassDef, "class"),
    (("features",), (ast.FunctionDef,), "function"),
    (("shared_features",), (ast.FunctionDef,), "function"),
    (("sample",), (ast.FunctionDef,), "function"),
)


def load_product(folder: Path) -> Product:
    """Read and check a product's `defs.yaml`, and that what it refers to exists.

    Imports nothing of the product: contract and functions are found by parsing their files.

    Args:
        folder: the product's folder; its name is the product's name.

    Raises:
        ConfigurationError: anything is wrong; the message lists every problem with file, line,
            key, what was found and expected, and an example; `culprits["problems"]` holds the
            same as data.
    """
    folder = folder.resolve()
    _require_name(folder.name, folder)
    file = folder / FILE
    if not file.is_file():
        raise ConfigurationError(
            f"{folder} has no {FILE}.",
            stored="Nothing was loaded.",
            way_out="Make a product with `mlops-assets new-product NAME`.",
            culprits={"file": str(file)},
        )
    document = read(file.read_bytes())
    spec, problems = _checked(document, folder)
    if problems or spec is None:
        raise as_error(file, document, problems)
    return Product(folder.name, folder, spec)


def _require_name(name: str, folder: Path) -> None:
    if NAME.fullmatch(name) and not keyword.iskeyword(name):
        return
    raise ConfigurationError(
        f"{name!r} cannot be the name of a product: the name of its folder {folder} has to be "
        "lower-case letters, digits and _, start with a letter and be no word of Python.",
        stored="Nothing was loaded.",
        way_out="Rename the folder, for example to power_price.",
        culprits={"name": name},
    )


def _checked(document: Document, folder: Path) -> tuple[ProductSpec | None, list[YamlProblem]]:
    """The spec, if `attributes` has one, and all problems of the file."""
    problems = [_with_example(problem) for problem in document.problems]
    if document.value is None:
        return None, problems
    problems += _file_problems(document)
    attributes = document.value.get("attributes")
    if not isinstance(attributes, dict):
        return None, problems
    spec = None
    try:
        spec = ProductSpec.model_validate(attributes)
    except ValidationError as error:
        told = {problem.loc for problem in problems}
        problems += [p for p in _translated(error, document) if p.loc not in told]
    return spec, problems + list(_reference_problems(attributes, folder))


def _with_example(problem: YamlProblem) -> YamlProblem:
    inside = problem.loc[1:] if problem.loc[:1] == ("attributes",) else ()
    return replace(problem, example=problem.example or schema.example_value(inside))


def _file_problems(document: Document) -> Iterator[YamlProblem]:
    """What is wrong around `attributes`."""
    for key in document.value:
        if key == "template_vars_module":
            expected = "no templates, so no variables for them"
            yield YamlProblem((key,), f"the key `{key}`", expected, f"type: {COMPONENT}")
        elif key not in FILE_KEYS:
            yield _unknown((key,), list(FILE_KEYS), f"type: {COMPONENT}")
    kind = document.value.get("type")
    if not isinstance(kind, str) or not REFERENCE.fullmatch(kind):
        found = "nothing" if kind is None else _found(kind, ("type",), document)
        yield YamlProblem(("type",), found, "the component's import path", f"type: {COMPONENT}")
    if not isinstance(document.value.get("attributes"), dict):
        found = _found(document.value.get("attributes"), ("attributes",), document)
        required = ", ".join(schema.attributes_schema()["required"])
        expected = f"a table with the keys {required}"
        yield YamlProblem(("attributes",), found, expected, schema.example_value(("description",)))


def _translated(error: ValidationError, document: Document) -> list[YamlProblem]:
    """One problem a key, in our words; pydantic has one a member of a union."""
    problems: dict[tuple[Loc, str], YamlProblem] = {}
    for details in error.errors():
        problem = _problem(details, document)
        kind = problem.found if problem.is_rule else ""
        problems.setdefault((problem.loc, kind), problem)
    return list(problems.values())


def _problem(details: Mapping[str, Any], document: Document) -> YamlProblem:
    loc: Loc = details["loc"]
    if details["type"] == "extra_forbidden":
        return _below_attributes(_unknown(loc, schema.keys_at(loc[:-1])))
    if details["type"] == "missing":
        found = f"no key `{loc[-1]}`"
    elif details["type"] in _RULE:
        found = str(details["ctx"].get("problem") or details["ctx"].get("error"))
    else:
        loc = schema.known_part(loc)
        found = _found(details["input"], ("attributes", *loc), document) + _meant(details, loc)
    expected, example = schema.expectation(loc), schema.example_value(loc)
    is_rule = details["type"] in _RULE
    return _below_attributes(YamlProblem(loc, found, expected, example, is_rule=is_rule))


def _below_attributes(problem: YamlProblem) -> YamlProblem:
    return replace(problem, loc=("attributes", *problem.loc))


def _found(value: Any, loc: Loc, document: Document) -> str:
    """What stands at `loc`, as it is written."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table with " + (", ".join(map(str, value)) or "no keys")
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text"}
    written = document.written.get(loc, repr(value))
    return f"{written[:60]}{'...' if len(written) > 60 else ''} ({kinds[type(value)]})"


def _meant(details: Mapping[str, Any], loc: Loc) -> str:
    """The choice that was probably meant, where there is a choice."""
    choices = (schema.schema_of(loc) or {}).get("enum")
    value = details["input"]
    close = schema.closest(value, choices) if choices and isinstance(value, str) else None
    return f", did you mean {close}?" if close else ""


def _unknown(loc: Loc, keys: list[str], example: str = "") -> YamlProblem:
    key = str(loc[-1])
    close = schema.closest(key, keys)
    homes = [] if close else list(schema.homes_of(key))
    hint = f", did you mean `{close}`?" if close else ""
    hint = f", which belongs under `{homes[0]}`" if homes else hint
    expected = "one of the keys " + ", ".join(keys)
    meant: Loc = (*loc[:-1], close) if close else (homes[0], key) if homes else ()
    return YamlProblem(
        loc, f"the unknown key `{key}`{hint}", expected, example or _example_of(meant)
    )


def _example_of(loc: Loc) -> str:
    return schema.example_value(loc) or schema.example_value(("description",))


def _reference_problems(attributes: Mapping[str, Any], folder: Path) -> Iterator[YamlProblem]:
    """Contract and functions that are not where `attributes` says."""
    for loc, kinds, word in _REFERENCES:
        value: Any = attributes
        for key in loc:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and REFERENCE.fullmatch(value):
            found = _missing_reference(folder, value, kinds, word)
            if found:
                expected = schema.expectation(loc)
                yield YamlProblem(("attributes", *loc), found, expected, schema.example_value(loc))


def _missing_reference(
    folder: Path, reference: str, kinds: type[ast.AST] | tuple[type[ast.AST], ...], word: str
) -> str | None:
    """Why `reference` cannot be found in the folder, or None when it can."""
    module, _, name = reference.rpartition(".")
    file = module_file(folder, module)
    if file is None:
        there = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        return f"{reference}, but {folder} has no module {module}; it has {_listed(there)}"
    try:
        names = _names(ast.parse(file.read_bytes(), filename=str(file)))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        return f"{reference}, but {file}:{line} is not Python: {getattr(error, 'msg', error)}"
    if "*" in names or isinstance(names.get(name), ast.Import | ast.ImportFrom | ast.Name):
        return None
    if name not in names:
        usable = sorted(other for other, node in names.items() if isinstance(node, kinds))
        close = schema.closest(name, usable)
        hint = f"; did you mean {module}.{close}?" if close else ""
        return f"{reference}, but {file} has no {word} {name}; it has {_listed(usable)}{hint}"
    if not isinstance(names[name], kinds):
        return f"{reference}, but {file}:{getattr(names[name], 'lineno', 1)} is no {word}"
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def _names(tree: ast.Module) -> dict[str, ast.AST]:
    """Names a module binds at its top level, also under `if`, `try` and `with`."""
    names: dict[str, ast.AST] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names[node.name] = node
            case ast.Import() | ast.ImportFrom():
                names |= {(a.asname or a.name).partition(".")[0]: node for a in node.names}
            case ast.Name(ctx=ast.Store()):
                names[node.id] = node
            case _:
                waiting += ast.iter_child_nodes(node)
    return names


def as_error(file: Path, document: Document, problems: list[YamlProblem]) -> ConfigurationError:
    """All problems of a file as one error, each at its line, in the order of the file."""
    placed = [replace(p, line=p.line or document.line(p.loc)) for p in problems]
    placed.sort(key=lambda problem: problem.line or 0)
    number = "1 problem" if len(placed) == 1 else f"{len(placed)} problems"
    lines = "\n".join(f"  {_format_problem(file, problem)}" for problem in placed)
    return ConfigurationError(
        f"{file} has {number}:\n{lines}\n",
        stored="Nothing was loaded.",
        way_out="Correct the lines and run `dg check defs`.",
        culprits={
            "file": str(file),
            "problems": [{**asdict(p), "key": _dotted(p.loc)} for p in placed],
        },
    )


def _format_problem(file: Path, problem: YamlProblem) -> str:
    key = f" {_dotted(problem.loc)}:" if problem.loc else ""
    example = f" Example: {problem.example}" if problem.example else ""
    found = problem.found if problem.is_rule else f"found {problem.found}"
    return f"{file}:{problem.line}:{key} {found}; expected {problem.expected}.{example}"


def _dotted(loc: Loc) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")


def load_products(defs: Path) -> list[Product]:
    """Every product below a `defs` folder, by name.

    Raises:
        ConfigurationError: the first product whose file is wrong.
    """
    return [load_product(file.parent) for file in sorted(defs.glob(f"*/{FILE}"))]
