"""The registry of the study: the one place that names tasks, categories and systems (paper sections 3 and 4.3)."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

TASKS = ("understand", "elicit", "recommend", "respond")
# U-NEED's five categories, in the order of the paper's columns, and their English names.
CATEGORIES = {"美妆行业": "Beauty", "鞋类行业": "Shoes", "手机行业": "Phones", "服装行业": "Fashion", "大家电行业": "Electronics"}


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        key: its name in file names and parameters.
        name: its name in tables.
        family: ``typical``, ``crs`` or ``llm``; each family has its own training notebook.
        backbone: architecture of the small model that is used if a profile names no checkpoint. Empty if there is none, so
            that a profile has to name a checkpoint.
        base: key of the system without help; ``None`` for a system that works alone.
        assistant: key of the system whose predictions it reads; ``None`` for a system that works alone.
        tasks: the tasks that it answers.
    """

    key: str
    name: str
    family: Literal["typical", "crs", "llm"]
    backbone: str | None
    base: str | None = None
    assistant: str | None = None
    tasks: tuple[str, ...] = TASKS

    @property
    def group(self) -> str:
        """The block of Tables 1-4 that holds this row."""
        if self.family == "typical":
            return "Typical"
        if self.assistant is None:
            return "No collaboration"
        return "LLM assisting CRS" if self.family == "crs" else "CRS assisting LLM"

    @property
    def ranks_catalogue(self) -> bool:
        """Whether it scores every item of the catalogue. An LLM does not: it reads what it ranks, which is the 20 candidates."""
        return self.family != "llm" and "recommend" in self.tasks


# Systems of one task each (paper appendix B). Names are the paper's; Bert is a row of two tables. KBRD uses only its backbone's
# tokenizer.
TYPICAL = (
    System("bert", "Bert", "typical", "bert", tasks=("understand",)),
    System("bert_crf", "Bert+CRF", "typical", "bert", tasks=("understand",)),
    System("bert_bilstm_crf", "Bert+BiLSTM+CRF", "typical", "bert", tasks=("understand",)),
    System("dia_multiclass", "DiaMultiClass", "typical", "bert", tasks=("elicit",)),
    System("dia_seq", "DiaSeq", "typical", "bert", tasks=("elicit",)),
    System("bert_rec", "Bert", "typical", "bert", tasks=("recommend",)),
    System("sasrec", "SASRec", "typical", None, tasks=("recommend",)),
    System("tg_crs", "TG-CRS", "typical", "bert", tasks=("recommend",)),
    System("gpt2", "GPT-2", "typical", "gpt2", tasks=("respond",)),
    System("kbrd", "KBRD", "typical", "bert", tasks=("respond",)),
)
CRSS = (System("bcrs", "UniMIND(BART)", "crs", "bart"), System("ccrs", "UniMIND(CPT)", "crs", "cpt"))
LLMS = (
    System("cllm", "ChatGLM", "llm", "chatglm"),
    System("allm", "Chinese-Alpaca", "llm", "llama"),
)

BACKBONES = {"crs": ("bart", "cpt"), "llm": ("llama", "chatglm")}  # architectures of the small models, by family
SYSTEM_KEY = re.compile("[a-z][a-z0-9_]*")  # key of a system that works alone; a hyphen joins two keys to a collaboration

# Rows of the tables that are not systems: floors, which need no training, and the ceiling of a synthetic world.
FLOORS = {
    "trivial": "Most frequent / random",
    "dictionary": "Dictionary of the catalogue",
    "popular": "Most popular in the shop",
    "last_viewed": "Last viewed",
    "matcher": "Most values found in the dialogue",
}
RANKING_FLOORS = ("popular", "last_viewed")  # these rank the whole catalogue
ORACLE = "oracle"
# Training-free combinations of a CRS and an LLM (``evaluation.controls``), and their names in tables.
CONTROLS = {
    "copy_crs": "Copy of {crs} (beside {llm})",
    "copy_llm": "Copy of {llm} (beside {crs})",
    "router": "Router of {crs} and {llm}",
    "fusion": "Fusion of {crs} and {llm}",
    "tiebreak": "{llm}, equal scores ordered by {crs}",
    "rerank": "{crs} reranked by {llm}",
    "union": "Union of {crs} and {llm}",
    "intersection": "Intersection of {crs} and {llm}",
}

