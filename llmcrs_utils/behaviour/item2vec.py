"""Item vectors from co-occurrence in training behaviour (item2vec, Barkan and Koenigstein 2016)."""

import numpy as np
import pandas as pd
import torch
from gensim.models import Word2Vec


def item2vec(
    behaviour: pd.DataFrame, excluded_users: set[str], index: dict[str, int], dim: int = 300, epochs: int = 20, seed: int = 1
) -> torch.Tensor:
    """[n_items, dim] skip-gram vectors. Rows of items without behaviour are NaN.

    Args:
        behaviour: columns ``BEHAVIOUR_COLUMNS``, sorted by time.
        excluded_users: users whose actions are left out (those of validation and test dialogues).
        index: item id -> row.
    """
    seen = behaviour[~behaviour["user_id_encrypt"].isin(excluded_users) & behaviour["item_id_encrypt"].isin(index)]
    sequences = seen.groupby("user_id_encrypt", sort=True)["item_id_encrypt"].agg(list).tolist()
    vectors = np.full((len(index), dim), np.nan, dtype=np.float32)
    if sequences:
        # One worker: with several, the result depends on the order of their threads.
        model = Word2Vec(sequences, vector_size=dim, sg=1, window=5, min_count=1, epochs=epochs, seed=seed, workers=1)
        rows = [index[item] for item in model.wv.index_to_key]
        vectors[rows] = model.wv.vectors
    return torch.from_numpy(vectors)
