"""CPT, the Chinese pretrained unbalanced transformer (Shao et al. 2021): one encoder, two shallow decoders.

A shared encoder (S-Enc) feeds an understanding decoder (U-Dec, bidirectional) and a generation decoder (G-Dec, causal,
with cross-attention). The weights of S-Enc and U-Dec form one BERT, whose last ``decoder_layers`` layers are U-Dec. G-Dec is
BART's decoder. So all parts come from transformers, and the names of a published state dict fit. The config of a published
checkpoint says "bart"; ``loading.load_seq2seq`` recognises a CPT by the names of the weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertModel,
)
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.models.bart.modeling_bart import BartDecoder, BartScaledWordEmbedding, shift_tokens_right
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

TRAINED_TOKEN_TYPE = 1  # token type of every position in pretraining and in each call with the decoder


class CPTConfig(BartConfig):
    """BART's fields. ``encoder_layers`` counts S-Enc and U-Dec together, of which U-Dec has ``decoder_layers``.

    Args:
        generation_token_type: BERT's token type of the input during ``generate``. 1 is the type used in training. 0 is the
            behaviour of the published code, whose ``generate`` encodes without that type.

    Raises:
        ValueError: for another token type, and for an encoder without layers of its own.
    """

    model_type = "cpt"
    generation_token_type: int = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.generation_token_type not in (0, 1):
            raise ValueError(f"generation_token_type={self.generation_token_type}: give 0 (as published) or 1 (as in training)")
        if self.decoder_layers >= self.encoder_layers:
            raise ValueError(
                f"encoder_layers={self.encoder_layers} hold the {self.decoder_layers} layers of the understanding decoder; "
                "give more of them than decoder_layers"
            )


@dataclass
class CPTEncoderOutput(ModelOutput):
    """States of S-Enc, which G-Dec reads, and of U-Dec, both [batch, length, d_model]; states and attentions of all layers."""

    last_hidden_state: Tensor | None = None
    understanding_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CPTEncoder(BertModel):
    """S-Enc and U-Dec. Called with ids and mask alone, as ``generate`` does, it computes only what G-Dec reads."""

    def __init__(self, config: CPTConfig):
        bert = BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.encoder_layers,
            num_attention_heads=config.encoder_attention_heads,
            intermediate_size=config.encoder_ffn_dim,
            hidden_dropout_prob=config.activation_dropout,
            attention_probs_dropout_prob=config.attention_dropout,
            max_position_embeddings=config.max_position_embeddings,
            initializer_range=config.init_std,
            pad_token_id=config.pad_token_id,
            attn_implementation=config._attn_implementation,
        )
        super().__init__(bert, add_pooling_layer=False)
        self.shared_layers = config.encoder_layers - config.decoder_layers
        self.generation_token_type = config.generation_token_type

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type: int | None = None,
        understand: bool = False,
        **kwargs,
    ) -> CPTEncoderOutput:
        """The states of ``input_ids`` [batch, length] (or ``inputs_embeds``), all of one ``token_type``.

        With ``understand`` U-Dec runs too.
        """
        shape = (input_ids if input_ids is not None else inputs_embeds[..., 0]).shape
        token_type = self.generation_token_type if token_type is None else token_type
        types = torch.full(shape, token_type, device=self.device)
        states = self.embeddings(input_ids=input_ids, token_type_ids=types, inputs_embeds=inputs_embeds)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=states, attention_mask=attention_mask)
        for layer in self.encoder.layer[: self.shared_layers]:
            states = layer(states, mask, **kwargs)
        output = CPTEncoderOutput(last_hidden_state=states)
        if understand:
            for layer in self.encoder.layer[self.shared_layers :]:
                states = layer(states, mask, **kwargs)
            output.understanding_state = states
        return output


class CPTModel(BartModel):
    """The encoder and G-Dec around one embedding matrix."""

    _tied_weights_keys = {
        "decoder.embed_tokens.weight": "shared.weight",
        "encoder.embeddings.word_embeddings.weight": "shared.weight",
    }
    _keys_to_ignore_on_load_unexpected = [r"encoder\.embeddings\.position_ids"]  # a buffer that older libraries saved

    def __init__(self, config: CPTConfig):
        super(BartModel, self).__init__(config)  # BartModel.__init__ would build BART's encoder
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.shared = BartScaledWordEmbedding(config.vocab_size, config.d_model, config.pad_token_id, embed_scale=scale)
        self.encoder = CPTEncoder(config)
        self.decoder = BartDecoder(config)
        self.post_init()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.shared = value
        self.encoder.set_input_embeddings(value)
        self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: CPTEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput:
        """As ``BartModel.forward``: without decoder input, the decoder reads the input shifted right by one.

        ``last_hidden_state`` is G-Dec's and ``encoder_last_hidden_state`` is U-Dec's. The latter is ``None`` with the
        ``encoder_outputs`` of ``generate``, which does not need it.

        Raises:
            ValueError: without input ids and without decoder input.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids, or say what the decoder reads: decoder_input_ids or decoder_inputs_embeds")
            decoder_input_ids = shift_tokens_right(input_ids, self.config.pad_token_id, self.config.decoder_start_token_id)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, token_type=TRAINED_TOKEN_TYPE, understand=True, **kwargs
            )
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.understanding_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class CPTForConditionalGeneration(BartForConditionalGeneration):
    """CPT with its language-model head, which shares the embeddings' matrix. A ``CPTConfig`` makes a new model of any size."""

    config_class = CPTConfig
    _no_split_modules = ["BertEmbeddings", "BertLayer", "BartDecoderLayer"]
    _keys_to_ignore_on_load_unexpected = CPTModel._keys_to_ignore_on_load_unexpected
    accepts_loss_kwargs = False  # the loss is a mean over the batch; the Trainer averages it over accumulated batches

    def __init__(self, config: CPTConfig):
        super(BartForConditionalGeneration, self).__init__(config)  # its __init__ would build a BART first
        self.model = CPTModel(config)
        self.final_logits_bias = nn.Buffer(torch.zeros(1, config.vocab_size))
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def logits(self, states: Tensor) -> Tensor:
        """[..., d_model] -> [..., vocab_size]."""
        return self.lm_head(states) + self.final_logits_bias

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: CPTEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        understanding_labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """The logits of G-Dec, and the mean cross entropy of the labels. Labels of -100 are ignored.

        Args:
            input_ids, attention_mask: [batch, length].
            labels: [batch, target length]. Without decoder input, the decoder reads the labels shifted right by one.
            understanding_labels: [batch, length], the tokens that U-Dec shall predict at each position of the input. This is
                masked language modelling, one of CPT's two pretraining tasks; its loss is added.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.logits(outputs.last_hidden_state)
        losses = []
        if labels is not None:
            losses.append(F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
        if understanding_labels is not None:
            masked = understanding_labels != -100  # few positions; the others need no logits
            predicted = self.logits(outputs.encoder_last_hidden_state[masked])
            # The division replaces a mean, which would be NaN without any such position.
            losses.append(F.cross_entropy(predicted, understanding_labels[masked], reduction="sum") / masked.sum().clamp(min=1))
        return Seq2SeqLMOutput(
            loss=torch.stack(losses).sum() if losses else None,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )


AutoConfig.register("cpt", CPTConfig)
AutoModelForSeq2SeqLM.register(CPTConfig, CPTForConditionalGeneration)
