"""Task samples -> the inputs of UniMIND."""

import pandas as pd
from transformers import PreTrainedTokenizerFast

from llmcrs_utils.text.fitting import fit_pieces
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.segments import crs_pieces
from llmcrs_utils.text.shielding import plain, special_of


def encode_samples(
    samples: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Prompts,
    items: dict[str, int],
    cutoff_len: int,
    max_target_len: int,
    helped: pd.DataFrame | None = None,
) -> tuple[list[dict], pd.DataFrame]:
    """One example per sample, in order, and the report of ``fitting.fit``.

    An example holds ``input_ids`` and, for text tasks, ``labels``. For recommend it holds ``gold``, ``history`` and ``helped``
    (item indices; ``helped`` is ``len(items)`` if the assistant chose no item).

    Args:
        items: item id -> index.
        cutoff_len, max_target_len: most tokens of an input and of a label. Both are lowered to the model's number of positions,
            which ``load_tokenizer`` stores in the tokenizer.
        helped: the assistant's help, one row per sample; ``None`` without an assistant.

    Raises:
        ValueError: for an input that exceeds the model's positions even without the current turn's text.
    """
    rows = samples.to_dict("records")
    help_of = {} if helped is None else dict(zip(helped["sample_id"], helped.to_dict("records"), strict=True))
    special = special_of(tokenizer)
    texts = [crs_pieces(row, prompts, help_of.get(row["sample_id"]), special) for row in rows]
    # A model cannot read beyond its positions.
    cutoff_len, max_target_len = (min(length, tokenizer.model_max_length) for length in (cutoff_len, max_target_len))
    input_ids, report = fit_pieces(texts, lambda batch: tokenizer(batch)["input_ids"], cutoff_len, positions=tokenizer.model_max_length)
    too_long = report["tokens"] > tokenizer.model_max_length
    if too_long.any():
        place = int(too_long.argmax())
        raise ValueError(
            f"sample {rows[place]['sample_id']}: {report['tokens'][place]} tokens are left of its input without any of the current "
            f"turn's text, and the model has {tokenizer.model_max_length} positions; "
            "shorten the assistant's answer or what the turn is to ask and recommend"
        )
    labels = tokenizer([plain(row["label"], special) for row in rows], truncation=True, max_length=max_target_len)["input_ids"]
    none = len(items)
    examples = []
    for row, ids, label in zip(rows, input_ids, labels, strict=True):
        if row["task"] == "recommend":
            help = help_of.get(row["sample_id"])
            chosen = items[help["ranking"][0]] if help is not None and help["usable"] else none
            history = [items[item] for item in row["history"]]
            examples.append({"input_ids": ids, "gold": items[row["label"]], "history": history, "helped": chosen})
        else:
            examples.append({"input_ids": ids, "labels": label})
    return examples, report


