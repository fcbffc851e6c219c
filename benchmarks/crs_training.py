"""CRS training samples/s: each batch padded to its own longest input, against every input padded to 512 tokens."""

import statistics
import time

import torch
from torch.nn import functional as F
from transformers import set_seed
from transformers.trainer_pt_utils import get_length_grouped_indices

from llmcrs_utils.backbones.loading import SEGMENT_TOKENS
from llmcrs_utils.backbones.small import new_backbone, pretraining_texts, prompt_texts, train_tokenizer
from llmcrs_utils.corpus.world import generate
from llmcrs_utils.crs.batches import encode_samples, make_collator
from llmcrs_utils.crs.unimind import UniMind, UniMindConfig
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.prompts import CHINESE
from llmcrs_utils.tasks.samples import build_samples

CUTOFF_LEN, MAX_TARGET_LEN, BATCH_SIZE, SAMPLES, REPEATS = 512, 64, 16, 192, 5
EXPECTED = 3


def prepare():
    """The demo's model with random weights, batches of training samples of like length, and the collator."""
    corpus = generate({"train": 40, "valid": 0, "test": 0}, sellers_per_category=2, items_per_seller=30)[0]
    catalogue = build_catalogue(corpus, CHINESE)
    dataset = Dataset(build_samples(corpus, catalogue, CHINESE), catalogue.items)
    texts = pretraining_texts(corpus.dialogues["train"], dataset.items["facts"].tolist(), CHINESE)
    tokenizer = train_tokenizer(texts + prompt_texts(CHINESE), "bart", 3000)
    tokenizer.add_special_tokens({"additional_special_tokens": SEGMENT_TOKENS})
    backbone = new_backbone("bart", tokenizer, hidden_size=128, layers=2, heads=4, max_positions=2048, seed=1)
    model = UniMind(
        UniMindConfig(
            backbone=backbone.config.to_dict(), n_items=len(dataset.items), generation=backbone.generation_config.to_dict()
        )
    )
    samples = dataset.samples.sample(SAMPLES, random_state=1)
    examples, _ = encode_samples(samples, tokenizer, CHINESE, dataset.index, CUTOFF_LEN, MAX_TARGET_LEN)
    lengths = [len(example["input_ids"]) for example in examples]
    order = get_length_grouped_indices(lengths, BATCH_SIZE)
    batches = [[examples[i] for i in order[start : start + BATCH_SIZE]] for start in range(0, SAMPLES, BATCH_SIZE)]
    size = f"{model.num_parameters() / 1e6:.1f} million parameters"
    print(f"{SAMPLES} samples, {size}, {statistics.mean(lengths):.0f} tokens on average")
    return model, batches, make_collator(tokenizer.pad_token_id, len(dataset.items)), tokenizer.pad_token_id


def widen(batch: dict, pad_token_id: int) -> dict:
    """The same batch with every input padded to ``CUTOFF_LEN``."""
    for part in batch.values():
        missing = CUTOFF_LEN - part["input_ids"].shape[1]
        part["input_ids"] = F.pad(part["input_ids"], (0, missing), value=pad_token_id)
        part["attention_mask"] = F.pad(part["attention_mask"], (0, missing), value=0)
    return batch


def train_once(model, optimizer, batches, collate) -> float:
    """Seconds for one pass."""
    start = time.perf_counter()
    for examples in batches:
        optimizer.zero_grad()
        model(**collate(examples))["loss"].backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    set_seed(1)
    model, batches, collate, pad_token_id = prepare()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)
    ways = {"dynamic padding": collate, "padding to 512": lambda examples: widen(collate(examples), pad_token_id)}
    train_once(model, optimizer, batches[:2], collate)  # warm-up
    seconds = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets both
        for name, way in ways.items():
            seconds[name].append(train_once(model, optimizer, batches, way))
    for name, taken in seconds.items():
        print(f"{name:18}{SAMPLES / statistics.median(taken):8.1f} samples/s")
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"{'ratio':18}{statistics.median(ratios):8.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}), expected: at least {EXPECTED}")


if __name__ == "__main__":
    main()
