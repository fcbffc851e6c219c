"""Profiles: the systems of a study, and the parameters of each notebook.

A profile is a YAML file in ``params/``. It can extend another one (``extends: grid``) and add its own models (``models``).
Settings from the command line (``key=value``) are read only here.
"""

from pathlib import Path
from typing import Any

import yaml

from llmcrs_utils.study.parameters import (
    ParameterError,
    check_parameters,
    check_value,
    notebook_parameters,
    notebook_path,
    project_root,
    register_models,
    unknown,
)
from llmcrs_utils.systems.registry import SYSTEMS, system_of, working_alone

# Keys that belong to no notebook.
# seeds: every CRS and LLM is trained once with each.
# cross_fit_folds: number of parts of the training dialogues for cross-fitted help (0: none). With such help every collaboration
#   is trained a second time.
# models: CRSs and LLMs that the profile adds.
PROFILE_KEYS = {
    "profile": str,
    "extends": str,
    "systems": list[str],
    "accelerate": str,
    "seeds": list[int],
    "cross_fit_folds": int,
    "models": dict[str, dict[str, Any]],
}
OF_MODEL = ("name", "family", "backbone")  # keys of an entry of ``models`` that describe the system; the others are parameters
# The notebook that trains a family's systems.
TRAINED_BY = {"crs": "03_train_crs", "llm": "04_tune_llm", "typical": "06_typical_systems"}
# Characters that a profile's name may not have: they have a meaning in a shell, in a file system or in Snakemake.
NOT_IN_NAMES = set('{}\\*?"\'<>|:$`;!~\n\r\t\0')


