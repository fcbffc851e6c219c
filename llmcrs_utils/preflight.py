"""Checks before a run, in seconds: parameters, data and checkpoints.

    python -m llmcrs_utils.preflight PROFILE.yaml [key=value ...]
"""

import importlib.util
import sys

from llmcrs_utils.backbones.checkpoints import check_checkpoint
from llmcrs_utils.corpus.schema import CorpusError
from llmcrs_utils.corpus.sources import SOURCES, read_source
from llmcrs_utils.params import ParameterError, load_profile
from llmcrs_utils.systems import SYSTEMS, system_of
from llmcrs_utils.tasks.prompts import PROMPTS, TEMPLATES

COLLABORATIONS = [key for key, system in SYSTEMS.items() if system.assistant]
# Parameters that several notebooks share: the default, and who has to agree (an assistant's answers are read by seed).
SHARED = {
    "language": ("zh", ("01_build_data", "02_prepare_backbones", "03_train_crs", "04_tune_llm", "05_collaborate", "07_tables")),
    "seed": (1, ("03_train_crs", "04_tune_llm", "05_collaborate")),
    "max_history": (50, ("01_build_data", "03_train_crs")),
}


def check(path: str, overrides: dict[str, str]) -> dict:
    """The checked profile; raises the first fault as ``ParameterError``, ``CorpusError`` or ``CheckpointError``."""
    profile = load_profile(path, overrides)
    systems = profile["systems"]
    for key in systems:
        try:
            system = system_of(key)
        except KeyError as error:
            raise ParameterError(f"{path}: systems: {error.args[0]}") from None
        for needed in (system.base, system.assistant):
            if needed and needed not in systems:
                raise ParameterError(f"{path}: systems: {key} needs {needed}; add it to the list")
    for key, section in profile.items():
        if isinstance(section, dict) and section.get("language", "zh") not in PROMPTS:
            known = ", ".join(PROMPTS)
            raise ParameterError(f"{path}: section {key}: language {section['language']!r} has no prompt set; known: {known}")
    if not any(system_of(key).assistant for key in systems):
        raise ParameterError(f"{path}: systems: {', '.join(systems)} hold no collaboration; add one, say {COLLABORATIONS[0]}")
    for name, (default, users) in SHARED.items():
        present = [key for key in users if key in profile or key != "02_prepare_backbones"]
        values = {key: profile.get(key, {}).get(name, default) for key in present}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{key}: {value}" for key, value in values.items())
            raise ParameterError(f"{path}: {name} differs between sections ({said}); give the same everywhere")
    for section in ("03_train_crs", "04_tune_llm"):
        logger = profile.get(section, {}).get("report_to", "none")
        if logger != "none" and importlib.util.find_spec(logger) is None:
            raise ParameterError(f"{path}: section {section}: report_to {logger} is not installed; .venv/bin/pip install {logger}")
    tuning = profile.get("04_tune_llm", {})
    for name, choices in (("template", tuple(TEMPLATES)), ("quantization_bit", (0, 4))):
        if tuning.get(name, choices[0]) not in choices:
            raise ParameterError(f"{path}: section 04_tune_llm: {name} {tuning[name]!r} is unknown; known: {choices}")
    build = profile["01_build_data"]
    corpus = build.get("corpus", "generated")
    if corpus not in SOURCES:
        raise ParameterError(f"{path}: section 01_build_data: corpus {corpus!r} is unknown; known: {', '.join(SOURCES)}")
    if corpus != "generated":
        if not build.get("data_dir"):
            raise ParameterError(f"{path}: section 01_build_data: corpus {corpus} needs data_dir, the folder that holds it")
        read_source(corpus, build["data_dir"], seed=1, dialogues={}, sellers_per_category=0, items_per_seller=0)
    if "02_prepare_backbones" not in profile:
        for section, override in (("03_train_crs", "crs_model"), ("04_tune_llm", "llm_model")):
            name = profile.get(section, {}).get("model_name_or_path")
            if not name:
                raise ParameterError(f"{path}: section {section}: model_name_or_path is missing; give it, or {override}=...")
            check_checkpoint(name)
    return profile


def main(arguments: list[str]) -> int:
    if not arguments or any("=" not in argument for argument in arguments[1:]):
        print("usage: python -m llmcrs_utils.preflight PROFILE.yaml [key=value ...]", file=sys.stderr)
        return 2
    overrides = dict(argument.split("=", 1) for argument in arguments[1:])
    try:
        profile = check(arguments[0], overrides)
    except (ParameterError, CorpusError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments[0]}: parameters, data and checkpoints are in order; systems: {', '.join(profile['systems'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
