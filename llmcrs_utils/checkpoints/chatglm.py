"""ChatGLM-6B, first generation (Du et al. 2022; Zeng et al. 2023): config and causal language model on current transformers.

A row of ids has two parts: a context (the prompt, which ends with ``[gMASK]`` or ``[MASK]``), and the written part, which
begins with ``<sop>``. Attention in the context is bidirectional, in the written part from left to right. Every token has two
positions: its place in the context (for all written tokens that of the mask), and its place in the written part.
Importing this module lets AutoConfig and AutoModelForCausalLM load a folder with the published files.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

FIRST_RELEASE = {"vocab_size": 150528, "bos_token_id": 150004, "eos_token_id": 150005, "mask_token_id": 150000,
                 "gmask_token_id": 150001, "pad_token_id": 20003}  # fmt: skip


class ChatGLMConfig(PreTrainedConfig):
    """Sizes and special ids. The defaults are those of ChatGLM-6B with the vocabulary of 130528 (from 2023-04-06 on).

    ``bos_token_id`` is ``<sop>``, ``eos_token_id`` is ``<eop>``.

    Raises:
        ValueError: for the first release (vocabulary of 150528), for a ChatGLM of a later generation, for files that the
            published code quantised or prefix-tuned, for ids outside the vocabulary, for equal special ids, and for sizes
            that are not divisible by the heads and the two rotary halves.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_hidden_layers": "num_layers",
        "max_position_embeddings": "max_sequence_length",
        "intermediate_size": "inner_hidden_size",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    bos_token_id: int = 130004
    eos_token_id: int = 130005
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    pad_token_id: int = 3

    def __post_init__(self, **kwargs):
        if "padded_vocab_size" in kwargs or "multi_query_attention" in kwargs:
            raise ValueError("this ChatGLM is of the second generation or later, another architecture; give THUDM/chatglm-6b")
        if kwargs.pop("quantization_bit", 0):
            raise ValueError("these ChatGLM files are quantised by the published code; give the unquantised checkpoint")
        if kwargs.pop("pre_seq_len", None) is not None:
            raise ValueError("these ChatGLM files expect a tuned prefix (pre_seq_len); give the plain checkpoint")
        if not kwargs.pop("position_encoding_2d", True):
            raise ValueError("position_encoding_2d is false: only ChatGLM with two positions per token is supported")
        kwargs.pop("prefix_projection", None)
        kwargs.pop("auto_map", None)  # it names code files, which folders saved by this project do not have
        self._check()
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        ids = {name: getattr(self, name) for name in FIRST_RELEASE if name != "vocab_size"}
        if self.vocab_size == FIRST_RELEASE["vocab_size"] or any(ids[name] == FIRST_RELEASE[name] for name in ids):
            raise ValueError(
                f"vocab_size {self.vocab_size} with {ids} is ChatGLM-6B's first release; the checkpoint with the vocabulary "
                "of 130528 is needed (THUDM/chatglm-6b, revision a8ede82 or later), all files of one revision"
            )
        outside = {name: value for name, value in ids.items() if not 0 <= value < self.vocab_size}
        if outside:
            raise ValueError(f"{outside} outside the vocabulary of {self.vocab_size}; the config is not of one checkpoint")
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"special ids coincide: {ids}")
        if self.hidden_size % self.num_attention_heads or self.hidden_size // self.num_attention_heads % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.num_attention_heads} heads: each head needs a width divisible by 4"
            )


