"""Parameters of notebooks. Names and types are checked here, because papermill ignores unknown parameters."""

import ast
import difflib
import gc
import json
import logging
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from llmcrs_utils.systems.registry import register

# The types from which a parameter's annotation may be built.
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


class ParameterError(ValueError):
    """A wrong parameter. The message names file, parameter and remedy."""


def project_root() -> Path:
    """The nearest folder with ``notebooks/`` and ``params/``: the current folder or one above it.

    Raises:
        FileNotFoundError: if there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    raise FileNotFoundError("no folder with notebooks/ and params/ here or above; start from inside the project")


def start_notebook() -> None:
    """Make the project root the current folder, so that paths mean the same in Jupyter, nbval and papermill.

    Garbage is collected less often: imports make a million objects, and looking for garbage among them takes a tenth of a small job's time.
    """
    os.chdir(project_root())
    gc.set_threshold(100_000)
    hide_notices()


def hide_notices() -> None:
    """Hide three notices on which a reader cannot act."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # recommends optional kernels
    warnings.filterwarnings("ignore", message="IProgress not found")  # plain progress bars are kept in saved notebooks
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # transformers, about peft's call


def settings_of(notebook: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """The current values of a notebook's parameters, e.g. ``settings_of("03_train_crs", globals())``.

    The systems of its parameter ``models`` are registered.

    Raises:
        ParameterError: for a value of the wrong type (papermill does not check).
    """
    path = notebook_path(notebook)
    values = {name: namespace[name] for name in notebook_parameters(path)}
    check_parameters(path, values, notebook)
    register_models(values.get("models", {}), notebook)
    return values


def with_defaults(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a notebook: ``values``, and the notebook's defaults for the others.

    Raises:
        ParameterError: for an unknown or mistyped parameter.
    """
    path = notebook_path(notebook)
    declared = {name: default for name, (_, default) in notebook_parameters(path).items()}
    return declared | check_parameters(path, values, notebook)


def register_models(models: dict[str, dict[str, str]], source: str | Path) -> None:
    """Call ``systems.registry.register``, and name ``source`` in the error message.

    Raises:
        ParameterError: where ``register`` raises a ``ValueError``.
    """
    try:
        register(models)
    except ValueError as error:
        raise ParameterError(f"{source}: {error}") from None


def check_parameters(notebook: Path, values: dict[str, Any], source: str) -> dict[str, Any]:
    """``values``, checked. Groups of settings are completed with the notebook's defaults; a dict of dicts (``models``) is no such group, its
    keys are the user's.

    Raises:
        ParameterError: for a value that is not a parameter of the notebook or has another type.
    """
    if not isinstance(values, dict):
        raise ParameterError(f"{source}: holds no parameters; write name: value lines")
    declared = notebook_parameters(notebook)
    groups = {name for name, (expected, default) in declared.items() if isinstance(default, dict) and not any(get_origin(part) is dict for part in get_args(expected))}
    for name, value in values.items():
        if name not in declared:
            raise ParameterError(f"{source}: {unknown('parameter', name, declared)}")
        expected, default = declared[name]
        check_value(f"{source}, parameter {name}", value, expected)
        if name in groups and default:
            for setting in value.keys() - default.keys():
                raise ParameterError(f"{source}, parameter {name}: {unknown('setting', setting, default)}")
    return {name: {**declared[name][1], **value} if name in groups else value for name, value in values.items()}


def check_value(where: str, value: Any, expected: Any) -> None:
    try:
        TypeAdapter(expected).validate_python(value, strict=True)
    except ValidationError:
        hint = ""
        if isinstance(value, str) and expected in (float, int):
            hint = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)"
        name = getattr(expected, "__name__", "") if not hasattr(expected, "__args__") else str(expected)
        raise ParameterError(f"{where}: {value!r} is no {name or expected}{hint}") from None


def unknown(kind: str, name: str, known) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.4)
    return f"no {kind} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}")


def notebook_path(notebook: str) -> Path:
    return project_root() / "notebooks" / f"{notebook}.ipynb"


def notebook_parameters(notebook: str | Path) -> dict[str, tuple[Any, Any]]:
    """name -> (type, default) of the notebook's ``parameters`` cell.

    ``papermill.inspect_notebook`` returns the same, but importing papermill takes seconds, in every check and every kernel.

    Raises:
        ParameterError: if not exactly one cell is tagged, or if a line is not of the form name: type = value.
    """
    path = Path(notebook).resolve()
    return read_parameters(path, path.stat().st_mtime_ns)


@lru_cache
def read_parameters(notebook: Path, changed: int) -> dict[str, tuple[Any, Any]]:
    """The result of ``notebook_parameters``. ``changed`` makes the cache read a changed notebook again."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{notebook}: {len(tagged)} cells are tagged 'parameters'; tag exactly one")
    parameters = {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        if not isinstance(statement, ast.AnnAssign):
            raise ParameterError(f"{notebook}: parameters cell, line {statement.lineno}: write name: type = value  # help")
        # The annotations are lines of this project's own notebooks: built-in types and their combinations.
        expected = eval(ast.unparse(statement.annotation), {"__builtins__": {}}, TYPES)
        parameters[statement.target.id] = (expected, ast.literal_eval(statement.value))
    return parameters
