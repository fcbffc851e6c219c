"""Answers of a trained UniMIND."""

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from llmcrs_utils.crs.unimind import UniMind
from llmcrs_utils.tasks.answers import ranked, text_answer
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.training.collators import unimind_collator
from llmcrs_utils.training.decoding import answer_in_batches, mean_up_to_end


@torch.no_grad()
def predict(
    model: UniMind,
    tokenizer: PreTrainedTokenizerFast,
    samples: pd.DataFrame,
    examples: list[dict],
    items: dict[str, int],
    prompts: Prompts,
    *,
    num_beams: int,
    max_target_len: int,
    batch_size: int,
) -> pd.DataFrame:
    """Predictions in the order of ``samples``: columns of ``predictions.SCHEMA`` without system and seed, and ``catalogue``.

    For recommend, ``catalogue`` holds the 50 best item ids of the whole catalogue, best first.
    """
    model.eval()
    device = model.item_bias.device
    collate = unimind_collator(tokenizer.pad_token_id, model.config.n_items)
    rows = samples.to_dict("records")

    def answer(task: str, chosen: list[int]) -> list[dict]:
        batch = collate([examples[i] for i in chosen])
        batch = {name: tensor.to(device) for part in batch.values() for name, tensor in part.items()}
        if task == "recommend":
            return rank(model, [rows[i] for i in chosen], batch, items)
        written = write_texts(model, tokenizer, batch, num_beams, max_target_len)
        return [text_answer(task, raw, prompts, confidence=confidence) for raw, confidence in written]

    return answer_in_batches(samples, [len(example["input_ids"]) for example in examples], batch_size, answer)


def write_texts(model: UniMind, tokenizer, batch: dict, num_beams: int, max_target_len: int) -> list[tuple[str, float]]:
    """Generated texts, each with the mean log-probability of its tokens.

    Other generation settings of the backbone (``no_repeat_ngram_size``) apply, as in the published code.
    """
    max_target_len = min(max_target_len, model.backbone.config.max_position_embeddings)
    written = model.backbone.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
        num_beams=num_beams, do_sample=False, use_cache=True, max_new_tokens=max_target_len, early_stopping=num_beams > 1,
    )  # fmt: skip
    confidences = mean_log_probabilities(model.backbone, batch, written)
    return list(zip(tokenizer.batch_decode(written, skip_special_tokens=True), confidences, strict=True))


def mean_log_probabilities(backbone, batch: dict, written: torch.Tensor) -> list[float]:
    """The mean log-probability, under the model alone, of each written row's tokens, its end included.

    One more forward pass serves greedy decoding and beams alike. The encoder reads the ids and the mask alone, as in ``generate``.

    Args:
        written: [batch, length] what ``generate`` returned: the start token, the answer, and padding.
    """
    encoded = backbone.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    output = backbone(encoder_outputs=encoded, attention_mask=batch["attention_mask"], decoder_input_ids=written[:, :-1], use_cache=False)
    tokens = written[:, 1:]
    losses = cross_entropy(output.logits.float().transpose(1, 2), tokens, reduction="none")
    return mean_up_to_end(-losses, tokens, backbone.generation_config.eos_token_id)


def rank(model: UniMind, rows: list[dict], batch: dict, items: dict[str, int]) -> list[dict]:
    states = model.backbone_states(batch["input_ids"], batch["attention_mask"])
    scores = model.item_scores(states, batch["history"], batch["history_length"], batch["helped"])
    return ranked(scores, rows, items)
