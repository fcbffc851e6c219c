"""LLaMA's tokenizer from its ``tokenizer.model``, run by sentencepiece itself.

transformers rebuilds the tokenizer as a list of merges in the order of the pieces. Chinese-LLaMA (Cui et al. 2023) appended its
pieces to LLaMA's, all with one score. Among overlapping words sentencepiece then takes the leftmost one, but the rebuilt
tokenizer takes the one listed first: the models would read other tokens than those they were trained on.
"""

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


class SentencePieceLlamaTokenizer(SentencePieceBackend):
    """A sentencepiece tokenizer that begins a text with the start token and adds no end token.

    The setting ``add_bos_token: false`` turns the start token off. Unknown characters become their bytes. Special tokens are
    those of the settings, else LLaMA's own.

    Raises:
        ValueError: if a special token is neither in the file nor among the added tokens (``added_tokens.json``).
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs):
        # Old settings files name "" as special tokens; the model has LLaMA's.
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
