"""LLM decoding samples/s: in batches of like length, against one sample at a time."""

import statistics
import tempfile
import time

import pandas as pd
import torch

from llmcrs_utils.backbones.small import new_backbone, pretraining_texts, prompt_texts, train_tokenizer
from llmcrs_utils.corpus.world import generate
from llmcrs_utils.llm.batches import encode_instructions, make_collator, with_labels
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.instructions import build_instructions
from llmcrs_utils.tasks.prompts import CHINESE
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.training import train

CUTOFF_LEN, MAX_NEW_TOKENS, BATCH_SIZE, SAMPLES, REPEATS = 1024, 64, 64, 96, 3
EXPECTED = 5


def prepare():
    """The demo's LLaMA, trained just enough to end its answers as real ones end, and unseen samples of the text tasks."""
    corpus = generate({"train": 40, "valid": 0, "test": 30}, sellers_per_category=2, items_per_seller=30)[0]
    catalogue = build_catalogue(corpus, CHINESE)
    facts = dict(zip(catalogue.items["item_id"], catalogue.items["facts"], strict=True))
    samples = build_samples(corpus, catalogue, CHINESE)
    samples = samples[samples["task"] != "recommend"]  # an item is ranked by one forward pass, not decoded
    texts = pretraining_texts(corpus.dialogues["train"], list(facts.values()), CHINESE)
    tokenizer = train_tokenizer(texts + prompt_texts(CHINESE), "llama", 3000)
    model = new_backbone("llama", tokenizer, hidden_size=128, layers=2, heads=4, max_positions=2048, seed=1)

    def encode(part: pd.DataFrame) -> list[dict]:
        instructions = build_instructions(part, facts, CHINESE)
        return encode_instructions(instructions, tokenizer, CHINESE, "plain", CUTOFF_LEN, MAX_NEW_TOKENS)[0]

    learnt = with_labels(encode(samples[samples["split"] == "train"]))
    asked = samples[samples["split"] == "test"].sample(SAMPLES, random_state=1).reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        train(
            model, learnt, learnt[:16], make_collator(tokenizer.pad_token_id), output_dir=folder, settings={}, num_train_epochs=8,
            learning_rate=0.002, per_device_train_batch_size=8, label_names=["labels"], seed=1,
        )  # fmt: skip
    return model, tokenizer, asked, encode(asked)


def main() -> None:
    torch.set_num_threads(1)
    model, tokenizer, samples, examples = prepare()

    def decode(batch_size: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        answers = predict(model, tokenizer, samples, examples, CHINESE, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size)
        return time.perf_counter() - start, answers["raw"].tolist()

    ways = {f"batches of {BATCH_SIZE}": BATCH_SIZE, "one at a time": 1}
    seconds, answers = {name: [] for name in ways}, {}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets both
        for name, batch_size in ways.items():
            taken, answers[name] = decode(batch_size)
            seconds[name].append(taken)
    together, alone = answers.values()
    lengths = [len(row) for row in tokenizer(alone, add_special_tokens=False)["input_ids"]]
    prompts = [len(example["prompt"]) for example in examples]
    print(
        f"{SAMPLES} samples, {model.num_parameters() / 1e6:.1f} million parameters; "
        f"prompts of {statistics.mean(prompts):.0f} tokens on average, answers of {statistics.mean(lengths):.0f}; "
        f"{sum(a == b for a, b in zip(together, alone, strict=True))} answers equal"
    )
    for name, taken in seconds.items():
        print(f"{name:18}{SAMPLES / statistics.median(taken):8.1f} samples/s")
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"{'ratio':18}{statistics.median(ratios):8.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}), expected: at least {EXPECTED}")


if __name__ == "__main__":
    main()