def load_profile(path: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read and check a profile: ``PROFILE_KEYS``, sections of notebooks, and sections of systems with their own values.

    Raises:
        ParameterError: for an unknown or mistyped name or value; names the nearest known name.
    """
    return check_profile(read_profile(path), path, overrides)


def read_profile(path: str | Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A profile merged with the profile that it extends (in the same folder, or in ``params/``).

    Sections, and groups of settings in them, are merged value by value. A list replaces the other list. ``null`` removes a value
    of the extended profile.

    Raises:
        ParameterError: for a missing file, for a file that is not a profile, and for profiles that extend each other.
    """
    path = Path(path)
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (project_root() / "params").glob("*.yaml")))
        raise ParameterError(f"{path}: no such profile; known: {known}")
    if path.resolve() in extended_by:
        raise ParameterError(f"{path}: extends: profiles extend each other in a circle; take one of the lines out")
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: not UTF-8; save it in this encoding") from None
    if not isinstance(profile, dict):
        raise ParameterError(f"{path}: holds no sections; see params/demo.yaml")
    base = profile.pop("extends", None)
    if base is None:
        return profile
    check_value(f"{path}: extends", base, str)
    if "profile" not in profile:
        raise ParameterError(f"{path}: profile is missing; a profile that extends another needs a name of its own, or it would run over the other")
    beside = path.with_name(f"{base}.yaml")
    below = read_profile(beside if beside.exists() else project_root() / "params" / f"{base}.yaml", (*extended_by, path.resolve()))
    return merged(below, profile)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` updated with ``above``. Dictionaries are merged key by key, and a ``null`` in ``above`` removes a key."""
    both = {key: merged(below[key], value) for key, value in above.items() if isinstance(value, dict) and isinstance(below.get(key), dict)}
    return {key: value for key, value in {**below, **above, **both}.items() if value is not None}


def check_profile(profile: dict[str, Any], source: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The checked ``profile`` with ``overrides`` in their sections. Messages call it ``source``.

    The systems of ``models`` are registered, and their parameters become sections.

    Raises:
        ParameterError: for an unknown or mistyped name or value; names the nearest known name.
    """
    profile = with_models({key: dict(value) if isinstance(value, dict) else value for key, value in profile.items()}, source)
    for key, value in (overrides or {}).items():
        if key in ("extends", "models"):
            raise ParameterError(f"{source}: {key} is none for the command line; write it in a profile of your own")
        if key in PROFILE_KEYS:
            profile[key] = value
        elif key in settings():
            section, name = settings()[key]
            profile.setdefault(section, {})[name] = value
        else:
            raise ParameterError(f"{source}: {unknown('setting', key, [*PROFILE_KEYS, *settings()])}")
    notebooks = {path.stem: path for path in (project_root() / "notebooks").glob("*.ipynb")}
    for key, value in profile.items():
        if key in PROFILE_KEYS:
            check_value(f"{source}: {key}", value, PROFILE_KEYS[key])
        elif key in notebooks:
            profile[key] = check_parameters(notebooks[key], value, f"{source}: section {key}")
        elif key in SYSTEMS and SYSTEMS[key].family == "typical":
            raise ParameterError(f"{source}: section {key}: typical systems share one notebook; write {key} under {TRAINED_BY['typical']}")
        elif key in SYSTEMS:
            check_parameters(notebooks[TRAINED_BY[SYSTEMS[key].family]], value, f"{source}: section {key}")
        else:
            raise ParameterError(f"{source}: {unknown('section', key, [*PROFILE_KEYS, *notebooks, *SYSTEMS])}")
    missing = [key for key in ("profile", "systems", "01_build_data") if key not in profile]
    if missing:
        raise ParameterError(f"{source}: {missing[0]} is missing; see params/demo.yaml")
    check_name(profile["profile"], source)
    check_repetitions(profile, source)
    return profile


def with_models(profile: dict[str, Any], source: str | Path) -> dict[str, Any]:
    """Register the ``models`` of a profile. Values of an entry other than ``OF_MODEL`` move to the section of that name."""
    models = profile.get("models", {})
    check_value(f"{source}: models", models, PROFILE_KEYS["models"])
    about = {key: {name: entry[name] for name in OF_MODEL if name in entry} for key, entry in models.items()}
    register_models(about, source)
    for key, entry in models.items():
        parameters = {name: value for name, value in entry.items() if name not in OF_MODEL}
        if parameters:
            profile[key] = merged(parameters, profile.get(key, {}))
    return {**profile, "models": about} if models else profile


def check_name(name: str, source: str | Path) -> None:
    """Check that the profile's name can be a folder below ``runs/``, wherever it is written.

    Raises:
        ParameterError: if it cannot.
    """
    parts = Path(name).parts
    wrong = sorted(NOT_IN_NAMES & set(name))
    odd = name != name.strip() or name != str(Path(name)) or Path(name).is_absolute() or "set_aside" in parts
    if wrong or odd or not parts or any(part.startswith((".", "-")) for part in parts):
        reason = f"it holds {' '.join(map(repr, wrong))}" if wrong else "it is no name of a folder below runs/"
        raise ParameterError(f"{source}: profile {name!r}: {reason}; take letters, digits, blanks, - and _")


def check_repetitions(profile: dict, source: str | Path) -> None:
    """Check seeds and folds: every run needs its own name and something to train on.

    Raises:
        ParameterError: if a check fails.
    """
    seeds, folds = profile.get("seeds"), profile.get("cross_fit_folds", 0)
    if seeds is not None:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ParameterError(f"{source}: seeds {seeds}: give at least one number, each once, none below 0")
        for section in ("03_train_crs", "04_tune_llm", "05_collaborate", *SYSTEMS):
            if "seed" in profile.get(section, {}):
                raise ParameterError(f"{source}: section {section}: the profile's seeds {seeds} say every seed; leave seed out here")
    if folds == 1 or folds < 0:
        raise ParameterError(f"{source}: cross_fit_folds {folds}: give 2 or more, or 0 for no cross-fitting")


# --- settings from the command line


def overrides() -> dict[str, tuple[str, str]]:
    """Setting -> section and parameter, for the settings that are paths. Their values are not parsed."""
    paths = {"data_dir": ("01_build_data", "data_dir")}
    paths |= {f"{system.key}_model": (system.key, "model_name_or_path") for family in ("crs", "llm") for system in working_alone(family)}
    return paths | {f"{name}_model": (TRAINED_BY["typical"], f"{name}_model_name_or_path") for name in ("bert", "gpt2")}


def settings() -> dict[str, tuple[str, str]]:
    """Setting -> section and parameter, for all settings of the command line: ``overrides``, and all parameters of the data."""
    data = notebook_parameters(notebook_path("01_build_data"))
    alone = data.keys() - {"seed", "language", "output_dir", "predictions_dir"}  # other notebooks' too, or the workflow's to say
    return {name: ("01_build_data", name) for name in data if name in alone} | overrides()


def read_settings(texts: list[str]) -> dict[str, Any]:
    """Settings from ``key=value`` texts. Names and paths are not parsed; other values are read as YAML.

    Raises:
        ParameterError: for a text without ``=``, and for a value that is not YAML.
    """
    values = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise ParameterError(f"{text}: no setting; write key=value, in quotes where the value holds blanks")
        values[key] = setting_value(value, key)
    return values


def setting_value(text: str, key: str) -> Any:
    """The value of the setting ``key`` in ``text``.

    Raises:
        ParameterError: if it is not YAML.
    """
    try:
        return text if key in ("data_dir", "profile", "accelerate") or key.endswith("_model") else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(f"{key}={text}: not valid YAML ({str(error).splitlines()[0]})") from None


def system_parameters(profile: dict[str, Any], key: str) -> dict[str, Any]:
    """A profile's parameters for the training of one system.

    They come from the section of the training notebook, then that of the system's base (a collaboration is tuned like its base),
    then its own section. Later sections take precedence.
    """
    system = system_of(key)
    sections = (TRAINED_BY[system.family], system.base, key)
    return {name: value for section in sections for name, value in profile.get(section, {}).items()}
