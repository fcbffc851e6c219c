"""Profiles and notebook parameters: names and types are checked before papermill, which ignores what it does not know."""

import ast
import difflib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError


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


def check_parameters(notebook: Path, values: dict[str, Any], source: str) -> dict[str, Any]:
    """``values``, of each group of settings those not named added from the notebook.

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
        if isinstance(default, dict):
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


def notebook_parameters(notebook: str | Path) -> dict[str, tuple[Any, Any]]:
    """name -> (type, default) of the notebook's ``parameters`` cell."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{notebook}: {len(tagged)} cells are tagged 'parameters'; tag exactly one")
    parameters = {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        if not isinstance(statement, ast.AnnAssign):
            raise ParameterError(f"{notebook}: parameters cell, line {statement.lineno}: write name: type = value  # help")
        # The annotation is a line of this project's own notebook: built-in types and their combinations.
        expected = eval(ast.unparse(statement.annotation), {"__builtins__": {}}, SAFE_TYPES)
        parameters[statement.target.id] = (expected, ast.literal_eval(statement.value))
    return parameters


SAFE_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def settings_of(notebook: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """The values in force of a notebook's parameters, e.g. ``settings_of("03_train_crs", globals())``.

    Raises:
        ParameterError: where a value has the wrong type (papermill does not check).
    """
    path = project_root() / "notebooks" / f"{notebook}.ipynb"
    values = {name: namespace[name] for name in notebook_parameters(path)}
    check_parameters(path, values, notebook)
    return values
