"""Sources of dialogues: one name each. All of them are read into the same ``Corpus``."""

from collections.abc import Sequence
from pathlib import Path

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.folders import data_folder
from llmcrs_utils.corpus.pscon import conversation_files, pscon_part, read_pscon
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, corpus_files, read_corpus

SOURCES = {
    "generated": "Generated dialogues (synthetic)",
    "u_need": "U-NEED's release format",
    "pscon": "PSCon",
}


def read_source(
    corpus: str,
    data_dir: str,
    *,
    language: str = "en",
    seed: int = 1,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    encoding: str = "utf-8",
    report: Report | None = None,
) -> Corpus:
    """Read a corpus from its files in ``data_dir``. A generated corpus has no files (see ``world.simulate``).

    Args:
        corpus: a key of ``SOURCES``.
        language: the part of PSCon, ``en`` or ``zh``.
        seed, shares: seed of PSCon's split, and its shares of train, valid and test.
        encoding: encoding of the files.
        report: says whether bad records stop the reading or are set aside, and where. Afterwards it holds all findings.

    Raises:
        CorpusError: as ``read_corpus`` and ``read_pscon`` raise it.
        ValueError: for a corpus that is not read from files, and as ``read_pscon`` raises it.
    """
    if corpus == "u_need":
        return read_corpus(data_dir, encoding, report)
    if corpus == "pscon":
        return read_pscon(data_dir, language, seed, tuple(shares), encoding, report)
    raise ValueError(f"corpus {corpus!r} is not read from files; known: u_need, pscon")


def source_files(corpus: str, data_dir: str | Path, language: str = "en") -> list[Path]:
    """The files that ``read_source`` reads, sorted. A generated corpus has none, and missing files are left out.

    If a file exists twice, both are listed; ``read_source`` refuses such a folder.

    Raises:
        ValueError: for a name that is not in ``SOURCES``.
    """
    check_source(corpus)
    if corpus == "generated":
        return []
    folder = data_folder(data_dir)
    if corpus == "pscon":
        return conversation_files(folder, language)
    return sorted(path for paths in corpus_files(folder).values() for path in paths)


def corpus_note(
    corpus: str, train_dialogues: int, valid_dialogues: int, test_dialogues: int, data_dir: str = "", language: str = "en", gold: str = "liked"
) -> str:
    """The name of the data in tables and figures.

    Args:
        train_dialogues, valid_dialogues, test_dialogues: sizes of a generated corpus.
        data_dir: folder of any other corpus. Files in U-NEED's format whose names are not U-NEED's may hold any corpus, so
            that corpus takes the name of its folder.
        language: the part of PSCon.
        gold: which recommendations of PSCon are right answers (``tasks.samples.GOLD``).

    Raises:
        ValueError: for a name that is not in ``SOURCES``.
    """
    check_source(corpus)
    if corpus == "generated":
        return f"Synthetic corpus of {train_dialogues + valid_dialogues + test_dialogues} dialogues"
    if corpus == "pscon":
        return f"PSCon ({pscon_part(language).name}; right answers: {'what the shopper liked' if gold == 'liked' else 'all recommended'})"
    names = {path.name for path in source_files(corpus, data_dir)} if data_dir else set()
    if names.intersection(internal for internal, _ in DIALOGUE_NAMES.values()):
        return f"Dialogues of {data_folder(data_dir).resolve().name}"
    return "U-NEED"


def check_source(corpus: str) -> None:
    if corpus not in SOURCES:
        raise ValueError(f"corpus {corpus!r} is unknown; known: {', '.join(SOURCES)}")
