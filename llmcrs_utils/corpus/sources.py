"""Where dialogues come from: one name per source, all of them read into the same ``Corpus``."""

from pathlib import Path

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.folders import data_folder
from llmcrs_utils.corpus.pscon import conversation_files, read_pscon
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, corpus_files, read_corpus

SOURCES = {
    "generated": "Generated dialogues (synthetic)",
    "u_need": "U-NEED's release format",
    "pscon": "PSCon, English part",
}


def read_source(corpus: str, data_dir: str, *, seed: int = 1, encoding: str = "utf-8", report: Report | None = None) -> Corpus:
    """The corpus named by a key of ``SOURCES`` from its files in ``data_dir``; a generated one has none (``world.generate``).

    Args:
        seed: of PSCon's split.
        encoding: of the files.
        report: says whether bad records stop or are set aside, and where to; holds what was found afterwards.

    Raises:
        CorpusError: as ``read_corpus`` and ``read_pscon`` do.
    """
    if corpus == "u_need":
        return read_corpus(data_dir, encoding, report)
    if corpus == "pscon":
        return read_pscon(data_dir, seed=seed, encoding=encoding, report=report)
    raise ValueError(f"corpus {corpus!r} is not read from files; known: u_need, pscon")


def source_files(corpus: str, data_dir: str | Path) -> list[Path]:
    """The files that ``read_source`` reads, sorted; none for a generated corpus, and none that is missing.

    Where a file is there twice, which ``read_source`` refuses, both are named.

    Raises:
        ValueError: for a name that ``SOURCES`` does not have.
    """
    known(corpus)
    if corpus == "generated":
        return []
    folder = data_folder(data_dir)
    if corpus == "pscon":
        return conversation_files(folder)
    return sorted(path for paths in corpus_files(folder).values() for path in paths)


def corpus_note(corpus: str, train_dialogues: int, valid_dialogues: int, test_dialogues: int, data_dir: str = "") -> str:
    """What tables and figures call the data.

    Args:
        train_dialogues, valid_dialogues, test_dialogues: sizes of a generated corpus.
        data_dir: folder of another one. Files in U-NEED's format that do not have U-NEED's own names may be anybody's, so they
            are called by their folder.

    Raises:
        ValueError: for a name that ``SOURCES`` does not have.
    """
    known(corpus)
    if corpus == "generated":
        return f"Synthetic corpus of {train_dialogues + valid_dialogues + test_dialogues} dialogues"
    if corpus == "pscon":
        return "PSCon (English part)"
    names = {path.name for path in source_files(corpus, data_dir)} if data_dir else set()
    if names.intersection(internal for internal, _ in DIALOGUE_NAMES.values()):
        return f"Dialogues of {data_folder(data_dir).resolve().name}"
    return "U-NEED"


def known(corpus: str) -> None:
    if corpus not in SOURCES:
        raise ValueError(f"corpus {corpus!r} is unknown; known: {', '.join(SOURCES)}")
