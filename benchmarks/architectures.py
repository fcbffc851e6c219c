"""Training and decoding samples/s of all four architectures: padding and batching as the project does it, against doing without.

    .venv/bin/python benchmarks/architectures.py                 # about 10 minutes of one core
    .venv/bin/python benchmarks/architectures.py --size quick    # that it runs, in seconds

UniMIND(BART) and UniMIND(CPT) are trained on all tasks, LLaMA and ChatGLM by LoRA on the instructions: samples of like length
share a batch, which is padded to its own longest row, against the same batches with every row padded to 512. The four tasks are
answered by the project's own ``predict``, in batches and one at a time. One thread, ways in turn, medians over the repeats;
seconds are the processor's, so that other work on the machine counts little.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass

import material
import torch
from torch.nn import functional as F
from transformers import set_seed
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.crs import predict as crs_predict
from llmcrs_utils.crs.unimind import new_unimind
from llmcrs_utils.llm import predict as llm_predict
from llmcrs_utils.llm.tuning import new_lora
from llmcrs_utils.small.models import new_backbone, save_backbone
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.collators import causal_collator, unimind_collator, with_labels

STUDIED = ("bart", "cpt", "llama", "chatglm")
PADDED_TO, REPEATS = 512, 3
# LoRA of the profile "grid".
LORA = {
    "llama": {
        "lora_target": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "modules_to_save": ["embed_tokens", "lm_head"],
    },
    "chatglm": {"lora_target": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], "modules_to_save": []},
}


@dataclass(frozen=True)
class Size:
    """A model's width and layers, and how much of the work is measured."""

    name: str
    hidden_size: int
    layers: int
    heads: int
    batch_size: int  # of training
    batches: int  # to train on
    per_task: int  # samples to answer
    decoded_together: tuple[int, ...]


SIZES = (
    Size("demo", hidden_size=128, layers=2, heads=4, batch_size=16, batches=6, per_task=64, decoded_together=(16, 64)),
    Size("larger", hidden_size=384, layers=4, heads=6, batch_size=2, batches=6, per_task=16, decoded_together=(16,)),
    Size("quick", hidden_size=32, layers=1, heads=2, batch_size=2, batches=2, per_task=2, decoded_together=(2,)),
)
ALONE = 4  # every fourth sample is also answered alone


def prepare(architecture: str, size: Size, samples):
    """The model with random weights, as the notebooks make it of a checkpoint, and the samples as it reads them."""
    tokenizer = material.tokenizer_of(architecture)
    crs = architecture in ("bart", "cpt")
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"hidden_size": size.hidden_size, "layers": size.layers, "heads": size.heads, "max_positions": 2048}
        save_backbone(new_backbone(architecture, tokenizer, **sizes, seed=1), tokenizer, folder)
        if crs:
            vectors = torch.full((len(material.dataset().items), 300), torch.nan)
            model = new_unimind(folder, len(tokenizer), vectors, 50, False, seed=1)
        else:
            model = new_lora(
                folder, quantization_bit=0, lora_rank=16, lora_alpha=32, lora_dropout=0.0, gradient_checkpointing=False, seed=1,
                **LORA[architecture],
            )  # fmt: skip
    encode = material.crs_examples if crs else lambda part, tokenizer: material.llm_examples(part, tokenizer, architecture)
    return model, tokenizer, encode(samples, tokenizer), crs


def widen(part: dict, pad_token_id: int, causal: bool) -> dict:
    """The same rows, padded to ``PADDED_TO`` (a longer batch stays as it is); a causal LM's labels stand beside its inputs."""
    missing = max(0, PADDED_TO - part["input_ids"].shape[1])
    fillers = {"input_ids": pad_token_id, "attention_mask": 0} | ({"labels": -100} if causal else {})
    return part | {name: F.pad(part[name], (0, missing), value=filler) for name, filler in fillers.items()}


