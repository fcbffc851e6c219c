"""A corpus folder in U-NEED's release format, under U-NEED's own file names or the internal ones."""

from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.folders import data_files, data_folder
from llmcrs_utils.corpus.joins import count_join, side
from llmcrs_utils.corpus.reading import is_blank
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
# For each file: the internal name, then U-NEED's own.
DIALOGUE_NAMES = {
    "train": ("train_dialogue.json", "air_train_dataset_0210_encrypt.json"),
    "valid": ("valid_dialogue.json", "air_dev_dataset_0210_encrypt.json"),
    "test": ("test_dialogue.json", "air_test_dataset_0210_encrypt.json"),
}
KNOWLEDGE_NAMES = ("item_kg.txt", "kg_item_air_dataset_with_encrypt_0210.txt")
BEHAVIOUR_NAMES = ("user_action.txt", "*action*.txt", "*action*.csv")  # U-NEED's own name is not published
NAMES = {**DIALOGUE_NAMES, "knowledge": KNOWLEDGE_NAMES, "behaviour": BEHAVIOUR_NAMES}


def corpus_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a corpus by their part (``train``, ``knowledge``, ...). A folder in order has exactly one file per part."""
    return {what: data_files(folder, *names) for what, names in NAMES.items()}


def read_corpus(folder: str | Path, encoding: str = "utf-8", report: Report | None = None) -> Corpus:
    """Read the corpus in ``folder``: three dialogue files, product knowledge and behaviour.

    Args:
        encoding: encoding of all files. A byte-order mark in a file takes precedence.
        report: says whether an error stops the reading or its record is set aside. Afterwards it holds all findings.

    Raises:
        CorpusError: names every file or record that is missing, present twice or broken, and the remedies. If bad records are
            set aside, it is raised only for a file that cannot be used at all.
    """
    report = Report() if report is None else report
    corpus = collect_corpus(data_folder(folder), encoding, report)
    report.finish()
    return corpus


@making_many_objects()
def collect_corpus(folder: Path, encoding: str, report: Report) -> Corpus:
    """Read all records without errors. ``report`` takes everything that is missing or broken; nothing is raised for it."""
    found = {}
    if not folder.is_dir():
        report.add("missing_file", folder, message="no such folder; give the one that holds the corpus")
    for what, paths in corpus_files(folder).items() if folder.is_dir() else ():
        if len(paths) == 1:
            found[what] = paths[0]
        elif paths:
            names = ", ".join(path.name for path in paths)
            report.add("file_twice", folder, message=f"{what} is there more than once ({names})")
        else:
            report.add("missing_file", folder, message=f"{what} is missing: {' or '.join(NAMES[what])}")

    knowledge = pd.DataFrame([], columns=KNOWLEDGE_COLUMNS, dtype=str)
    behaviour = pd.DataFrame([], columns=BEHAVIOUR_COLUMNS, dtype=str).astype({"actime": TIME_TYPE})
    dialogues: dict[str, list[Dialogue]] = {split: [] for split in SPLITS}
    sellers, elsewhere = None, {}
    if "knowledge" in found:
        knowledge = read_knowledge(found["knowledge"], encoding, report)
        if report.is_whole(found["knowledge"]):
            first = knowledge.drop_duplicates("item_id_encrypt")
            sellers = dict(zip(first["item_id_encrypt"].tolist(), first["seller_id_encrypt"].tolist(), strict=True))
    for split in reversed(SPLITS):  # the test split first: a dialogue in two splits is kept for the test
        if split in found:
            dialogues[split] = read_dialogues(found[split], encoding, report, sellers, elsewhere)
            elsewhere.update((dialogue.sid, str(found[split])) for dialogue in dialogues[split])
    if "behaviour" in found:
        behaviour = read_behaviour(found["behaviour"], encoding, report, sellers)
    corpus = Corpus(dialogues, knowledge, behaviour)
    count_u_need_joins(corpus, {what: path for what, path in found.items() if report.is_whole(path)}, report)
    return corpus


def count_u_need_joins(corpus: Corpus, files: dict[str, Path], report: Report) -> None:
    """Count in ``report`` how the usable ``files`` fit together, for every identifier that joins two of them."""
    dialogues = [dialogue for split in SPLITS for dialogue in corpus.dialogues[split]]
    utterances = [utterance for dialogue in dialogues for utterance in dialogue.dialogue]
    users = side("users of the dialogues", (dialogue.userid for dialogue in dialogues if not is_blank(dialogue.userid)))
    sellers = side("sellers of the dialogues", (dialogue.sellerid for dialogue in dialogues))
    recommended = side("recommended items", (item for utterance in utterances for item in utterance.rec_item_id))
    lists = [items for utterance in utterances for items in utterance.rec_item_candidates]
    candidates = side("candidates", (item for items in lists for item in items))
    known_items = side("items of the product knowledge", corpus.knowledge["item_id_encrypt"].unique().tolist())
    known_sellers = side("sellers of the product knowledge", corpus.knowledge["seller_id_encrypt"].unique().tolist())
    active_users = side("users of the behaviour", corpus.behaviour["user_id_encrypt"].unique().tolist())
    active_items = side("items of the behaviour", corpus.behaviour["item_id_encrypt"].unique().tolist())
    active_sellers = side("sellers of the behaviour", corpus.behaviour["seller_id_encrypt"].unique().tolist())
    if dialogues and "behaviour" in files:
        count_join(report, files["behaviour"], users, active_users)
        count_join(report, files["behaviour"], sellers, active_sellers)
    if dialogues and "knowledge" in files:
        for items in (recommended, candidates):
            count_join(report, files["knowledge"], items, known_items)
        count_join(report, files["knowledge"], sellers, known_sellers)
    if "behaviour" in files and "knowledge" in files:
        count_join(report, files["behaviour"], active_items, known_items)
        count_join(report, files["behaviour"], active_sellers, known_sellers)
