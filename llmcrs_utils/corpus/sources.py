"""Where dialogues come from: one name per source, all of them read into the same ``Corpus``."""

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.pscon import read_pscon
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import read_corpus

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


def source_files(corpus: str, data_dir: str) -> list:
    from pathlib import Path
    return sorted(path for path in Path(data_dir).expanduser().rglob("*") if path.is_file() and ".git" not in path.parts)


def corpus_note(corpus: str, train_dialogues: int, valid_dialogues: int, test_dialogues: int, data_dir: str = "") -> str:
    return {"generated": f"Synthetic corpus of {train_dialogues + valid_dialogues + test_dialogues} dialogues", "u_need": "U-NEED", "pscon": "PSCon (English part)"}[corpus]