def training(architecture: str, size: Size) -> dict:
    samples = material.dataset().samples
    model, tokenizer, examples, crs = prepare(architecture, size, samples)
    if crs:
        collate = unimind_collator(tokenizer.pad_token_id, model.config.n_items)
    else:
        examples, collate = with_labels(examples), causal_collator(tokenizer.pad_token_id)
    every = [len(example["input_ids"]) for example in examples]
    # The Trainer's own grouping, over a whole epoch: of few samples it would group none.
    order = get_length_grouped_indices(every, size.batch_size, generator=torch.Generator().manual_seed(1))
    batches = [[examples[i] for i in order[start : start + size.batch_size]] for start in range(0, len(order), size.batch_size)]
    # Of an epoch's batches a few, evenly by length: the shortest and the longest are as rare among them as in the epoch.
    batches.sort(key=lambda batch: max(len(example["input_ids"]) for example in batch))
    batches = [batches[int((i + 0.5) * len(batches) / size.batches)] for i in range(size.batches)]
    lengths = [len(example["input_ids"]) for batch in batches for example in batch]
    optimizer = torch.optim.AdamW(material.trained(model.train()), lr=1e-4)

    def wide(chosen: list[dict]) -> dict:
        batch = collate(chosen)
        if crs:
            return {name: widen(part, tokenizer.pad_token_id, causal=False) for name, part in batch.items()}
        return widen(batch, tokenizer.pad_token_id, causal=True)

    def one_pass(collated) -> int:
        for chosen in batches:
            material.train_step(model, optimizer, collated(chosen))
        return len(lengths)

    material.train_step(model, optimizer, collate(batches[0]))  # warm-up
    found = material.rates({"grouped": lambda: one_pass(collate), "512": lambda: one_pass(wide)}, REPEATS)
    return {
        "million parameters": f"{model.num_parameters() / 1e6:.1f}",
        "tokens": f"{statistics.mean(lengths):.0f} (up to {max(lengths)})",
        "own longest": f"{statistics.median(found['grouped']):.1f}",
        "to 512": f"{statistics.median(found['512']):.1f}",
        "ratio": material.ratio(found["grouped"], found["512"]),
    }


def decoding(architecture: str, size: Size) -> list[dict]:
    samples = material.sample_mix(size.per_task)
    model, tokenizer, examples, crs = prepare(architecture, size, samples)
    if crs:
        text = [example for example in examples if "labels" in example]
        writer, inputs, lengths = model.backbone, [e["input_ids"] for e in text], [len(e["labels"]) for e in text]
    else:
        writer, inputs, lengths = model, [e["prompt"] for e in examples], [len(e["answer"]) for e in examples]
    material.end_as_true_answers(writer, inputs, lengths)
    answers = {}

    def answer(batch_size: int, chosen: list[int]) -> int:
        part, asked = samples.iloc[chosen].reset_index(drop=True), [examples[i] for i in chosen]
        if crs:
            found = crs_predict.predict(
                model, tokenizer, part, asked, material.dataset().index, CHINESE, num_beams=1, batch_size=batch_size,
                max_target_len=material.MAX_NEW_TOKENS,
            )  # fmt: skip
        else:
            found = llm_predict.predict(
                model, tokenizer, part, asked, CHINESE, max_new_tokens=material.MAX_NEW_TOKENS, batch_size=batch_size
            )
        said = zip(found["raw"], found["ranking"].map(tuple), strict=True)
        answers[batch_size] = dict(zip(chosen, said, strict=True))
        return len(chosen)

    every = list(range(len(samples)))
    ways = {str(batch): lambda batch=batch: answer(batch, every) for batch in size.decoded_together}
    ways["1"] = lambda: answer(1, every[::ALONE])
    answer(size.decoded_together[0], every[:: len(every) // 4])  # warm-up
    found = material.rates(ways, REPEATS)
    return [
        {
            "together": batch,
            "in batches": f"{statistics.median(found[str(batch)]):.1f}",
            "alone": f"{statistics.median(found['1']):.1f}",
            "ratio": material.ratio(found[str(batch)], found["1"]),
            "equal answers": f"{sum(answers[batch][i] == said for i, said in answers[1].items())} of {len(answers[1])}",
        }
        for batch in size.decoded_together
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[size.name for size in SIZES], nargs="+", default=["demo", "larger"])
    chosen = parser.parse_args(arguments).size
    torch.set_num_threads(1)
    set_seed(1)
    disable_progress_bar()
    for title, measure in (("training, samples/s", training), ("decoding, samples/s", decoding)):
        print(f"\n{title}", flush=True)
        header = False
        for size in (size for size in SIZES if size.name in chosen):
            for architecture in STUDIED:
                found = measure(architecture, size)
                for row in found if isinstance(found, list) else [found]:
                    row = {"size": size.name, "architecture": architecture, **row}
                    if not header:
                        print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
                        header = True
                    print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
