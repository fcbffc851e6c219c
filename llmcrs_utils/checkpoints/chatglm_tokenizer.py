"""ChatGLM-6B's tokenizer on current transformers, and small tokenizers of the same layout.

Importing this module lets AutoTokenizer load a folder with ``ice_text.model``, whether published or saved by this project.
"""

import io
import re
import string
import unicodedata
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizer

from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig

VOCAB_FILE = "ice_text.model"
LINE, TAB = "<n>", "<|tab|>"
LONGEST_BLANK = 80
BLANKS = re.compile(" {2,%d}" % LONGEST_BLANK)
SPELT_BLANKS = re.compile(r"<\|blank_(\d+)\|>")
MASK, GMASK, START, END, PAD, UNKNOWN = "[MASK]", "[gMASK]", "<sop>", "<eop>", "<pad>", "<unk>"
CONTROL_TOKENS = [MASK, GMASK, "[sMASK]", "<unused_0>", START, END, "<ENC>", "<dBLOCK>"]
# Settings that are dropped: names of fixed pieces and of code files in published folders, and how a folder was loaded.
UNUSED_SETTINGS = (
    "auto_map", "gmask_token", "end_token", "model_specific_special_tokens", "do_lower_case", "remove_space", "num_image_tokens",
    "is_local", "local_files_only",
)  # fmt: skip


