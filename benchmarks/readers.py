"""A real LLM's tuning and decoding: the project's way against float32 with all logits, and in batches against one at a time.

    make weights MODEL=qwen
    .venv/bin/python benchmarks/readers.py --model runs/weights/qwen

Both ways of tuning get the same samples, those of the four tasks, in the same updates of 16, and start from the same weights.
``plain``: float32, logits of every token, four samples of similar length a batch. ``ours``: the dtype that the device computes in,
logits of answers only, batches by tokens. ``compiled``: the same with layers whose operations are fused. Each way has a process of its own, so that its peak
memory is its own. Tokens are those of the samples, padding not counted. The first update, in which most code is compiled, is not timed.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time

import material
import torch
from transformers import TrainingArguments
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.checkpoints.loading import compute_dtype, load_tokenizer
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.tuning import AnswerTrainer, compile_layers, new_lora
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.collators import causal_collator, with_labels
from llmcrs_utils.training.token_batches import ROUNDED_TO, grouped
from llmcrs_utils.training.trainer import ListDataset

UPDATE, ROWS, TOKENS, LONGEST = 16, 4, 2048, 64  # samples of an update, of a plain batch; tokens of a batch; tokens of an answer
LORA = {
    "quantization_bit": 0, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target": ["all-linear"], "modules_to_save": [],
    "gradient_checkpointing": False, "seed": 1,
}  # fmt: skip


def encoded(model: str, samples):
    tokenizer = load_tokenizer(model)
    template = "chat" if tokenizer.chat_template else "plain"
    instructions = build_instructions(samples, material.dataset().facts, CHINESE)
    return tokenizer, encode_instructions(instructions, tokenizer, CHINESE, template, 2048, LONGEST)[0]


def tuned(model: str, way: str, per_task: int) -> dict:
    """Tokens/s, peak memory and the loss of each update."""
    tokenizer, examples = encoded(model, material.sample_mix(per_task))
    examples = with_labels(examples)
    random.Random(1).shuffle(examples)
    ours = way in ("ours", "compiled")
    lora = new_lora(model, **LORA, dtype="auto" if ours else "float32").train()
    if way == "compiled":
        compile_layers(lora)
    in_bfloat16 = ours and compute_dtype("auto") == torch.bfloat16
    collate = causal_collator(tokenizer.pad_token_id, ROUNDED_TO if ours else 1)
    optimizer = torch.optim.AdamW(material.trained(lora), lr=3e-4)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, use_cpu=not torch.cuda.is_available(), report_to="none")
        trainer = AnswerTrainer(model=lora, args=arguments, data_collator=collate, train_dataset=ListDataset([]))
    losses, tokens, start = [], 0, 0.0
    for first in range(0, len(examples), UPDATE):
        part = sorted(examples[first : first + UPDATE], key=lambda example: -len(example["input_ids"]))
        lengths = [len(example["input_ids"]) for example in part]
        batches = [collate(part[a:b]) for a, b in grouped(lengths, tokens=TOKENS if ours else 0, most=0 if ours else ROWS)]
        batches = [{name: tensor.to(material.device()) for name, tensor in batch.items()} for batch in batches]
        answers = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            with material.bfloat16(in_bfloat16):
                if ours:
                    loss = trainer.compute_loss(lora, batch, num_items_in_batch=torch.tensor([answers, 0, 0], device=material.device()))  # no descriptions, no rankings
                else:
                    loss = lora(**batch, num_items_in_batch=answers).loss
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(total, 4))
        tokens += sum(lengths) if first else 0
        start = start or time.monotonic()
    seconds = time.monotonic() - start
    return {"tokens_per_s": tokens / seconds, "peak_mib": peak(), "seconds": seconds, "losses": losses}


def answered(model: str, way: str, per_task: int) -> dict:
    """Samples/s of the four tasks; answers end where the true ones do."""
    samples = material.sample_mix(per_task)
    tokenizer, examples = encoded(model, samples)
    lora = new_lora(model, **LORA, dtype="auto").eval()
    material.end_as_true_answers(lora, [example["prompt"] for example in examples], [len(example["answer"]) for example in examples])
    sizes = {"batch_size": 1} if way == "alone" else {"batch_size": 64, "tokens_per_batch": 4 * TOKENS}
    start = time.monotonic()
    predict(lora, tokenizer, samples, examples, CHINESE, max_new_tokens=LONGEST, **sizes)
    seconds = time.monotonic() - start
    return {"samples_per_s": len(samples) / seconds, "seconds": seconds, "peak_mib": peak()}


def peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(chosen: argparse.Namespace, what: str, way: str) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--model", chosen.model, "--per-task", str(chosen.per_task), "--only", what, way]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    print(f"{what} {way}: {json.dumps(found)}", flush=True)
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a causal LM")
    parser.add_argument("--per-task", type=int, default=32, help="samples of each task (default: %(default)s)")
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "WAY"), help="one way alone: tuned plain|ours|compiled, answered batches|alone")
    chosen = parser.parse_args(arguments)
    if 4 * chosen.per_task <= UPDATE:
        parser.error(f"--per-task {chosen.per_task}: the first update of {UPDATE} samples is not timed; give {UPDATE // 4 + 1} or more")
    disable_progress_bar()
    if chosen.only:
        what, way = chosen.only
        print(json.dumps({"tuned": tuned, "answered": answered}[what](chosen.model, way, chosen.per_task)))
        return
    plain, ours, compiled = (apart(chosen, "tuned", way) for way in ("plain", "ours", "compiled"))
    batches, alone = (apart(chosen, "answered", way) for way in ("batches", "alone"))
    worst, fused = (max(abs(one - other) for one, other in zip(plain["losses"], way["losses"], strict=True)) for way in (ours, compiled))
    print(
        f"{chosen.model}, {torch.get_num_threads()} threads, {compute_dtype('auto')}: tuning {ours['tokens_per_s'] / plain['tokens_per_s']:.1f}x the "
        f"tokens/s with {ours['peak_mib'] / plain['peak_mib']:.2f} of the peak memory, losses of {len(ours['losses'])} updates within {worst:.3f}; "
        f"compiled {compiled['tokens_per_s'] / ours['tokens_per_s']:.1f}x that with {compiled['peak_mib'] / ours['peak_mib']:.2f} of that memory, losses within {fused:.3f} of plain's; "
        f"decoding in batches {batches['samples_per_s'] / alone['samples_per_s']:.1f}x one at a time"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
