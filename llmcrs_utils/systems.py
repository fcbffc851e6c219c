"""Who takes part: the one place that names tasks, categories and systems (design: the paper, sections 3 and 4.3)."""

from dataclasses import dataclass
from typing import Literal

TASKS = ("understand", "elicit", "recommend", "respond")
# U-NEED's five categories, in the order of the paper's columns, and their English names.
CATEGORIES = {"美妆行业": "Beauty", "鞋类行业": "Shoes", "手机行业": "Phones", "服装行业": "Fashion", "大家电行业": "Electronics"}


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        key: what file names and parameters say.
        name: what tables say.
        family: whose training notebook makes it, ``crs`` or ``llm``.
        backbone: folder name of the backbone under the run's ``backbones/``.
        base: the system without help; ``None`` where this is one.
        assistant: the system whose predictions it reads; ``None`` where it works alone.
    """

    key: str
    name: str
    family: Literal["crs", "llm"]
    backbone: str
    base: str | None = None
    assistant: str | None = None

    @property
    def group(self) -> str:
        """The block of Tables 1-4 that holds this row."""
        if self.assistant is None:
            return "No collaboration"
        return "LLM assisting CRS" if self.family == "crs" else "CRS assisting LLM"


SYSTEMS = {
    system.key: system
    for system in (
        System("bcrs", "UniMIND(BART)", "crs", "bart"),
        System("allm", "Chinese-Alpaca", "llm", "llama"),
        System("allm-bcrs", "ALLM-BCRS", "crs", "bart", base="bcrs", assistant="allm"),
        System("bcrs-allm", "BCRS-ALLM", "llm", "llama", base="allm", assistant="bcrs"),
    )
}


def system_of(key: str) -> System:
    """The registered system.

    Raises:
        KeyError: naming the known keys.
    """
    if key not in SYSTEMS:
        raise KeyError(f"no system {key!r}; known: {', '.join(SYSTEMS)}")
    return SYSTEMS[key]