class ChatGLMTokenizer(PreTrainedTokenizer):
    """A sentencepiece tokenizer with own pieces for line breaks, tabs and runs of blanks.

    A single text becomes ``text [gMASK] <sop>``; the model writes after it. A pair of texts becomes
    ``text [gMASK] <sop> text <eop>``. If a text holds ``<sop>``, ``<eop>``, ``<pad>``, ``<unk>`` or ``[MASK]``, these are read as
    the special tokens; ``[gMASK]`` and ``</s>`` are read as ordinary text. Normalisation makes full-width punctuation half-width.

    Args:
        vocab_file: the sentencepiece file. Special tokens have the ids of its pieces.
        model_proto: the content of such a file, in place of ``vocab_file``.

    Raises:
        ValueError: for a file that lacks fixed pieces, such as that of the first release (which needs another 20,000 ids).
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(self, vocab_file: str | None = None, *, model_proto: bytes | None = None, **kwargs):
        if model_proto is None and vocab_file is None:
            raise ValueError(f"no {VOCAB_FILE}: ChatGLM's tokenizer needs this file of its checkpoint")
        try:
            self.sp = sentencepiece.SentencePieceProcessor(model_proto=model_proto or Path(vocab_file).read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{vocab_file or 'model_proto'} is no whole sentencepiece file: {error}") from None
        pieces = self.sp.id_to_piece(list(range(len(self.sp))))
        self._ids = {piece: index for index, piece in enumerate(pieces)}
        missing = [piece for piece in (PAD, UNKNOWN, LINE, MASK, GMASK, START, END) if piece not in self._ids]
        if missing:
            raise ValueError(
                f"{vocab_file or 'model_proto'} has {len(pieces)} pieces and no {', '.join(missing)}: ChatGLM-6B's first release "
                f"and other models have such a file; take {VOCAB_FILE} of THUDM/chatglm-6b, revision a8ede82 or later"
            )
        specials = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN, "mask_token": MASK}
        # Blanks beside a typed special token were dropped when the model was trained.
        settings = {"lstrip": True, "rstrip": True, "normalized": False, "special": True}
        tokens = {name: AddedToken(piece, **settings) for name, piece in specials.items()}
        kept = {name: value for name, value in kwargs.items() if name not in UNUSED_SETTINGS}
        by_id = {self._ids[str(token)]: token for token in tokens.values()}
        kept["added_tokens_decoder"] = kept.get("added_tokens_decoder", {}) | by_id
        super().__init__(**kept | tokens)

    @property
    def vocab_size(self) -> int:
        return len(self.sp)

    @property
    def gmask_token_id(self) -> int:
        return self._ids[GMASK]

    def get_vocab(self) -> dict[str, int]:
        return self._ids | self._added_tokens_encoder

    def tokenize(self, text: str, **kwargs) -> list[str]:
        if any(token in text for token in self._added_tokens_encoder):
            return super().tokenize(text, **kwargs)
        return self._tokenize(text)  # a fast path for nearly every text: the search for special tokens is slow

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        return self.sp.encode(spell_blanks(text), out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._ids[UNKNOWN])

    def _convert_id_to_token(self, index: int) -> str:
        """The piece of an id. Rows of the model's matrix without a piece give ``""``."""
        return self.sp.id_to_piece(index) if index < len(self.sp) else ""

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return unspell_blanks(self.sp.decode(tokens))

    def _decode(self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs) -> str:
        """The text of the ids. Padding, ``<sop>`` and other control pieces are always left out, as in the published tokenizer."""
        runs, run = [], []
        for index in [token_ids] if isinstance(token_ids, int) else token_ids:
            added = self._added_tokens_decoder.get(index)
            if index < len(self.sp):
                run.append(index)
            elif added is not None and not (skip_special_tokens and added.special):
                runs += [self.sp.decode(run), added.content]
                run = []
        return unspell_blanks("".join([*runs, self.sp.decode(run)]))

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        context = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return context if token_ids_1 is None else [*context, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        if already_has_special_tokens:
            specials = {self.gmask_token_id, *self.all_special_ids}
            return [int(index in specials) for index in token_ids_0]
        context = [0] * len(token_ids_0) + [1, 1]
        return context if token_ids_1 is None else context + [0] * len(token_ids_1) + [1]

    def create_token_type_ids_from_sequences(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{VOCAB_FILE}"
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(self.sp.serialized_model_proto())
        partial.replace(path)
        return (str(path),)


def spell_blanks(text: str) -> str:
    """The text with line breaks, tabs and runs of 2 to 80 blanks replaced by their pieces."""
    text = text.replace("\n", LINE).replace("\t", TAB)
    return BLANKS.sub(lambda run: f"<|blank_{len(run[0])}|>", text)


def unspell_blanks(text: str) -> str:
    return SPELT_BLANKS.sub(lambda run: " " * int(run[1]), text.replace(LINE, "\n").replace(TAB, "\t"))


def train_chatglm_tokenizer(texts: list[str], vocab_size: int) -> ChatGLMTokenizer:
    """Train a small tokenizer of the published layout: unigram pieces, single digits, bytes for unknown characters.

    Every Chinese character is a token, as in this project's other small tokenizers. Otherwise a small corpus would give pieces
    of whole phrases (an attribute with its value), and one word would be cut differently in different places. A single capital
    letter is a token too, the same at a text's start, after a blank and in a list, because letters name candidates. Equal texts
    give equal tokenizers.

    Args:
        vocab_size: number of pieces, the 349 fixed ones included. The tokenizer has more if the texts have too many different
            characters for it, and fewer if the texts have too few pieces.

    Raises:
        ValueError: if there is no text.
    """
    blanks = [f"<|blank_{length}|>" for length in range(2, LONGEST_BLANK + 1)]
    boundary = "\u241f"  # no piece may cross this character; it is not part of the vocabulary
    known = string.ascii_letters + string.digits + string.punctuation
    before_chinese = re.compile(r"(?=[\u3400-\u9fff\uf900-\ufaff])")
    # Training time is quadratic in a sentence's length. The first boundary separates the blank that begins every sentence.
    parts = [part for text in texts for part in re.findall(".{1,500}", text.replace(boundary, " ")) if part.strip()]
    sentences = [boundary + before_chinese.sub(boundary, spell_blanks(part)) for part in parts]
    if not sentences:
        raise ValueError("no text to train a tokenizer on")
    characters = set(unicodedata.normalize("NFKC", "".join(sentences))) | set(known)
    fixed = [UNKNOWN, "<s>", "</s>", PAD, *CONTROL_TOKENS, LINE, TAB, *blanks, *range(256)]
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=content, model_type="unigram",
        vocab_size=max(vocab_size, len(fixed) + len(characters) + 1), hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", split_digits=True, byte_fallback=True, character_coverage=1.0, required_chars=known,
        pretokenization_delimiter=boundary, pad_id=3, control_symbols=CONTROL_TOKENS, user_defined_symbols=[LINE, TAB, *blanks],
        max_sentence_length=2**30, num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString(content.getvalue())
    kept = [piece for piece in model.pieces if not re.fullmatch("▁[A-Z]", piece.piece)]
    del model.pieces[:]
    model.pieces.extend(kept)
    return ChatGLMTokenizer(model_proto=model.SerializeToString())


def config_ids(tokenizer: ChatGLMTokenizer) -> dict[str, int]:
    """The settings of ``ChatGLMConfig`` that the tokenizer determines."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id")
    return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name) for name in names}}


AutoTokenizer.register(ChatGLMConfig, tokenizer_class=ChatGLMTokenizer, exist_ok=True)
