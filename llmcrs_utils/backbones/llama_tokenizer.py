"""LLaMA's tokeniser from its ``tokenizer.model``, run by sentencepiece itself.

transformers rebuilds it as a list of merges in the order of the pieces. Chinese-LLaMA (Cui et al. 2023) appended its pieces
to LLaMA's with one score for all, so among overlapping words sentencepiece takes the leftmost and the rebuilt one the
first listed: the models would read other tokens than they were trained on.
"""

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend


class SentencePieceLlamaTokenizer(SentencePieceBackend):
    """``<s>`` in front of a text, its end left open; unknown characters by their bytes."""

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs):
        # Old files of settings name "" as special tokens, where the model has these.
        kwargs |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
        super().__init__(vocab_file=vocab_file, **kwargs)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        return [self.bos_token_id, *token_ids_0, *(token_ids_1 or [])]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self.sp_model.decode_pieces(tokens)
