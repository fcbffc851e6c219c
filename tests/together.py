"""What one of several processes does (run by test_processes.py): train a tiny model, answer, and let the first write both.

python together.py crs|llm|candidates|likelihood FOLDER BATCH
"""

import json
import sys
from pathlib import Path

import test_training
import tiny
import torch
from test_llm import LORA

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.system import any_candidate
from llmcrs_utils.llm.tuning import new_lora, tune
from llmcrs_utils.systems.predictions import label_run, write_predictions
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.trainer import train


def rank(ranking: str, folder: Path, batch: int) -> None:
    """An LLM that ranks without letters, with batches by tokens, several batches an update, and a learning curve on the way."""
    tokenizer, samples = load_tokenizer(tiny.backbone("llama")), tiny.some_samples(6)
    rows = build_instructions(samples, tiny.dataset().facts, CHINESE, ranking=ranking)
    encoded = encode_instructions(rows, tokenizer, CHINESE, "plain", 1024, 12)[0]
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": ranking})
    options = {"max_new_tokens": 12, "batch_size": 4}
    curve = []

    def measure(count: int) -> None:
        answers = predict(model, tokenizer, samples.head(8), encoded[:8], CHINESE, **options)
        curve.append((count, answers["raw"].notna().all().item()))

    learned = [*encoded, *any_candidate(encoded, 1)]
    history = tune(
        model, learned, encoded, tokenizer, output_dir=folder / "model", num_train_epochs=3, learning_rate=0.005, per_device_train_batch_size=1,
        tokens_per_batch=2048, gradient_accumulation_steps=batch // 4, points=[0, 12, 30], measure=measure, seed=1,
    )  # fmt: skip
    write_atomically(folder / "history.json", json.dumps(history.to_dict("list")))
    write_atomically(folder / "curve.json", json.dumps(curve))
    answers = predict(model, tokenizer, samples, encoded, CHINESE, **options)
    write_predictions(label_run(answers, "allm", 1), folder / "answers.parquet")


def main(kind: str, folder: Path, batch: int) -> None:
    if kind in ("candidates", "likelihood"):
        return rank(kind, folder, batch)
    model, examples, collate, options = test_training.SETUPS[kind]()
    for module in model.modules():  # each process drops other units: what is compared must not be left to that
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    options |= {"group_by_length": False, "gradient_accumulation_steps": 1}
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    history = train(
        model, examples[:16], examples[:16], collate, output_dir=folder / "model", num_train_epochs=3, learning_rate=0.005,
        per_device_train_batch_size=batch, seed=1, tokenizer=tokenizer, **options,
    )  # fmt: skip
    write_atomically(folder / "history.json", json.dumps(history.to_dict("list")))
    if kind == "llm":
        samples = tiny.some_samples(3)
        rows = build_instructions(samples, tiny.dataset().facts, CHINESE)
        asked = encode_instructions(rows, tokenizer, CHINESE, "plain", 1024, 12)[0]
        answers = predict(model, tokenizer, samples, asked, CHINESE, max_new_tokens=12, batch_size=4)
        write_predictions(label_run(answers, "allm", 1), folder / "answers.parquet")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
