"""How well a pretrained LLM recommends from text alone, by each way of ranking, before and after tuning, beside matcher and ceiling.

    make weights MODEL=gemma
    .venv/bin/python benchmarks/rankings.py --model runs/weights/gemma --ranking likelihood --samples 0 800

The recommendations of a synthetic world alone are learned and asked. The last of ``--samples`` is the number that is learned (0: none, the
pretrained model as it is). Every number is measured on the same validation dialogues, the last one on the test dialogues too, where the
gain over the matcher has an interval. The same command goes on after a kill.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.evaluation.floors import matcher_predictions
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.statistics import paired_gains
from llmcrs_utils.llm import system as llm
from llmcrs_utils.study.run import conduct, run_of
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset, write_dataset
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE, RANKINGS
from llmcrs_utils.world import generate
from llmcrs_utils.world.ceilings import reader_table

SELLERS, ITEMS = 2, 30  # shops of a category, and items of a shop
SYSTEM, METRICS = "allm", ("Acc", "MRR@5")  # the LLM's key in the study; any LLM's would do


def measured(chosen: argparse.Namespace) -> dict:
    """The world's ceilings, the matcher, the learning curve, and what the last model gets on the test dialogues."""
    corpus, truth = generate({"train": chosen.train, "valid": chosen.valid, "test": chosen.test}, SELLERS, ITEMS)
    catalogue = build_catalogue(corpus, CHINESE)
    samples = build_samples(corpus, catalogue, CHINESE)
    samples = samples[samples["task"] == "recommend"].reset_index(drop=True)
    folder, number = Path(chosen.output), chosen.samples[-1]
    write_dataset(Dataset(samples, catalogue.items), folder / "data")
    run = run_of("04_tune_llm", {
        "system": SYSTEM, "dataset_dir": str(folder / "data"), "model_name_or_path": chosen.model, "output_dir": str(folder / "model"),
        "predictions_file": str(folder / "answers.parquet"), "template": "chat" if load_tokenizer(chosen.model).chat_template else "plain",
        "dtype": "auto", "ranking": chosen.ranking, "cutoff_len": 2048, "lora_target": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "modules_to_save": [], "max_samples": number, "num_train_epochs": float(number > 0), "learning_rate": chosen.learning_rate, "tokens_per_batch": 2048,
        "gradient_accumulation_steps": 1, "curve_samples": chosen.samples, "predict_splits": ["test"],
    })  # fmt: skip
    material = llm.prepare(run.parameters)
    answers = conduct(run, material).predictions
    matcher = matcher_predictions(samples, corpus.knowledge, CHINESE)
    scores = score(samples, pd.concat([answers, matcher.assign(seed=1)]), "zh")
    found = {metric: dict(zip(("gain", "low", "high"), paired_gains(scores, [(SYSTEM, "matcher")], metric)[0][:3], strict=True)) for metric in METRICS}
    return {
        "ceilings": reader_table(samples, truth).to_dict("index"), "curve": llm.read_curve(folder / "model").to_dict("records"),
        "test": scores.groupby("system")[list(METRICS)].mean().to_dict("index"), "over the matcher": found, "n": int((samples["split"] == "test").sum()),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a causal LM")
    parser.add_argument("--ranking", choices=RANKINGS, default="likelihood", help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 800], help="recommendations learned when it is measured (default: 0 800)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="(default: %(default)s)")
    for split, number in (("train", 400), ("valid", 40), ("test", 40)):
        parser.add_argument(f"--{split}", type=int, default=number, help="dialogues (default: %(default)s)")
    parser.add_argument("--output", default="runs/rankings", help="folder of this measurement (default: %(default)s)")
    print(json.dumps(measured(parser.parse_args(arguments)), indent=1))


if __name__ == "__main__":
    main()
