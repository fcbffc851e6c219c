"""A corpus folder in U-NEED's release format, under U-NEED's own file names or the internal ones."""

from pathlib import Path

from llmcrs_utils.corpus.schema import (
    SPLITS,
    Corpus,
    CorpusError,
    Dialogue,
    read_behaviour,
    read_dialogues,
    read_knowledge,
)

# of each file the internal name and U-NEED's own
DIALOGUE_NAMES = {
    "train": ("train_dialogue.json", "air_train_dataset_0210_encrypt.json"),
    "valid": ("valid_dialogue.json", "air_dev_dataset_0210_encrypt.json"),
    "test": ("test_dialogue.json", "air_test_dataset_0210_encrypt.json"),
}
KNOWLEDGE_NAMES = ("item_kg.txt", "kg_item_air_dataset_with_encrypt_0210.txt")
BEHAVIOUR_NAMES = ("user_action.txt", "*action*.txt", "*action*.csv")  # U-NEED's own name is not published


def read_corpus(folder: str | Path) -> Corpus:
    """The corpus in ``folder``: three dialogue files, product knowledge and behaviour.

    Raises:
        CorpusError: naming what is missing, there twice, or broken, and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder; give the one that holds the corpus")
    found, faults = {}, []
    for what, names in {**DIALOGUE_NAMES, "knowledge": KNOWLEDGE_NAMES, "behaviour": BEHAVIOUR_NAMES}.items():
        paths = sorted({path for name in names for path in folder.glob(name)})
        if len(paths) == 1:
            found[what] = paths[0]
        elif paths:
            faults.append(f"{what} is there more than once ({', '.join(path.name for path in paths)}): keep one of them")
        else:
            faults.append(f"{what} is missing: add {' or '.join(names)}")
    if faults:
        raise CorpusError(f"{folder}: {'; '.join(faults)}")

    dialogues = {split: read_dialogues(found[split]) for split in SPLITS}
    check_splits_are_apart(dialogues, found)
    return Corpus(dialogues, read_knowledge(found["knowledge"]), read_behaviour(found["behaviour"]))


def check_splits_are_apart(dialogues: dict[str, list[Dialogue]], paths: dict[str, Path]) -> None:
    home = {}
    for split in SPLITS:
        for dialogue in dialogues[split]:
            if dialogue.sid in home:
                raise CorpusError(
                    f"sid {dialogue.sid} is both in {paths[home[dialogue.sid]]} and in {paths[split]}; keep it in one split"
                )
            home[dialogue.sid] = split