RUN_ENDING = re.compile(r"_(seed|fold)\d+$")  # of a run's name
RESERVED = {*FLOORS, ORACLE, "catalogue", "set_aside", "systems", "profile", "extends", "accelerate", "seeds", "models", "none"}  # no keys


def assisted(base: System, assistant: System) -> System:
    """``base`` with the help of ``assistant``. The key is ``assistant-base``, the name is the key in capitals (section 4.3)."""
    key = f"{assistant.key}-{base.key}"
    return System(key, key.upper(), base.family, base.backbone, base=base.key, assistant=assistant.key)


def arranged(crss: list[System], llms: list[System]) -> dict[str, System]:
    """Key -> system, in the order of the tables' rows. Every CRS and every LLM collaborate in both directions."""
    systems = [*TYPICAL, *crss, *llms]
    systems += [assisted(crs, llm) for llm in llms for crs in crss]
    systems += [assisted(llm, crs) for llm in llms for crs in crss]
    return {system.key: system for system in systems}


# The paper's 22 systems, and those that a profile adds (``register``).
SYSTEMS = arranged([*CRSS], [*LLMS])


def working_alone(family: str) -> list[System]:
    """The registered CRSs (``crs``) or LLMs (``llm``), in the order of the tables' rows."""
    return [system for system in SYSTEMS.values() if system.family == family and system.base is None]


def register(models: dict[str, dict[str, str]]) -> None:
    """Add a profile's CRSs and LLMs to the registry, with their collaborations in both directions.

    Args:
        models: key -> ``name`` (in tables), ``family`` (crs or llm) and optionally ``backbone`` (architecture of a small model
            that is used without a checkpoint). Registering the same model again changes nothing.

    Raises:
        ValueError: for an invalid key or entry; names it and the remedy.
    """
    crss, llms = working_alone("crs"), working_alone("llm")
    for key, entry in models.items():
        if not SYSTEM_KEY.fullmatch(str(key)) or RUN_ENDING.search(key) or key in RESERVED:
            raise ValueError(f"models: {key!r} is no key; write small letters, digits and _ only, such as qwen or glm_4, and no word of the study's")
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip() or entry.get("family") not in BACKBONES:
            raise ValueError(f"models: {key}: give its name (of tables) and its family (crs or llm), not {entry!r}")
        backbone = entry.get("backbone") or ""
        if backbone and backbone not in BACKBONES[entry["family"]]:
            raise ValueError(f"models: {key}: backbone {backbone!r} is no small {entry['family']}; known: {', '.join(BACKBONES[entry['family']])}")
        system = System(key, entry["name"], entry["family"], backbone)
        if SYSTEMS.get(key, system) != system:
            raise ValueError(f"models: {key}: there is a system {key} already ({SYSTEMS[key].name}); take another key")
        namesake = next((other.key for other in SYSTEMS.values() if other.name == system.name and other.key != key), None)
        if namesake or system.name in FLOORS.values():
            raise ValueError(f"models: {key}: tables have a row {system.name} already ({namesake or 'a floor'}); take another name")
        if key not in SYSTEMS:
            (crss if system.family == "crs" else llms).append(system)
    extended = arranged(crss, llms)
    SYSTEMS.clear()
    SYSTEMS.update(extended)


def control_key(kind: str, crs: str, llm: str) -> str:
    """The key of a control under which its answers are saved and scored, such as ``fusion:bcrs+cllm``."""
    return f"{kind}:{crs}+{llm}"


def control_name(key: str) -> str | None:
    """The name of a control in tables; ``None`` if the key is no control's."""
    kind, _, members = key.partition(":")
    crs, plus, llm = members.partition("+")
    if kind not in CONTROLS or not plus:
        return None
    names = {key: system.name for key, system in SYSTEMS.items()}
    return CONTROLS[kind].format(crs=names.get(crs, crs), llm=names.get(llm, llm))


def system_of(key: str) -> System:
    """The registered system of this key.

    Raises:
        KeyError: if there is none; names the known keys.
    """
    if key not in SYSTEMS:
        near = difflib.get_close_matches(key, SYSTEMS, n=1)
        hint = f"did you mean {near[0]!r}? Known" if near else "known"
        raise KeyError(f"no system {key!r}; {hint}: {', '.join(SYSTEMS)}; others have to be described under models")
    return SYSTEMS[key]
