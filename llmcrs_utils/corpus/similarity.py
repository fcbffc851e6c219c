"""Products with similar titles, by TF-IDF over the words of Latin script and the pairs of neighbouring signs of other scripts."""

import re
from collections.abc import Callable, Iterable

import numpy as np
from scipy.sparse import csr_matrix

WORDS_AND_RUNS = re.compile(r"[a-z0-9]+|[^\Wa-z0-9_]+")


def grams_of(title: str) -> set[str]:
    """``"华为手机 Mate X3 128"`` -> ``{"华为", "为手", "手机", "mate", "x3"}``. Numbers and single Latin letters say little and are left out."""
    grams = set()
    for run in WORDS_AND_RUNS.findall(title.casefold()):
        if not run.isascii():
            grams.update([run] if len(run) == 1 else [run[start : start + 2] for start in range(len(run) - 1)])
        elif len(run) > 1 and not run.isdigit():
            grams.add(run)
    return grams


def title_grams(titles: list[str]) -> csr_matrix:
    """One row per title, one column per gram, 1 where the title has it: shape (titles, grams)."""
    columns: dict[str, int] = {}
    rows, places = [], []
    for row, title in enumerate(titles):
        for gram in sorted(grams_of(title)):
            rows.append(row)
            places.append(columns.setdefault(gram, len(columns)))
    return csr_matrix((np.ones(len(rows)), (rows, places)), shape=(len(titles), len(columns)))


def nearest_titles(grams: csr_matrix, unseen: list[int]) -> Callable[..., np.ndarray]:
    """A function that ranks titles by cosine similarity, as if the titles ``unseen`` did not exist.

    They neither weigh words nor are ranked. The function takes the row to compare with, further rows to leave out, and ``also``:
    rows to rank although they are unseen. It returns the other rows, the most similar first; equals stay in order.
    """
    there = np.ones(grams.shape[0], dtype=bool)
    there[unseen] = False
    often = grams.T @ there.astype(float)
    weights = np.log((1 + there.sum()) / (1 + often)) ** 2
    sizes = np.sqrt(grams @ weights)

    def nearest(row: int, left_out: Iterable[int] = (), also: Iterable[int] = ()) -> np.ndarray:
        own = np.zeros(grams.shape[1])
        columns = grams.indices[grams.indptr[row] : grams.indptr[row + 1]]
        own[columns] = weights[columns]
        similarity = np.divide(grams @ own, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
        ranked = there.copy()
        ranked[[*also]] = True
        ranked[[row, *left_out]] = False
        rows = np.flatnonzero(ranked)
        return rows[np.argsort(-similarity[rows], kind="stable")]

    return nearest
