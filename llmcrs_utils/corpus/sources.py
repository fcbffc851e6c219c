"""Where dialogues come from: one name per source, all of them read into the same ``Corpus``."""

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.pscon import read_pscon
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.corpus.world import generate

SOURCES = {
    "generated": "Generated dialogues (synthetic)",
    "u_need": "U-NEED's release format",
    "pscon": "PSCon, English part",
}


def read_source(
    corpus: str,
    data_dir: str,
    *,
    seed: int,
    dialogues: dict[str, int],
    sellers_per_category: int,
    items_per_seller: int,
    encoding: str = "utf-8",
    report: Report | None = None,
) -> Corpus:
    """The corpus named by a key of ``SOURCES``; sizes are the generated one's, ``data_dir`` the others' folder.

    Args:
        encoding: of the files in ``data_dir``.
        report: says whether bad records stop or are set aside, and where to; holds what was found afterwards.

    Raises:
        CorpusError: as ``read_corpus`` and ``read_pscon`` do.
    """
    if corpus == "generated":
        return generate(dialogues, sellers_per_category, items_per_seller, seed)
    if corpus == "u_need":
        return read_corpus(data_dir, encoding, report)
    if corpus == "pscon":
        return read_pscon(data_dir, seed=seed, encoding=encoding, report=report)
    raise ValueError(f"corpus {corpus!r} is unknown; known: {', '.join(SOURCES)}")
