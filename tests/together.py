"""What one of several processes does (run by test_processes.py): train a tiny model, answer, and let the first write both.

python together.py crs|llm FOLDER BATCH
"""

import json
import sys
from pathlib import Path

import test_training
import tiny
import torch

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.systems.predictions import label_run, write_predictions
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.trainer import train


def main(kind: str, folder: Path, batch: int) -> None:
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
