"""How an LLM ranks the candidates: by the letter that it would answer (the paper), by a score, or by likelihood.

With ``candidates`` a candidate's score is the state of the last token of its description times one learned vector (``CandidateHead``). One forward
pass gives the scores of all candidates.

Ranking by likelihood scores a candidate by the log-probability of its description as the answer, less that without the dialogue:
their pointwise mutual information. It needs no training and no order of the candidates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from inspect import signature
from itertools import permutations
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn
from torch.backends import mkldnn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.cache_utils import Cache

from llmcrs_utils.checkpoints.checks import checkpoint_folder, read_json
from llmcrs_utils.checkpoints.loading import FlatLinear, flat_linear
from llmcrs_utils.text.prompts import LETTERS
from llmcrs_utils.training.collators import NO_CHOICE, left_padded, pad, right_padded
from llmcrs_utils.training.token_batches import grouped

TOKENS_AT_ONCE = 8192  # of descriptions that are computed together, each with the prompt, which is copied in the cache
PIECE = 4096  # tokens of the vocabulary whose logits are computed together on a CPU: they stay in its cache
ANY_PLACE = torch.zeros(1, dtype=torch.long)  # any place of a batch: a head needs at least one
PartOfLogits = Callable[[torch.Tensor, slice], torch.Tensor]  # states, a part of the vocabulary -> the part's logits in float32
HEAD = "candidate_head"  # name of the head in a model, and so of its weight in files
WEIGHT = f"{HEAD}.weight"


class CandidateHead(nn.Module):
    """The score of a state, [..., size] -> [...]: the product with one vector, which is zero before training."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):  # bfloat16 would round the scores of two candidates to one number
            return states.float() @ self.weight.float()


def add_candidate_head(model: PreTrainedModel, model_name_or_path: str | Path) -> None:
    """Give the model a head for candidates: that of its checkpoint folder, if it was merged with one, else a new one."""
    head = CandidateHead(model.get_input_embeddings().embedding_dim)
    saved = saved_head(checkpoint_folder(model_name_or_path))
    if saved is not None:
        head.weight.data = saved.float()
    model.add_module(HEAD, head.to(model.device))


def saved_head(folder: Path | None) -> torch.Tensor | None:
    """The vector in the weight files of a checkpoint folder; ``None`` if they hold none."""
    if folder is None:
        return None
    index = read_json(folder / "model.safetensors.index.json") if (folder / "model.safetensors.index.json").is_file() else {}
    file = folder / index.get("weight_map", {}).get(WEIGHT, "model.safetensors")
    if not file.is_file():
        return None
    with safe_open(file, "pt") as weights:
        return weights.get_tensor(WEIGHT) if WEIGHT in weights.keys() else None


