"""Profiles: which systems take part, and with which parameters of which notebook.

A profile is a YAML file of ``params/``. It may extend another (``extends: grid``) and add models of its own (``models``).
Settings of the command line (``key=value``) are read here and nowhere else.
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

# Keys that belong to no notebook. seeds: to train every CRS and LLM with; cross_fit_folds: parts of the training dialogues for
# cross-fitted help (0: none), with which every collaboration is trained once more; models: CRSs and LLMs of the profile's own.
PROFILE_KEYS = {
    "profile": str,
    "extends": str,
    "systems": list[str],
    "accelerate": str,
    "seeds": list[int],
    "cross_fit_folds": int,
    "models": dict[str, dict[str, Any]],
}
OF_MODEL = ("name", "family", "backbone")  # what an entry of ``models`` says of the system; all else are its parameters
# The notebook that trains a family's systems.
TRAINED_BY = {"crs": "03_train_crs", "llm": "04_tune_llm", "typical": "06_typical_systems"}
# No profile is called with these: they mean something to a shell, a file system or Snakemake.
NOT_IN_NAMES = set('{}\\*?"\'<>|:$`;!~\n\r\t\0')


def load_profile(path: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A checked profile: ``PROFILE_KEYS``, a section per notebook and, where a system needs its own values, one per system.

    Raises:
        ParameterError: on an unknown or mistyped name or value, with the nearest known name.
    """
    return check_profile(read_profile(path), path, overrides)


def read_profile(path: str | Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A profile as written, over what it extends (another profile of the same folder, or of ``params/``).

    Sections are merged, value by value; so are groups of settings in them; a list replaces the other, and ``null`` takes
    away what the other profile has.

    Raises:
        ParameterError: for a file that is missing or no profile, and for profiles that extend each other.
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
    beside = path.with_name(f"{base}.yaml")
    below = read_profile(beside if beside.exists() else project_root() / "params" / f"{base}.yaml", (*extended_by, path.resolve()))
    return merged(below, profile)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, dictionaries merged key by key; what ``above`` says is ``null`` is left out."""
    both = {key: merged(below[key], value) for key, value in above.items() if isinstance(value, dict) and isinstance(below.get(key), dict)}
    return {key: value for key, value in {**below, **above, **both}.items() if value is not None}


def check_profile(profile: dict[str, Any], source: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """``profile`` with ``overrides`` in their sections, checked; ``source`` is what messages call it.

    The systems of ``models`` are registered, and their parameters become sections of their own.
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
    """``profile`` with its ``models`` registered: what an entry says besides ``OF_MODEL`` goes to the section of that name."""
    models = profile.get("models", {})
    check_value(f"{source}: models", models, PROFILE_KEYS["models"])
    about = {key: {name: entry[name] for name in OF_MODEL if name in entry} for key, entry in models.items()}
    register_models(about, source)
    for key, entry in models.items():
        own = {name: value for name, value in entry.items() if name not in OF_MODEL}
        if own:
            profile[key] = merged(own, profile.get(key, {}))
    return {**profile, "models": about} if models else profile


def check_name(name: str, source: str | Path) -> None:
    """Raise ``ParameterError`` unless the profile's name can be a folder below ``runs/`` everywhere it is written."""
    parts = Path(name).parts
    wrong = sorted(NOT_IN_NAMES & set(name))
    if wrong or not name.strip() or name != name.strip() or Path(name).is_absolute() or ".." in parts or any(p.startswith((".", "-")) for p in parts):
        told = f"it holds {' '.join(map(repr, wrong))}" if wrong else "it is no name of a folder below runs/"
        raise ParameterError(f"{source}: profile {name!r}: {told}; take letters, digits, blanks, - and _")


def check_repetitions(profile: dict, source: str | Path) -> None:
    """Raise ``ParameterError`` unless seeds and folds are such that every run has a name of its own and something to train on."""
    seeds, folds = profile.get("seeds"), profile.get("cross_fit_folds", 0)
    if seeds is not None:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ParameterError(f"{source}: seeds {seeds}: give at least one number, each once, none below 0")
        for section in ("03_train_crs", "04_tune_llm", "05_collaborate", *SYSTEMS):
            if "seed" in profile.get(section, {}):
                raise ParameterError(f"{source}: section {section}: the profile's seeds {seeds} say every seed; leave seed out here")
    if folds == 1 or folds < 0:
        raise ParameterError(f"{source}: cross_fit_folds {folds}: give 2 or more, or 0 for no cross-fitting")


# --- settings of the command line


def overrides() -> dict[str, tuple[str, str]]:
    """Settings that are places, taken as they are written -> section and parameter."""
    found = {"data_dir": ("01_build_data", "data_dir")}
    found |= {f"{system.key}_model": (system.key, "model_name_or_path") for family in ("crs", "llm") for system in working_alone(family)}
    return found | {f"{name}_model": (TRAINED_BY["typical"], f"{name}_model_name_or_path") for name in ("bert", "gpt2")}


def settings() -> dict[str, tuple[str, str]]:
    """Setting that may be given from outside -> section and parameter: ``overrides``, and any parameter of the data."""
    data = notebook_parameters(notebook_path("01_build_data"))
    alone = data.keys() - {"seed", "language", "output_dir", "predictions_dir"}  # other notebooks' too, or the workflow's to say
    return {name: ("01_build_data", name) for name in data if name in alone} | overrides()


def read_settings(given: list[str]) -> dict[str, Any]:
    """``key=value`` texts as settings: a name or place as it is written, anything else as YAML reads it.

    Raises:
        ParameterError: for a text without ``=``, and a value that YAML cannot read.
    """
    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign:
            raise ParameterError(f"{text}: no setting; write key=value, in quotes where the value holds blanks")
        found[key] = setting_value(value, key)
    return found


def setting_value(text: str, key: str) -> Any:
    """One setting's value, of the text that was given.

    Raises:
        ParameterError: where YAML cannot read it.
    """
    try:
        return text if key in ("data_dir", "profile", "accelerate") or key.endswith("_model") else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(f"{key}={text}: not valid YAML ({str(error).splitlines()[0]})") from None


def system_parameters(profile: dict[str, Any], key: str) -> dict[str, Any]:
    """What a profile says for the training notebook of one system: the notebook's section, over it the section of the
    system it started from (a collaboration is tuned like its base), over that its own.
    """
    system = system_of(key)
    sections = (TRAINED_BY[system.family], system.base, key)
    return {name: value for section in sections for name, value in profile.get(section, {}).items()}
