"""What the typical systems' models share: a BERT inside where they read text, saved and reloaded like any checkpoint."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, set_seed

from llmcrs_utils.backbones.loading import load_encoder


class TypicalConfig(PretrainedConfig):
    """The encoder's config (empty: no encoder) and ``shape``, whatever else tells how the model is built (JSON values)."""

    model_type = "typical"

    def __init__(self, encoder: dict | None = None, shape: dict | None = None, **kwargs):
        self.encoder = encoder or {}
        self.shape = shape or {}
        super().__init__(**kwargs)


AutoConfig.register("typical", TypicalConfig, exist_ok=True)  # else loading the tokeniser that is saved beside a model warns of it


class TypicalModel(PreTrainedModel):
    """Base of the typical systems' models: ``self.encoder`` (``None`` without one), other parts by the subclass's ``build``."""

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
        """Make the parts that are not the encoder."""
        raise TypeError(f"{type(self).__name__} does not say what it is made of")

    def _init_weights(self, module):
        """The parts initialise themselves; a loaded encoder must not be touched again."""

    def states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[batch, length, hidden]: what the encoder has made of each token."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def new_model(kind: type[TypicalModel], model_name_or_path: str | None, seed: int, **shape) -> TypicalModel:
    """A model with random parts on the encoder of a checkpoint (``None``: without one)."""
    encoder = load_encoder(model_name_or_path) if model_name_or_path else None
    set_seed(seed)
    model = kind(TypicalConfig(encoder.config.to_dict() if encoder is not None else None, shape))
    if encoder is not None:
        model.encoder.load_state_dict(encoder.state_dict())
    return model


def load_model(kind: type[TypicalModel], folder: str | Path) -> TypicalModel:
    """A trained model as ``training.train`` saved it, in evaluation mode."""
    return kind.from_pretrained(str(folder)).eval()