def context_of(input_ids: Tensor, real: Tensor, config: ChatGLMConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each row's context ends, and which mask its written part fills.

    Only a mask in the context counts: a ``[gMASK]`` that the model writes itself must not move earlier tokens.

    Args:
        input_ids: [batch, columns], the whole row, not only its newest tokens.
        real: [batch, columns], false for padding.

    Returns:
        start: [batch, 1], column of the first ``<sop>``, which equals the number of columns of padding and context.
        blank: [batch, 1], column of the first ``[gMASK]`` of the context, else of its first ``[MASK]``.
        pads: [batch, 1], number of columns of padding on the left.
        complete: [batch, 1], whether the row has ``<sop>`` and a mask.
    """
    opening = (input_ids == config.bos_token_id) & real
    start = opening.int().argmax(1, keepdim=True)
    context = real & (torch.arange(input_ids.shape[1], device=input_ids.device) < start)
    gmask, mask = ((input_ids == token) & context for token in (config.gmask_token_id, config.mask_token_id))
    blank = torch.where(gmask.any(1, keepdim=True), gmask, mask)
    pads = real.int().argmax(1, keepdim=True)
    return start, blank.int().argmax(1, keepdim=True), pads, opening.any(1, keepdim=True) & blank.any(1, keepdim=True)


def two_positions(columns: Tensor, start: Tensor, blank: Tensor, pads: Tensor) -> Tensor:
    """[batch, 2, columns]: place in the context, counted from its first token, and place in the written part, counted from 1."""
    written = columns >= start
    place = torch.where(written, blank - pads, (columns - pads).clamp(min=0))
    return torch.stack([place, (columns - start + 1).clamp(min=0)], dim=1)


def rotations(position_ids: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the rotary positions: half of every head turns by the first position, the other half by the second.

    The published model was trained with frequencies rounded to float16. The angles are computed from these in float32, for
    any dtype of the weights.

    Returns:
        Two tensors [batch, columns, 1, 1, 2, head_dim / 2] in float32.
    """
    half = head_dim // 2
    frequencies = 10000 ** (-torch.arange(0, half, 2, device=position_ids.device, dtype=torch.float32) / half)
    angles = position_ids.transpose(1, 2)[..., None].float() * frequencies.half().float()
    angles = torch.cat([angles, angles], dim=-1)[:, :, None, None]
    return angles.cos(), angles.sin()


class ChatGLMAttention(nn.Module):
    def __init__(self, config: ChatGLMConfig, layer: int):
        super().__init__()
        self.layer, self.heads = layer, config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None, past_key_values: Cache | None) -> Tensor:
        batch, columns, width = states.shape
        # The weight's rows are in order of the heads: the query, key and value of the first head, then of the next.
        joint = self.query_key_value(states).view(batch, columns, self.heads, 3, self.head_dim)
        value = joint[:, :, :, 2].transpose(1, 2)
        turned = joint[:, :, :, :2].reshape(batch, columns, self.heads, 2, 2, self.head_dim // 2)
        first, second = turned.chunk(2, dim=-1)
        turned = (turned * cos + torch.cat([-second, first], dim=-1) * sin).to(value.dtype)
        query, key = turned.flatten(-2).transpose(1, 2).unbind(3)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer)
        # The published code divides scores by the layer's number and multiplies them again, to avoid overflow in float16.
        # The fused kernels accumulate in float32 and do not need this.
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.dense(attended.transpose(1, 2).reshape(batch, columns, width))


class ChatGLMMLP(nn.Module):
    def __init__(self, config: ChatGLMConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(states), approximate="tanh"))


class ChatGLMBlock(GradientCheckpointingLayer):
    """One layer. The residual added to attention and to the MLP is their normalised input times sqrt(2 * layers)."""

    def __init__(self, config: ChatGLMConfig, layer: int):
        super().__init__()
        self.alpha = (2 * config.num_layers) ** 0.5
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(
        self, states: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None, past_key_values: Cache | None = None
    ) -> Tensor:
        normed = self.input_layernorm(states)
        attended = self.attention(normed, cos, sin, visible, past_key_values)
        normed = self.post_attention_layernorm(torch.add(attended, normed, alpha=self.alpha))
        return torch.add(self.mlp(normed), normed, alpha=self.alpha)


class ChatGLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """ChatGLM with its tied language-model head. Parameters have the names of the published checkpoint."""

    config_class = ChatGLMConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["ChatGLMBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]

    def __init__(self, config: ChatGLMConfig):
        super().__init__(config)
        self.transformer = nn.Module()
        self.transformer.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer.layers = nn.ModuleList(ChatGLMBlock(config, layer) for layer in range(config.num_layers))
        self.transformer.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.word_embeddings = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        two_position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            input_ids: [batch, columns], each row ``context [gMASK] <sop> written``, padded on the left or right. With a filled
                cache, only the tokens after those in the cache.
            attention_mask: [batch, columns, those in the cache included], 0 for padding. Without it, pad ids on the left
                count as padding.
            two_position_ids: [batch, 2, columns]. Computed from the ids if the cache is empty; required otherwise.
            labels: [batch, columns], -100 for columns without a prediction. The column before predicts a column's label.
            logits_to_keep: how many of the last columns get logits; 0 for all.
            kwargs: ``num_items_in_batch`` divides the summed loss; without it the number of labels does.

        Returns:
            ``logits`` [batch, columns, vocabulary], ``loss`` if there are labels, the cache, and on request the hidden states:
            the input of every layer, then the output of the last norm.

        Raises:
            ValueError: for a row without ``<sop>`` or without a mask before it.
        """
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError("ChatGLM reads positions and visibility off the ids: give input_ids, not inputs_embeds")
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past and two_position_ids is None:
            raise ValueError("after a filled cache ChatGLM needs two_position_ids (prepare_inputs_for_generation gives them)")
        if past:
            visible = visible_after(past, input_ids, attention_mask)
        else:
            if attention_mask is None:
                real = (input_ids != self.config.pad_token_id).cumsum(1) > 0
            else:
                real = attention_mask.bool()
            start, blank, pads, complete = context_of(input_ids, real, self.config)
            if not complete.all():
                self._refuse(int(complete[:, 0].int().argmin()))
            columns = torch.arange(input_ids.shape[1], device=input_ids.device)
            two_position_ids = two_positions(columns, start, blank, pads)
            # [batch, 1, row, column]. Padding sees the context too: a row that sees nothing would become NaN.
            visible = (((columns <= columns[:, None]) | (columns < start[..., None])) & real[:, None])[:, None]

        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        states = self.transformer.word_embeddings(input_ids)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        cos, sin = (table.to(states.dtype) for table in rotations(two_position_ids, head_dim))
        hidden_states = (states,)
        for layer in self.transformer.layers:
            states = layer(states, cos, sin, visible, past_key_values=past_key_values)
            if output_hidden_states:
                hidden_states += (states,)
        states = self.transformer.final_layernorm(states)

        logits = self.lm_head(states[:, -logits_to_keep:] if logits_to_keep else states)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*hidden_states[:-1], states) if output_hidden_states else None,
        )

    def _refuse(self, row: int) -> None:
        config = self.config
        raise ValueError(
            f"row {row} of the batch holds no <sop> (id {config.bos_token_id}), or no [gMASK] or [MASK] (ids "
            f"{config.gmask_token_id}, {config.mask_token_id}) before it: "
            "ChatGLM reads 'text [gMASK] <sop>', as its tokenizer closes every text"
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        **kwargs,
    ) -> dict:
        """The arguments of ``forward`` at a step of ``generate``, which drops a mask of ones: no mask means no padding."""
        inputs = {name: kwargs[name] for name in ("use_cache", "logits_to_keep", "output_hidden_states") if name in kwargs}
        inputs["past_key_values"] = past_key_values
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if not past:
            ones = torch.ones_like(input_ids)
            return {"input_ids": input_ids, "attention_mask": ones if attention_mask is None else attention_mask, **inputs}
        if input_ids.shape[1] <= past:
            raise ValueError("ChatGLM goes on from a cache only with the whole row of ids, those in the cache included")
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        start, blank, pads, _ = context_of(input_ids, real, self.config)
        columns = torch.arange(past, input_ids.shape[1], device=input_ids.device)
        return {
            "input_ids": input_ids[:, past:],
            "attention_mask": attention_mask,
            "two_position_ids": two_positions(columns, start, blank, pads),
            **inputs,
        }


def visible_after(past: int, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """The attention mask of newly written tokens, when the cache holds the whole context.

    Returns:
        [batch or 1, 1, new, past + new], or ``None`` if they see everything.
    """
    new = input_ids.shape[1]
    visible = None if attention_mask is None else attention_mask[:, None, None].bool()
    if new == 1:
        return visible
    columns = torch.arange(past + new, device=input_ids.device)
    before = (columns <= columns[past:, None])[None, None]
    return before if visible is None else before & visible


AutoConfig.register("chatglm", ChatGLMConfig, exist_ok=True)
AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForConditionalGeneration, exist_ok=True)
