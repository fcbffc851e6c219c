"""Checks parameters, data and checkpoints before a run. This takes seconds.

python -m llmcrs_utils.study.preflight PROFILE.yaml [key=value ...]
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from llmcrs_utils.checkpoints.checks import CheckpointError, check_adapter, check_checkpoint
from llmcrs_utils.checkpoints.layers import lacks_chat_template, missing_layers
from llmcrs_utils.corpus.faults import BAD_RECORDS, CorpusError, Report
from llmcrs_utils.corpus.schema import LINK_ONLY, SPLITS, Corpus
from llmcrs_utils.corpus.sources import SOURCES, read_source
from llmcrs_utils.corpus.validate import lacks_items
from llmcrs_utils.study.parameters import ParameterError, notebook_parameters, project_root, with_defaults
from llmcrs_utils.study.plan import Plan
from llmcrs_utils.study.profile import TRAINED_BY, load_profile, read_settings, system_parameters
from llmcrs_utils.systems.registry import SYSTEMS, system_of
from llmcrs_utils.tasks.samples import GOLD
from llmcrs_utils.text.prompts import PROMPTS, RANKINGS, TEMPLATES, has_chinese
from llmcrs_utils.world import Knobs
from llmcrs_utils.world.simulate import check_sizes

# Parameters that sections share: the default, and the sections that must agree. (An assistant's answers are found by seed.)
SHARED_PARAMETERS = {
    "language": (
        "zh", ("01_build_data", "02_prepare_backbones", "03_train_crs", "04_tune_llm", "05_collaborate", "06_typical_systems", "07_tables")
    ),
    "seed": (1, ("03_train_crs", "04_tune_llm", "05_collaborate")),
    "max_history": (50, ("01_build_data", "03_train_crs")),
}
CHOICES = {
    "template": TEMPLATES, "ranking": RANKINGS, "candidate_orders": (1, 2), "quantization_bit": (0, 4, 8), "dtype": ("float32", "bfloat16", "auto"),
}  # fmt: skip
LEAST = {"served_requests": 1, "shots": 0, "max_samples": 0, "tokens_per_batch": 0, "curve_samples": 0}


def check(path: str, overrides: dict[str, Any]) -> tuple[dict, Report]:
    """The checked profile, and the report on its data.

    Raises:
        ParameterError: for the first wrong parameter.
        CorpusError: for errors in the data or, if bad records are set aside, for a file that cannot be used at all.
        CheckpointError: for a checkpoint that is missing or unfit.
    """
    profile = load_profile(path, overrides)
    check_systems(profile, path)
    check_languages(profile, path)
    trained = {key: system_parameters(profile, key) for key in profile["systems"] if SYSTEMS[key].family != "typical"}
    check_agreement(profile, trained, path)
    for key, values in trained.items():
        check_choices(key, values, path)
    check_accelerate(profile.get("accelerate", ""), trained, path)
    learns = len(trained) < len(profile["systems"]) or any(not values.get("served") and values.get("num_train_epochs", 1) for values in trained.values())
    report = check_data(profile["01_build_data"], f"{path}: section 01_build_data", learns)
    for key, values in trained.items():
        if values.get("served"):
            check_served(key, values, path)
            continue
        check_base(profile, key, values, path)
        if SYSTEMS[key].family == "llm":
            check_tuning(key, values, path)
    for backbone in sorted({SYSTEMS[key].backbone for key in profile["systems"] if SYSTEMS[key].family == "typical"} - {None}):
        check_typical_backbone(profile, backbone, path)
    Plan(profile).jobs()  # whatever cannot be planned is told here, before anything runs
    return profile, report


def check_systems(profile: dict, path: str) -> None:
    """Check that all systems are known, and that base and assistant of each are listed.

    Raises:
        ParameterError: if a check fails.
    """
    systems = profile["systems"]
    for key in systems:
        if systems.count(key) > 1:
            raise ParameterError(f"{path}: systems: {key} is there twice; name it once")
        try:
            system = system_of(key)
        except KeyError as error:
            raise ParameterError(f"{path}: systems: {error.args[0]}") from None
        for needed in (system.base, system.assistant):
            if needed and needed not in systems:
                raise ParameterError(f"{path}: systems: {key} needs {needed}; add it to the list")


def check_languages(profile: dict, path: str) -> None:
    for key, section in profile.items():
        if isinstance(section, dict) and section.get("language", "zh") not in PROMPTS:
            known = ", ".join(PROMPTS)
            raise ParameterError(f"{path}: section {key}: language {section['language']!r} has no prompt set; known: {known}")


def check_agreement(profile: dict, trained: dict[str, dict], path: str) -> None:
    """Check that sections which share a parameter (``SHARED_PARAMETERS``) agree on its value.

    Raises:
        ParameterError: if they do not.
    """
    typical = any(SYSTEMS[key].family == "typical" for key in profile["systems"])
    for name, (default, users) in SHARED_PARAMETERS.items():
        left_out = {"02_prepare_backbones", *([] if typical else [TRAINED_BY["typical"]])} - profile.keys()
        values = {key: profile.get(key, {}).get(name, default) for key in users if key not in left_out}
        values |= {key: profile[key][name] for key in trained if name in profile.get(key, {})}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{key}: {value}" for key, value in values.items())
            raise ParameterError(f"{path}: {name} differs between sections ({listed}); give the same everywhere")


def check_choices(key: str, values: dict, path: str) -> None:
    """Check that parameters with a fixed set of values (``CHOICES``) have one of them, that numbers are not below their least, and
    that the logger is installed.

    Raises:
        ParameterError: if a check fails.
    """
    where = f"{path}: section {key} or {TRAINED_BY[SYSTEMS[key].family]}"
    for name, choices in CHOICES.items():
        if values.get(name, next(iter(choices))) not in choices:
            raise ParameterError(f"{where}: {name} {values[name]!r} is unknown; known: {', '.join(map(str, choices))}")
    if values.get("ranking") == "likelihood" and values.get("candidate_orders") == 2:
        raise ParameterError(f"{where}: candidate_orders 2: a ranking by likelihood does not depend on the order; give 1")
    if values.get("ranking") == "candidates" and values.get("num_train_epochs") == 0:
        raise ParameterError(f"{where}: num_train_epochs 0: scores of candidates are learned; give more, or ranking letter or likelihood")
    for name, least in LEAST.items():
        if min([least, *([values[name]] if isinstance(values.get(name), int) else values.get(name, []))]) < least:
            raise ParameterError(f"{where}: {name} {values[name]}: give {least} or more")
    logger = values.get("report_to", "none")
    if logger != "none" and importlib.util.find_spec(logger) is None:
        raise ParameterError(f"{where}: report_to {logger} is not installed; .venv/bin/pip install {logger}")


def check_accelerate(config: str, trained: dict[str, dict], path: str) -> None:
    """Check that accelerate's configuration file exists and fits the systems' settings.

    Raises:
        ParameterError: if a check fails.
    """
    if not config:
        return
    if not Path(config).is_file():
        raise ParameterError(f"{path}: accelerate: {config}: no such file; see docs/clusters.md")
    asked = next((key for key, values in trained.items() if values.get("served")), None)
    if asked:
        raise ParameterError(f"{path}: accelerate: every process would ask the server of {asked}; leave accelerate out, and run others in a profile of their own")
    if (yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {}).get("distributed_type") == "FSDP":
        for key, values in trained.items():
            if values.get("quantization_bit"):
                raise ParameterError(f"{path}: section {key}: quantization_bit does not go with FSDP ({config}); give 0, or DDP")
            if values.get("ranking", "letter") != "letter" or values.get("curve_samples"):
                raise ParameterError(f"{path}: section {key}: only ranking letter, without curve_samples, goes with FSDP ({config}); take DDP")


def check_served(key: str, values: dict, path: str) -> None:
    """Check that an LLM behind an address has a model's name, no setting of tuning that would be ignored, and a server that answers.

    Raises:
        ParameterError: if a check fails.
    """
    where = f"{path}: section {key} or {TRAINED_BY['llm']}"
    if not values.get("served_model"):
        raise ParameterError(f"{where}: served needs served_model, the model's name at the server")
    asks = {"ranking": "letter", "candidate_orders": 1, "adapter_name_or_path": [], "curve_samples": [], "merge_adapter": False}
    for name, only in asks.items():
        if values.get(name, only) != only:
            raise ParameterError(f"{where}: served: a server is asked as it is; write {name}: {only} for {key}")
    address = urlsplit(values["served"])
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ParameterError(f"{where}: served is no address; write http://host:port/v1")
    if address.username or address.password or address.query:
        raise ParameterError(f"{where}: served holds more than an address; give a key in the environment variable OPENAI_API_KEY only")
    from llmcrs_utils.llm.served import ServerError, check_server  # this import takes a second and is rarely needed

    try:
        check_server(values["served"], values["served_model"])
    except ServerError as error:
        raise ParameterError(f"{where}: {error}") from None


def check_base(profile: dict, key: str, values: dict, path: str) -> None:
    """Check that a system's checkpoint is named and usable, or that a small model will be made for it.

    Raises:
        CheckpointError: for an unusable checkpoint.
        ParameterError: if there is no checkpoint.
    """
    system = SYSTEMS[key]
    name = values.get("model_name_or_path")
    if name:
        check_checkpoint(name, system.family)
        for adapter in values.get("adapter_name_or_path", []):
            check_adapter(adapter)
    elif not (system.backbone and "02_prepare_backbones" in profile):
        section = system.base or key
        raise ParameterError(f"{path}: section {section}: model_name_or_path is missing; give it, or {section}_model=...")


def check_tuning(key: str, values: dict, path: str) -> None:
    """Check that an LLM has the layers that are to be tuned and, for ``template: chat``, a chat template.

    Raises:
        ParameterError: if a check fails.
    """
    notebook = TRAINED_BY["llm"]
    defaults = notebook_parameters(project_root() / "notebooks" / f"{notebook}.ipynb")
    layers, whole, template, adapters = (
        values.get(name, defaults[name][1]) for name in ("lora_target", "modules_to_save", "template", "adapter_name_or_path")
    )
    where, name, small = f"{path}: section {key} or {notebook}", values.get("model_name_or_path"), SYSTEMS[key].backbone
    missing = missing_layers(name, small, layers, whole)
    if missing:
        parameter, unknown, known = missing
        raise ParameterError(
            f"{where}: {parameter}: {', '.join(unknown)}: no such layers in {name or f'the small {small}'}; "
            f"known: {', '.join(known)}"
        )
    if values.get("compile_layers") and not shutil.which(os.environ.get("CXX", "g++")):
        raise ParameterError(f"{where}: compile_layers: there is no C++ compiler ({os.environ.get('CXX', 'g++')}); install one, or give compile_layers: false")
    if template == "chat" and lacks_chat_template(name, adapters):
        raise ParameterError(f"{where}: template chat: {name or f'the small {small}'} has no chat template; give template: plain")


def check_typical_backbone(profile: dict, backbone: str, path: str) -> None:
    """As ``check_base``, for the BERT or the GPT-2 of the profile's typical systems.

    Raises:
        ParameterError: if it is unusable or missing.
    """
    section, parameter = TRAINED_BY["typical"], f"{backbone}_model_name_or_path"
    name = profile.get(section, {}).get(parameter)
    if name:
        try:
            check_checkpoint(name, "encoder" if backbone == "bert" else "reply")
        except CheckpointError as error:
            raise ParameterError(f"{path}: section {section}, parameter {parameter}: {error}") from None
    elif "02_prepare_backbones" not in profile:
        raise ParameterError(f"{path}: section {section}: {parameter} is missing; give it, or {backbone}_model=...")


def check_data(build: dict, where: str, learns: bool = False) -> Report:
    """The report on the data that the section ``build`` of a profile names. Nothing is written. ``learns``: whether any system will be trained on them.

    Raises:
        ParameterError, CorpusError: as ``check``.
    """
    corpus, bad_records = build.get("corpus", "generated"), build.get("bad_records", "stop")
    build = with_defaults("01_build_data", build)
    for name, value, known in (("corpus", corpus, SOURCES), ("bad_records", bad_records, BAD_RECORDS), ("gold", build["gold"], GOLD)):
        if value not in known:
            raise ParameterError(f"{where}: {name} {value!r} is unknown; known: {', '.join(known)}")
    report = Report(bad_records)
    sizes = {split: build[f"{split}_dialogues"] for split in SPLITS}
    try:
        Knobs(**{name: build[name] for name in vars(Knobs()) if name in build})
        if corpus == "generated":
            check_sizes(sizes, *(build[name] for name in ("sellers_per_category", "items_per_seller", "tuples_per_item", "actions_per_dialogue")))
    except ValueError as error:
        raise ParameterError(f"{where}: {error}") from None
    if corpus != "generated":
        if not build.get("data_dir"):
            raise ParameterError(f"{where}: corpus {corpus} needs data_dir, the folder that holds it")
        try:
            found = read_source(
                corpus, build["data_dir"], language=build["language"], shares=build["split_shares"], encoding=build["encoding"], report=report
            )
            sizes = {split: len(dialogues) for split, dialogues in found.dialogues.items()}
        except CorpusError:
            raise
        except (LookupError, ValueError) as error:
            raise ParameterError(f"{where}: {error.args[0]}") from None
        check_spoken(found, build["language"], where)
        if lacking := lacks_items(found):
            raise CorpusError(f"{build['data_dir']}: {lacking}")
    empty = [split for split in SPLITS if (learns or split == "test") and not sizes[split]]
    if empty:
        raise ParameterError(f"{where}: there are no dialogues in {' and '.join(empty)}; systems learn from train, valid says which epoch is kept, and test is what is scored")
    return report


def check_spoken(corpus: Corpus, language: str, where: str) -> None:
    """Refuse a corpus that is plainly not in the language of the prompts.

    Raises:
        ParameterError: if the prompts are Chinese and most messages have no Chinese character, or the other way round.
    """
    said = [utterance.send_content.replace(LINK_ONLY, "").strip() for dialogues in corpus.dialogues.values() for dialogue in dialogues for utterance in dialogue.dialogue]
    said = [text for text in said if text]
    chinese = sum(map(has_chinese, said))
    spoken = "zh" if 2 * chinese >= len(said) else "en"
    if said and spoken != language:
        example = ", as params/pscon.yaml does" if spoken == "en" else ""
        raise ParameterError(f"{where}: language is {language}, but {chinese} of {len(said)} messages have Chinese characters; write language: {spoken} in each section{example}")


def report_of(path: str, profile: dict, report: Report) -> str:
    """The text that a successful check prints: the report on the data, notes, and that everything is in order."""
    lines = [report.summary()] if report.faults or report.joins else []
    return "\n".join([*lines, *notes(path, profile), f"{path}: parameters, data and checkpoints are in order; systems: {', '.join(profile['systems'])}"])


def notes(path: str, profile: dict) -> list[str]:
    """A line for each LLM from a checkpoint that would be tuned at the notebook's own learning rate, which is for the project's small models."""
    alone = {key: system_parameters(profile, key) for key in profile["systems"] if SYSTEMS[key].family == "llm" and not SYSTEMS[key].base}
    untold = [key for key, values in alone.items() if values.get("model_name_or_path") and values.get("num_train_epochs", 1) and "learning_rate" not in values and not values.get("served")]
    return [
        f"note: {path}: section {key} or {TRAINED_BY['llm']}: no learning_rate; the default is for the small models. params/readers.yaml has settings for a pretrained LLM"
        for key in untold
    ]


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m llmcrs_utils.study.preflight PROFILE.yaml [key=value ...]", file=sys.stderr)
        return 2
    try:
        profile, report = check(arguments[0], read_settings(arguments[1:]))
    except (ParameterError, CorpusError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report_of(arguments[0], profile, report))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
