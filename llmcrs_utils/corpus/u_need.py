"""A corpus folder in U-NEED's release format, under U-NEED's own file names or the internal ones."""

from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.schema import (
    BEHAVIOUR_COLUMNS,
    KNOWLEDGE_COLUMNS,
    SPLITS,
    TIME_TYPE,
    Corpus,
    Dialogue,
    making_many_objects,
    read_behaviour,
    read_dialogues,
    read_knowledge,
)

# Liu et al. (EMNLP 2023 Findings), section 4.1
DIALOGUES_BY_CATEGORY = {"美妆行业": 1662, "手机行业": 1513, "服装行业": 1135, "鞋类行业": 1748, "大家电行业": 1640}
# of each file the internal name and U-NEED's own
DIALOGUE_NAMES = {
    "train": ("train_dialogue.json", "air_train_dataset_0210_encrypt.json"),
    "valid": ("valid_dialogue.json", "air_dev_dataset_0210_encrypt.json"),
    "test": ("test_dialogue.json", "air_test_dataset_0210_encrypt.json"),
}
KNOWLEDGE_NAMES = ("item_kg.txt", "kg_item_air_dataset_with_encrypt_0210.txt")
BEHAVIOUR_NAMES = ("user_action.txt", "*action*.txt", "*action*.csv")  # U-NEED's own name is not published


def read_corpus(folder: str | Path, encoding: str = "utf-8", report: Report | None = None) -> Corpus:
    """The corpus in ``folder``: three dialogue files, product knowledge and behaviour.

    Args:
        encoding: of all files; a byte-order mark decides over it.
        report: says whether an error stops or its record is set aside, and holds all that was found afterwards.

    Raises:
        CorpusError: telling all that is missing, there twice, or broken, with the remedies; where bad records are set aside,
            only for a file that cannot be used at all.
    """
    report = Report() if report is None else report
    corpus = collect_corpus(Path(folder), encoding, report)
    report.finish()
    return corpus


@making_many_objects()
def collect_corpus(folder: Path, encoding: str, report: Report) -> Corpus:
    """All records without errors, whatever else there is; what is missing or broken is in ``report``."""
    found = {}
    wanted = {**DIALOGUE_NAMES, "knowledge": KNOWLEDGE_NAMES, "behaviour": BEHAVIOUR_NAMES}
    if not folder.is_dir():
        report.add("missing_file", folder, message="no such folder; give the one that holds the corpus")
        wanted = {}
    for what, names in wanted.items():
        paths = sorted({path for name in names for path in folder.glob(name)})
        if len(paths) == 1:
            found[what] = paths[0]
        elif paths:
            there = ", ".join(path.name for path in paths)
            report.add("file_twice", folder, message=f"{what} is there more than once ({there})")
        else:
            report.add("missing_file", folder, message=f"{what} is missing: {' or '.join(names)}")

    knowledge = pd.DataFrame([], columns=KNOWLEDGE_COLUMNS, dtype=str)
    behaviour = pd.DataFrame([], columns=BEHAVIOUR_COLUMNS, dtype=str).astype({"actime": TIME_TYPE})
    dialogues: dict[str, list[Dialogue]] = {split: [] for split in SPLITS}
    sellers, elsewhere = None, {}
    if "knowledge" in found:
        knowledge = read_knowledge(found["knowledge"], encoding, report)
        if report.is_whole(found["knowledge"]):
            first = knowledge.drop_duplicates("item_id_encrypt")
            sellers = dict(zip(first["item_id_encrypt"].tolist(), first["seller_id_encrypt"].tolist(), strict=True))
    for split in reversed(SPLITS):  # a dialogue in two splits stays where it is tested on
        if split in found:
            dialogues[split] = read_dialogues(found[split], encoding, report, sellers, elsewhere)
            elsewhere.update((dialogue.sid, str(found[split])) for dialogue in dialogues[split])
    if "behaviour" in found:
        behaviour = read_behaviour(found["behaviour"], encoding, report, sellers)
    return Corpus(dialogues, knowledge, behaviour)
