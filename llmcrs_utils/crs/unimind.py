"""UniMIND for pre-sales dialogue (paper section 3.3): one seq2seq model for text, an item head for recommendation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig, PretrainedConfig, PreTrainedModel, set_seed

from llmcrs_utils.behaviour.sasrec import SASRec
from llmcrs_utils.checkpoints.cpt import CPTForConditionalGeneration
from llmcrs_utils.checkpoints.loading import load_seq2seq
from llmcrs_utils.training.processes import loss_weights


class UniMindConfig(PretrainedConfig):
    """Shape of a UniMIND: the config and decoding settings of its backbone, the number of items, and the item head."""

    model_type = "unimind"

    def __init__(
        self,
        backbone: dict | None = None,
        n_items: int = 0,
        item_dim: int = 300,
        max_history: int = 50,
        recommend_loss_reaches_backbone: bool = False,
        generation: dict | None = None,
        **kwargs,
    ):
        self.backbone = backbone or {}
        self.n_items = n_items
        self.item_dim = item_dim
        self.max_history = max_history
        self.recommend_loss_reaches_backbone = recommend_loss_reaches_backbone
        self.generation = generation or {}
        super().__init__(**kwargs)


class UniMind(PreTrainedModel):
    """UniMIND(BART) or UniMIND(CPT), depending on its backbone.

    The user representation is a linear fusion of the backbone's state and the state of a causal self-attentive behaviour
    encoder. An item's score is the dot product of the user representation and the item's embedding, plus the item's bias. With
    an assistant, the embedding of the item that it chose is added to the user representation (equation 4).
    """

    config_class = UniMindConfig

    def __init__(self, config: UniMindConfig):
        super().__init__(config)
        backbone = dict(config.backbone)
        self.backbone = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(backbone.pop("model_type"), **backbone))
        self.backbone.generation_config = GenerationConfig.from_dict(config.generation)
        self.item_embedding = nn.Embedding(config.n_items + 1, config.item_dim, padding_idx=config.n_items)
        self.item_bias = nn.Parameter(torch.zeros(config.n_items))
        self.sasrec = SASRec(config.item_dim, config.max_history)
        self.fusion = nn.Linear(config.item_dim + self.state_dim, config.item_dim)
        nn.init.xavier_uniform_(self.item_embedding.weight)
        with torch.no_grad():
            self.item_embedding.weight[config.n_items].zero_()  # the padding index
        self.post_init()
        # Sharding wraps modules of these classes. The list may name only classes of this model, and a backbone's list names more.
        self._no_split_modules = {type(module).__name__ for module in self.modules()} & set(self._no_split_modules)

    def _init_weights(self, module):
        """Does nothing: the parts initialise themselves, and a loaded backbone must keep its weights."""

    @property
    def understands(self) -> bool:
        """Whether the backbone has an understanding decoder besides the generation decoder, as CPT has."""
        return isinstance(self.backbone, CPTForConditionalGeneration)

    @property
    def state_dim(self) -> int:
        return self.backbone.config.d_model * (2 if self.understands else 1)

    def backbone_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[batch, ``state_dim``]: the backbone's state for each text. A text has one end-of-sequence token, at its end.

        BART: the decoder's state at the column of that token. CPT: the understanding decoder's state at the first column,
        then the generation decoder's at the end column. The model is called without labels, so the decoder reads the input
        shifted right, and its state at the end column has read all tokens but the last (as in the published code).
        """
        output = self.backbone.model(input_ids=input_ids, attention_mask=attention_mask)
        rows, end = torch.arange(len(input_ids), device=input_ids.device), attention_mask.sum(dim=1) - 1
        states = output.last_hidden_state[rows, end]
        return torch.cat([output.encoder_last_hidden_state[:, 0], states], dim=-1) if self.understands else states

    def item_scores(self, states: Tensor, history: Tensor, history_length: Tensor, helped: Tensor) -> Tensor:
        """Scores of all items.

        Args:
            states: [batch, ``state_dim``] of ``backbone_states``.
            history: [batch, slots] item indices, padded with ``n_items``.
            history_length: [batch].
            helped: [batch] index of the item that the assistant chose, ``n_items`` if it chose none.

        Returns:
            [batch, n_items].
        """
        behaviour = self.sasrec(self.item_embedding(history), history_length)
        user = self.fusion(torch.cat([behaviour, states.to(behaviour.dtype)], dim=-1)) + self.item_embedding(helped)
        return user @ self.item_embedding.weight[:-1].T + self.item_bias

    def forward(self, generation: dict | None = None, recommendation: dict | None = None, return_loss: bool = True):
        """The sum of the losses of the batch's parts: text tasks (equation 1) and recommend (equation 3)."""
        tokens = 0 if generation is None else int((generation["labels"] != -100).sum())
        choices = 0 if recommendation is None else len(recommendation["gold"])
        token_weight, choice_weight = loss_weights([tokens, choices], self.device)
        losses = []
        if generation is not None:
            losses.append(token_weight * self.backbone(**generation).loss)
        if recommendation is not None:
            losses.append(choice_weight * self.recommend_loss(**recommendation))
        return {"loss": torch.stack(losses).sum()}

    def recommend_loss(
        self, gold, history, history_length, helped, input_ids=None, attention_mask=None, states=None
    ) -> Tensor:
        """Cross entropy over the whole catalogue. Cached ``states`` replace the forward pass of the backbone."""
        if states is None:
            with torch.set_grad_enabled(self.config.recommend_loss_reaches_backbone and torch.is_grad_enabled()):
                states = self.backbone_states(input_ids, attention_mask)
        return F.cross_entropy(self.item_scores(states, history, history_length, helped), gold)


def new_unimind(
    model_name_or_path: str,
    vocabulary_size: int,
    item_vectors: Tensor,
    max_history: int,
    recommend_loss_reaches_backbone: bool,
    seed: int,
    generation_token_type: int | None = None,
) -> UniMind:
    """A new UniMIND on a pretrained backbone.

    Args:
        vocabulary_size: number of tokens of the tokenizer, segment tokens included.
        item_vectors: [n_items, item_dim], the initial item embeddings. Rows that are NaN start at random.
        generation_token_type: as for ``load_seq2seq``.
    """
    set_seed(seed)  # new tokens and the item head are initialised at random
    backbone = load_seq2seq(model_name_or_path, generation_token_type)
    backbone.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    config = UniMindConfig(
        backbone=backbone.config.to_dict(),
        n_items=len(item_vectors),
        item_dim=item_vectors.shape[1],
        max_history=max_history,
        recommend_loss_reaches_backbone=recommend_loss_reaches_backbone,
        generation=backbone.generation_config.to_dict(),
    )
    model = UniMind(config)
    model.backbone.load_state_dict(backbone.state_dict())
    known = ~item_vectors.isnan().any(dim=1)
    with torch.no_grad():
        model.item_embedding.weight[:-1][known] = item_vectors[known]
    return model
