"""LLaMA's tokenizer from its ``tokenizer.model``, run by sentencepiece itself.

transformers rebuilds it as a list of merges in the order of the pieces. Chinese-LLaMA (Cui et al. 2023) appended its pieces
to LLaMA's with one score for all, so among overlapping words sentencepiece takes the leftmost and the rebuilt one the
first listed: the models would read other tokens than they were trained on.
"""

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


class SentencePieceLlamaTokenizer(SentencePieceBackend):
    """The start token in front of a text where the settings do not forbid it, its end left open; unknown characters by their bytes.

    Special tokens are those of the settings, else LLaMA's own.

    Raises:
        ValueError: where neither the file nor the tokens added beside it (``added_tokens.json``) hold one of them.
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs):
        # Old files of settings name "" as special tokens, where the model has these.
        specials = {name: kwargs.get(name) for name in LLAMA_TOKENS}
        specials = {name: token if token and str(token) else LLAMA_TOKENS[name] for name, token in specials.items()}
        self.opens = kwargs.pop("add_bos_token", None) is not False
        super().__init__(vocab_file=vocab_file, **{"legacy": True} | kwargs | specials)
        known = {self.sp_model.id_to_piece(index) for index in range(self.sp_model.get_piece_size())}
        known |= {str(token) for token in kwargs.get("added_tokens_decoder", {}).values()}
        missing = [str(token) for token in specials.values() if str(token) not in known]
        if missing:
            raise ValueError(
                f"{vocab_file} holds no {', '.join(missing)}: it is not LLaMA's; give the checkpoint's tokenizer.json or "
                "added_tokens.json with it"
            )

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        return [*([self.bos_token_id] if self.opens else []), *token_ids_0, *(token_ids_1 or [])]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self.sp_model.decode_pieces(tokens)
