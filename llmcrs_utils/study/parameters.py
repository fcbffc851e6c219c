"""Parameters of notebooks: names and types are checked before papermill, which ignores what it does not know."""

import ast
import difflib
import logging
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from papermill import inspect_notebook
from papermill.iorw import load_notebook_node
from pydantic import TypeAdapter, ValidationError

from llmcrs_utils.systems.registry import register

# What an annotation of a parameter may be made of.
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


class ParameterError(ValueError):
    """A wrong parameter; the message names file, parameter and remedy."""


def project_root() -> Path:
    """The folder that holds ``notebooks/`` and ``params/``, looked for upwards from the current one."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    raise FileNotFoundError("no folder with notebooks/ and params/ here or above; start from inside the project")


def start_notebook() -> None:
    """Make the project root the current folder, so that paths mean the same in Jupyter, nbval and papermill.

    Three notices that no reader of a notebook can act on are kept out of its output; all others stay.
    """
    os.chdir(project_root())
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of optional kernels it would rather have
    warnings.filterwarnings("ignore", message="IProgress not found")  # plain progress bars survive in saved notebooks
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft's call, transformers' notice


def settings_of(notebook: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """The values in force of a notebook's parameters, e.g. ``settings_of("03_train_crs", globals())``.

    The systems that its parameter ``models`` adds are registered.

    Raises:
        ParameterError: where a value has the wrong type (papermill does not check).
    """
    path = notebook_path(notebook)
    values = {name: namespace[name] for name in notebook_parameters(path)}
    check_parameters(path, values, notebook)
    register_models(values.get("models", {}), notebook)
    return values


def with_defaults(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a notebook: ``values``, and where they say nothing the notebook's own.

    Raises:
        ParameterError: for an unknown or mistyped parameter.
    """
    path = notebook_path(notebook)
    declared = {name: default for name, (_, default) in notebook_parameters(path).items()}
    return declared | check_parameters(path, values, notebook)


def register_models(models: dict[str, dict[str, str]], source: str | Path) -> None:
    """``systems.registry.register`` with ``source`` named in what it refuses.

    Raises:
        ParameterError: as ``register``.
    """
    try:
        register(models)
    except ValueError as error:
        raise ParameterError(f"{source}: {error}") from None


def check_parameters(notebook: Path, values: dict[str, Any], source: str) -> dict[str, Any]:
    """``values``, with the notebook's defaults for what a group of settings leaves out.

    Raises:
        ParameterError: unless every value is a parameter of the notebook and of its type.
    """
    if not isinstance(values, dict):
        raise ParameterError(f"{source}: holds no parameters; write name: value lines")
    declared = notebook_parameters(notebook)
    for name, value in values.items():
        if name not in declared:
            raise ParameterError(f"{source}: {unknown('parameter', name, declared)}")
        expected, default = declared[name]
        check_value(f"{source}, parameter {name}", value, expected)
        if isinstance(default, dict) and default:
            for setting in value.keys() - default.keys():
                raise ParameterError(f"{source}, parameter {name}: {unknown('setting', setting, default)}")
    return {name: {**declared[name][1], **value} if isinstance(value, dict) else value for name, value in values.items()}


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
    """name -> (type, default) of the notebook's ``parameters`` cell, as papermill reads it.

    Raises:
        ParameterError: where not exactly one cell is tagged, or a line of it is none that papermill understands.
    """
    path = Path(notebook).resolve()
    return read_parameters(path, path.stat().st_mtime_ns)


@lru_cache
def read_parameters(notebook: Path, changed: int) -> dict[str, tuple[Any, Any]]:
    """What ``notebook_parameters`` returns; ``changed`` makes a changed notebook be read again."""
    cells = [cell for cell in load_notebook_node(str(notebook)).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ParameterError(f"{notebook}: {len(cells)} cells are tagged 'parameters'; tag exactly one")
    found = inspect_notebook(str(notebook))
    lines = [line for line in cells[0].source.splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        told = found.get(line.partition(":")[0].strip())
        if told is None or told["inferred_type_name"] == "None" or not told["help"]:
            raise ParameterError(f"{notebook}: parameters cell, line {number}: write name: type = value  # help")
    # The annotations are lines of this project's own notebooks: built-in types and their combinations.
    return {
        name: (eval(told["inferred_type_name"], {"__builtins__": {}}, TYPES), ast.literal_eval(told["default"]))
        for name, told in found.items()
    }