@contextmanager
def head_at(model: PreTrainedModel, rows: torch.Tensor = ANY_PLACE, columns: torch.Tensor = ANY_PLACE) -> Iterator[list[torch.Tensor]]:
    """Within the block the model computes logits only at these places of the batch: [1, places, vocabulary]. By default at one, for who needs states only.

    Logits of all places would need more memory than the rest of the model, as vocabularies have 150,000 tokens and more. The
    head's input is selected, so whatever a model does to its logits is kept.

    Yields:
        A list. After a forward pass it holds the states of all places, [batch, length, size].
    """
    states: list[torch.Tensor] = []

    def select(_, inputs):
        states.append(inputs[0])
        return (inputs[0][rows, columns][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield states
    finally:
        hook.remove()


def candidate_scores(model: PreTrainedModel, states: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Scores [ranked rows, candidates] in float32.

    Args:
        states: [batch, length, size].
        rows: [ranked rows] rows of the batch.
        places: [ranked rows, candidates] columns of the batch.
    """
    return getattr(without_adapter(model), HEAD)(states[rows[:, None], places])


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, without PEFT's wrapper if it has one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def rank_by_candidates(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[dict]) -> torch.Tensor:
    """Log-probabilities of the candidates, [examples, candidates], from one forward pass."""
    batch = left_padded([example["prompt"] for example in examples], tokenizer.pad_token_id)
    length = batch["input_ids"].shape[1]
    places = torch.tensor([[length - len(example["prompt"]) + place for place in example["candidates"]] for example in examples])
    batch = {name: tensor.to(model.device) for name, tensor in with_positions(model, batch).items()}
    rows = torch.arange(len(examples))
    with head_at(model) as states:
        model(**batch, use_cache=False)
    return candidate_scores(model, states[0], rows.to(model.device), places.to(model.device)).log_softmax(dim=1)


def rank_by_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[dict], unsaid: dict[tuple[int, ...], dict[tuple[int, ...], float]]
) -> torch.Tensor:
    """Log-probabilities of the candidates, [examples, candidates], by how much more likely the dialogue makes their descriptions.

    Args:
        unsaid: prompt without dialogue -> description -> its log-probability there. What is missing is computed and kept, because
            most samples share both.
    """
    rows, bare = [], without_adapter(model)
    with exact_head(bare) as part_of_logits:
        if part_of_logits and not tells_logits(bare, part_of_logits, examples[0]["prompt"]):
            part_of_logits = None
        for example in examples:
            descriptions = [tuple(description) for description in example["descriptions"]]
            before = unsaid.setdefault(tuple(example["background"]), {})
            before |= log_probabilities(model, tokenizer, example["background"], [one for one in descriptions if one not in before], part_of_logits)
            said = log_probabilities(model, tokenizer, example["prompt"], descriptions, part_of_logits)
            rows.append([said[one] - before[one] for one in descriptions])
    return torch.tensor(rows).log_softmax(dim=1)


def log_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: list[int], answers: list[tuple[int, ...]], part_of_logits: PartOfLogits | None
) -> dict[tuple[int, ...], float]:
    """Answer -> the log-probability of all its tokens after the prompt, which the model reads once.

    Args:
        part_of_logits: what ``exact_head`` yields; ``None`` if the model changes what its head computes.
    """
    different = sorted(set(answers), key=lambda answer: (-len(answer), answer))
    if not different:
        return {}
    bare = without_adapter(model)
    start = torch.tensor([prompt], device=model.device)
    read = bare(input_ids=start, attention_mask=torch.ones_like(start), logits_to_keep=1, use_cache=True)
    first = read.logits[0, -1].float().log_softmax(dim=0)
    found = {}
    for begin, end in grouped([len(prompt) + len(answer) for answer in different], tokens=TOKENS_AT_ONCE):
        part = different[begin:end]
        sums = first[[answer[0] for answer in part]]
        if len(part[0]) > 1:
            sums += of_further_tokens(bare, start, read.past_key_values, part, tokenizer.pad_token_id, part_of_logits)
        found |= zip(part, sums.tolist(), strict=True)
    return found


def of_further_tokens(
    model: PreTrainedModel, start: torch.Tensor, cache: Cache, answers: list[tuple[int, ...]], pad_token_id: int, part_of_logits: PartOfLogits | None
) -> torch.Tensor:
    """Log-probability of each answer's tokens after its first one, [answers].

    Args:
        start: [1, length] the prompt.
        cache: what the model has read of it; stays as it is.
        part_of_logits: as for ``log_probabilities``.
    """
    written = right_padded([list(answer[:-1]) for answer in answers], pad_token_id)
    whole, mask = (
        torch.cat([before.expand(len(answers), -1), written[name].to(model.device)], dim=1)
        for name, before in {"input_ids": start, "attention_mask": torch.ones_like(start)}.items()
    )
    cache = deepcopy(cache)
    cache.reorder_cache(torch.zeros(len(answers), dtype=torch.long, device=model.device))  # the only row, once for each answer
    new = written["input_ids"].shape[1]
    inputs = model.prepare_inputs_for_generation(whole, next_sequence_length=new, past_key_values=cache, attention_mask=mask, use_cache=True)
    targets = pad([list(answer[1:]) for answer in answers], NO_CHOICE).to(model.device)
    rows, columns = (targets != NO_CHOICE).nonzero(as_tuple=True)
    if part_of_logits:
        with head_at(model) as states:
            model(**inputs)
        log_p = target_log_probabilities(part_of_logits, states[0][rows, columns], targets[rows, columns])
    else:
        with head_at(model, rows, columns):
            log_p = -cross_entropy(model(**inputs).logits[0].float(), targets[rows, columns], reduction="none")
    return torch.zeros(len(answers), device=model.device).index_add(0, rows, log_p)


def tells_logits(model: PreTrainedModel, part_of_logits: PartOfLogits, prompt: list[int]) -> bool:
    """Whether the head's logits are the model's. Some models change them further, for example cap them."""
    start = torch.tensor([prompt], device=model.device)
    with head_at(model, ANY_PLACE, torch.tensor([-1])) as states:
        logits = model(input_ids=start, attention_mask=torch.ones_like(start), use_cache=False).logits[0, -1].float()
    every = slice(None, None, max(1, len(logits) // PIECE))  # a sample of the whole vocabulary
    return torch.allclose(part_of_logits(states[0][0, -1:], every)[0], logits[every], rtol=1e-3, atol=1e-3)


def target_log_probabilities(part_of_logits: PartOfLogits, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, [places], after its state, [places, size], from the logits of one piece of the vocabulary at a time.

    With 262,144 tokens and 450 places all logits are half a gigabyte, which a CPU would write and read several times (docs/performance.md); elsewhere
    one piece is all.
    """
    piece = PIECE if states.device.type == "cpu" else 1 << 30
    of_targets, largest, sums, begin = torch.zeros(len(targets), device=states.device), [], [], 0
    while (logits := part_of_logits(states, slice(begin, begin + piece))).shape[1]:
        inside = (targets >= begin) & (targets < begin + piece)
        of_targets[inside] = logits[inside, targets[inside] - begin]
        largest.append(logits.amax(dim=1))
        sums.append(logits.sub_(largest[-1][:, None]).exp_().sum(dim=1))
        begin += piece
    return of_targets - (torch.stack(largest) + torch.stack(sums).log()).logsumexp(dim=0)


def letter_tokens(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The tokens of each letter A-T, as in an answer in training: one token, or several (a blank, then the letter).

    Raises:
        ValueError: if two letters have the same tokens, or the tokens of one begin those of another.
    """
    letters = tokenizer(list(LETTERS), add_special_tokens=False)["input_ids"]
    if any(one == other[: len(one)] for one, other in permutations(letters, 2)):
        raise ValueError("this tokenizer does not tell the letters A-T apart; use one that knows capital letters")
    return letters


def rank_by_letters(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[dict], letters: list[list[int]]
) -> torch.Tensor:
    """Log-probabilities of the candidates, [examples, 20]: of their letters (of all tokens of a letter together) among the 20.

    One forward pass is needed for each common beginning after which letters differ. If every letter is one token, that is
    after the prompt. If every letter is a blank and one token, it is after prompt and blank. If some are one token and some two,
    it is after both.

    Args:
        letters: ``letter_tokens`` of the tokenizer.
    """
    starts = {tuple(letter[:n]) for letter in letters for n in range(len(letter))}
    scores = torch.zeros(len(examples), len(letters), device=model.device)
    for start in sorted(starts):
        following = [(place, letter[len(start)]) for place, letter in enumerate(letters) if tuple(letter[: len(start)]) == start]
        shared = len(following) == len(letters) and len({token for _, token in following}) == 1
        if not shared:  # a token that all letters share does not change their order
            batch = left_padded([[*example["prompt"], *start] for example in examples], tokenizer.pad_token_id)
            batch = {name: tensor.to(model.device) for name, tensor in with_positions(model, batch).items()}
            with exact_head(model):
                logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float().log_softmax(dim=1)
            places, tokens = zip(*following, strict=True)
            scores[:, list(places)] += logits[:, list(tokens)]
    return scores.log_softmax(dim=1)


def with_positions(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The left-padded batch with ``position_ids``, each token's place in its own row, if the model takes them.

    Without them GPT-2 would count the padding too, so a row's answer would depend on the other rows. (``generate`` passes
    positions itself.) ChatGLM computes positions from the ids.
    """
    if "position_ids" not in signature(without_adapter(model).forward).parameters:
        return batch
    return {**batch, "position_ids": (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)}


@contextmanager
def exact_head(model: PreTrainedModel) -> Iterator[PartOfLogits | None]:
    """Compute logits in float32 within the block, because bfloat16 may round the logits of two letters to one number.

    If the head is not a plain linear layer (for example, with LoRA on it), logits do not change. A block within a block changes nothing more.

    Yields:
        What computes the head's logits of a part of the vocabulary; ``None`` where logits do not change.
    """
    head = model.get_output_embeddings()
    if isinstance(head, ModulesToSaveWrapper):
        head = head.modules_to_save[head.active_adapters[0]]
    if type(head) not in (nn.Linear, FlatLinear) or "forward" in vars(head):
        yield None
        return
    weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()

    def in_float32(states: torch.Tensor, part: slice = slice(None)) -> torch.Tensor:
        # oneDNN may round the factors to bfloat16 where they are bfloat16 already: the same sums, in two thirds of the time on a CPU with AMX.
        rounded = states.dtype == head.weight.dtype == torch.bfloat16
        usual, mkldnn.matmul.fp32_precision = mkldnn.matmul.fp32_precision, "bf16" if rounded else "ieee"
        try:
            with torch.autocast(states.device.type, enabled=False):
                return flat_linear(states.float(), weight[part], None if bias is None else bias[part])
        finally:
            mkldnn.matmul.fp32_precision = usual

    head.forward = in_float32
    try:
        yield in_float32
    finally:
        del head.forward
