"""The common base of the typical systems' models: with a BERT if they read text, saved and loaded like any checkpoint."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from llmcrs_utils.checkpoints.loading import load_encoder
from llmcrs_utils.text.fitting import Piece, fit_pieces, warn_of_shortened


class TypicalConfig(PretrainedConfig):
    """The encoder's config (empty: no encoder), and ``shape``: all other settings of the model (JSON values)."""

    model_type = "typical"

    def __init__(self, encoder: dict | None = None, shape: dict | None = None, **kwargs):
        self.encoder = encoder or {}
        self.shape = shape or {}
        super().__init__(**kwargs)


AutoConfig.register("typical", TypicalConfig, exist_ok=True)  # a tokenizer saved beside the model then loads without a warning


class TypicalModel(PreTrainedModel):
    """Base of the typical systems' models. It has ``self.encoder`` (or ``None``); a subclass's ``build`` adds the other parts."""

    config_class = TypicalConfig

    def __init__(self, config: TypicalConfig):
        super().__init__(config)
        encoder = dict(config.encoder)
        self.encoder = None
        if encoder:
            self.encoder = AutoModel.from_config(AutoConfig.for_model(encoder.pop("model_type"), **encoder), add_pooling_layer=False)
        self.build(**config.shape)
        self.post_init()

    def build(self, **shape) -> None:
        """Create all parts except the encoder."""
        raise TypeError(f"{type(self).__name__} does not say what it is made of")

    def _init_weights(self, module):
        """Does nothing: the parts initialise themselves, and a loaded encoder must keep its weights."""

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[batch, length, hidden]: the encoder's state for each token."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def new_model(
    kind: type[TypicalModel], model_name_or_path: str | None, seed: int, tokenizer: PreTrainedTokenizerBase | None = None, **shape
) -> TypicalModel:
    """A new model: the encoder of a checkpoint (``None``: no encoder), and other parts with random weights.

    The encoder gets a row for every token of ``tokenizer``, added tokens included. The config gets the tokenizer's ids of the
    start, end and pad tokens.
    """
    encoder = load_encoder(model_name_or_path) if model_name_or_path else None
    set_seed(seed)
    model = kind(TypicalConfig(encoder.config.to_dict() if encoder is not None else None, shape))
    if encoder is not None:
        model.encoder.load_state_dict(encoder.state_dict())
        if tokenizer is not None and len(tokenizer) > model.encoder.get_input_embeddings().num_embeddings:
            model.encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            model.config.encoder = model.encoder.config.to_dict()
    if tokenizer is not None:
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(model.config, name, getattr(tokenizer, name))
    return model


def text_ids(texts: list[tuple[list[str], list[Piece]]], tokenizer: PreTrainedTokenizerBase, cutoff_len: int) -> list[list[int]]:
    """Token ids of each (earlier turns, pieces of the part that must stay), at most ``cutoff_len``.

    A text that is too long loses its oldest turns, then the beginning of its current turn. If the rest is still too long, it
    loses its first tokens, because an encoder cannot read beyond its positions.
    """
    ids, report = fit_pieces(texts, lambda batch: tokenizer(batch)["input_ids"], cutoff_len)
    warn_of_shortened(report, cutoff_len)
    return [row if len(row) <= cutoff_len else row[:1] + row[1 - cutoff_len :] for row in ids]


def load_model(kind: type[TypicalModel], folder: str | Path) -> TypicalModel:
    """Load a model that ``trainer.train`` saved, in evaluation mode."""
    return kind.from_pretrained(str(folder)).eval()
