"""What the benchmarks share: a generated world's samples as each architecture reads them, LoRA, ways timed in turn."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pandas as pd
import torch
import yaml
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from llmcrs_utils.checkpoints.loading import SEGMENT_TOKENS, device
from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.llm import tuning
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.small.models import pretraining_texts, prompt_texts, train_tokenizer
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.collators import pad
from llmcrs_utils.world import generate

CRS_CUTOFF_LEN, LLM_CUTOFF_LEN, MAX_NEW_TOKENS = 512, 1024, 64  # the demo's
LLM_SECTIONS = {"llama": "allm", "chatglm": "cllm"}  # of a profile
LORA_OPTIONS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "modules_to_save")


@cache
def corpus():
    return generate({"train": 100, "valid": 0, "test": 0}, sellers_per_category=2, items_per_seller=30)[0]


@cache
def dataset() -> Dataset:
    """Samples of a world like the demo's, every dialogue in training."""
    catalogue = build_catalogue(corpus(), CHINESE)
    return Dataset(build_samples(corpus(), catalogue, CHINESE), catalogue.items)


def sample_mix(per_task: int) -> pd.DataFrame:
    """As many samples of each task, drawn at random, numbered from 0."""
    return dataset().samples.groupby("task").sample(per_task, random_state=1).reset_index(drop=True)


@cache
def tokenizer_of(architecture: str) -> PreTrainedTokenizerBase:
    texts = pretraining_texts(corpus().dialogues["train"], dataset().items["facts"].tolist(), CHINESE)
    tokenizer = train_tokenizer(texts + prompt_texts(CHINESE), architecture, 3000)
    if architecture in ("bart", "cpt"):
        tokenizer.add_special_tokens({"additional_special_tokens": SEGMENT_TOKENS})
    return tokenizer


def crs_examples(samples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[dict]:
    return encode_samples(samples, tokenizer, CHINESE, dataset().index, CRS_CUTOFF_LEN, MAX_NEW_TOKENS)[0]


def llm_examples(samples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, architecture: str) -> list[dict]:
    """``prompt`` and ``answer`` (token ids) of each sample."""
    template = "plain" if architecture == "llama" else "bare"
    instructions = build_instructions(samples, dataset().facts, CHINESE)
    return encode_instructions(instructions, tokenizer, CHINESE, template, LLM_CUTOFF_LEN, MAX_NEW_TOKENS)[0]


def paper_lora(architecture: str) -> dict:
    """LoRA's settings of ``params/paper.yaml`` for this LLM, as ``new_lora`` takes them."""
    profile = yaml.safe_load((Path(__file__).parents[1] / "params/paper.yaml").read_text(encoding="utf-8"))
    section = profile["04_tune_llm"] | profile[LLM_SECTIONS[architecture]]
    return {name: section[name] for name in LORA_OPTIONS}


def new_lora_on(model: PreTrainedModel, checkpointing: bool, **lora) -> PeftModel:
    """``tuning.new_lora`` on a model at hand, not one it loads; what is trained is in float32, as the optimiser needs it."""
    load, tuning.load_causal = tuning.load_causal, lambda *_, **__: model
    try:
        bits = next((bits for bits in (4, 8) if getattr(model, f"is_loaded_in_{bits}bit", False)), 0)
        tuned = tuning.new_lora("", quantization_bit=bits, gradient_checkpointing=checkpointing, seed=1, **lora)
    finally:
        tuning.load_causal = load
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned.to(device())


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def bfloat16(on: bool):
    """The Trainer's way to compute in bfloat16, or nothing."""
    return torch.autocast(device().type, torch.bfloat16) if on else nullcontext()


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict, in_bfloat16: bool = False) -> None:
    with bfloat16(in_bfloat16):
        loss = model(**batch)["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


class EndsThere(StoppingCriteria):
    """Ends row i after ``lengths[i]`` written tokens; ``columns`` stood there before."""

    def __init__(self, lengths: list[int], columns: int):
        self.lengths, self.columns = torch.tensor(lengths, device=device()), columns

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids.shape[1] - self.columns >= self.lengths


def end_as_true_answers(model: PreTrainedModel, inputs: list[list[int]], lengths: list[int]) -> None:
    """From now on what ``model.generate`` writes to an input ends where the input's true answer does.

    Random weights would go on to the limit, all rows of a batch alike, and flatter batches: with real answers a batch waits
    for its longest.
    """
    length_of = dict(zip(map(tuple, inputs), lengths, strict=True))
    generate = model.generate

    def shortened(*, input_ids, attention_mask, **options):
        rows = [tuple(row[real.bool()].tolist()) for row, real in zip(input_ids, attention_mask, strict=True)]
        columns = 1 if model.config.is_encoder_decoder else input_ids.shape[1]
        criteria = StoppingCriteriaList([EndsThere([length_of[row] for row in rows], columns)])
        return generate(input_ids=input_ids, attention_mask=attention_mask, stopping_criteria=criteria, **options)

    model.generate = shortened


def rates(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Samples/s of each way, once per repeat; a way returns how many samples it has done. Seconds of this process alone."""
    found = {name: [] for name in ways}
    for _ in range(repeats):  # in turn, so that a busy moment of the machine meets all
        for name, way in ways.items():
            start = time.process_time()
            done = way()
            found[name].append(done / (time.process_time() - start))
    return found


def ratio(fast: list[float], slow: list[float]) -> str:
    """``median (smallest to largest)`` of what the repeats say."""
    each = [one / other for one, other in zip(fast, slow, strict=True)]
    return f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"


def full_rows(tokenizer: PreTrainedTokenizerBase, count: int, length: int) -> dict[str, torch.Tensor]:
    """A training batch without padding: random tokens, the last eighth of each row an answer, which alone has labels."""
    # Below 400 are the special tokens and the fixed pieces.
    ids = torch.randint(400, len(tokenizer), (count, length), generator=torch.Generator().manual_seed(1)).tolist()
    written = length // 8
    for row in ids:
        if hasattr(tokenizer, "gmask_token_id"):
            row[-written - 2 : -written] = [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    batch = {"input_ids": pad(ids, 0), "labels": pad([[-100] * (length - written) + row[-written:] for row in ids], -100)}
    return {name: tensor.to(device()) for name, tensor in batch.items()} | {
        "attention_mask": torch.ones(count, length, dtype=torch.long, device=device())
    }

