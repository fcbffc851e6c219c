"""Profiles: which systems take part, and with which parameters of which notebook."""

from pathlib import Path
from typing import Any

import yaml

from llmcrs_utils.study.parameters import (
    ParameterError,
    check_parameters,
    check_value,
    notebook_parameters,
    project_root,
    unknown,
)
from llmcrs_utils.systems.registry import CRSS, LLMS, SYSTEMS, system_of

# Profile keys that belong to no notebook: seeds to train every CRS and LLM with, and parts of the training dialogues for
# cross-fitted help (0: none), with which every collaboration is trained once more.
PROFILE_KEYS = {"profile": str, "systems": list[str], "accelerate": str, "seeds": list[int], "cross_fit_folds": int}
# The notebook that trains a family's systems.
TRAINED_BY = {"crs": "03_train_crs", "llm": "04_tune_llm", "typical": "06_typical_systems"}
# What may be set for a profile from outside, and the parameter it stands for; besides these, any parameter of the data.
OVERRIDES = {"data_dir": ("01_build_data", "data_dir")}
OVERRIDES |= {f"{system.key}_model": (system.key, "model_name_or_path") for system in (*CRSS, *LLMS)}
OVERRIDES |= {f"{name}_model": (TRAINED_BY["typical"], f"{name}_model_name_or_path") for name in ("bert", "gpt2")}


def load_profile(path: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A checked profile: ``PROFILE_KEYS``, a section per notebook and, where a system needs its own values, one per system.

    Raises:
        ParameterError: on an unknown or mistyped name or value, with the nearest known name.
    """
    path = Path(path)
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (project_root() / "params").glob("*.yaml")))
        raise ParameterError(f"{path}: no such profile; known: {known}")
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(profile, dict):
        raise ParameterError(f"{path}: holds no sections; see params/demo.yaml")
    return check_profile(profile, path, overrides)


def check_profile(profile: dict[str, Any], source: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """``profile`` with ``overrides`` in their sections, checked; ``source`` is what messages call it."""
    profile = {key: dict(value) if isinstance(value, dict) else value for key, value in profile.items()}
    for key, value in (overrides or {}).items():
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
    check_repetitions(profile, source)
    return profile


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


def settings() -> dict[str, tuple[str, str]]:
    """Setting that may be given from outside -> section and parameter."""
    data = notebook_parameters(project_root() / "notebooks" / "01_build_data.ipynb")
    alone = data.keys() - {"seed", "language"}  # these are parameters of other notebooks too
    return {name: ("01_build_data", name) for name in data if name in alone} | OVERRIDES


def setting_value(text: str, key: str) -> Any:
    """A setting given as text: a path as it is, anything else as YAML reads it.

    Raises:
        ParameterError: where YAML cannot.
    """
    try:
        return text if key in OVERRIDES or key == "profile" else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(f"{key}={text}: not valid YAML ({str(error).splitlines()[0]})") from None


def system_parameters(profile: dict[str, Any], key: str) -> dict[str, Any]:
    """What a profile says for the training notebook of one system: the notebook's section, over it the section of the
    system it started from (a collaboration is tuned like its base), over that its own.
    """
    system = system_of(key)
    sections = (TRAINED_BY[system.family], system.base, key)
    return {name: value for section in sections for name, value in profile.get(section, {}).items()}
