"""A corpus folder in U-NEED's release format, under U-NEED's own file names or the internal ones."""

from pathlib import Path

from llmcrs_utils.corpus.faults import CorpusError, Report
from llmcrs_utils.corpus.schema import SPLITS, Corpus, read_behaviour, read_dialogues, read_knowledge

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
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder; give the one that holds the corpus")
    found = {}
    for what, names in {**DIALOGUE_NAMES, "knowledge": KNOWLEDGE_NAMES, "behaviour": BEHAVIOUR_NAMES}.items():
        paths = sorted({path for name in names for path in folder.glob(name)})
        if len(paths) == 1:
            found[what] = paths[0]
        elif paths:
            there = ", ".join(path.name for path in paths)
            report.add("file_twice", folder, message=f"{what} is there more than once ({there})")
        else:
            report.add("missing_file", folder, message=f"{what} is missing: {' or '.join(names)}")

    knowledge = read_knowledge(found["knowledge"], encoding, report) if "knowledge" in found else None
    sellers = None
    if knowledge is not None and report.is_whole(found["knowledge"]):
        first = knowledge.drop_duplicates("item_id_encrypt")
        sellers = dict(zip(first["item_id_encrypt"], first["seller_id_encrypt"], strict=True))
    dialogues, elsewhere = {}, {}
    for split in reversed(SPLITS):  # a dialogue in two splits stays where it is tested on
        if split in found:
            dialogues[split] = read_dialogues(found[split], encoding, report, sellers, elsewhere)
            elsewhere.update((dialogue.sid, str(found[split])) for dialogue in dialogues[split])
    behaviour = read_behaviour(found["behaviour"], encoding, report, sellers) if "behaviour" in found else None
    report.finish()
    return Corpus({split: dialogues[split] for split in SPLITS}, knowledge, behaviour)
