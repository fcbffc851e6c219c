"""An LLM from parameters to answers: its data, tuning and predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pandas as pd
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.checkpoints.merging import with_adapters
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.files.atomic import read_json_or_none, write_json
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.ranking import letter_tokens
from llmcrs_utils.llm.tuning import compile_layers, keep_untuned, load_tuned, merge, new_lora, tune
from llmcrs_utils.systems.predictions import label_run
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import RANKINGS, Prompts, prompts_of
from llmcrs_utils.training.collators import ANY_DESCRIPTION

CURVE, CURVE_SAMPLES = "learning_curve.json", 100  # a run's learning curve; validation samples of each task that it is measured on
WITHOUT_GRADIENTS = 4  # answering holds far less in memory than tuning, so its batches have this many times the tokens


@dataclass(frozen=True)
class Material:
    """The data of an LLM: samples to tune on and to answer, and their encoding.

    Attributes:
        parameters: parameters of ``04_tune_llm``.
        base: the checkpoint that is tuned, with published adapters merged into it.
        helped: the assistant's help, one row per sample; ``None`` without an assistant.
        splits: split -> its samples; ``held_out`` holds those of the held-out fold.
        instructions: split -> its samples as instruction data.
        examples: split -> the model's inputs, one per sample.
        reversed_examples: the same with candidates in reverse order, if both orders are to be averaged; else empty.
        fits: split -> the report of ``text.fitting.fit``.
    """

    parameters: dict
    base: str
    dataset: Dataset
    prompts: Prompts
    tokenizer: PreTrainedTokenizerBase
    helped: pd.DataFrame | None
    splits: dict[str, pd.DataFrame]
    instructions: dict[str, pd.DataFrame]
    examples: dict[str, list[dict]]
    reversed_examples: dict[str, list[dict]]
    fits: dict[str, pd.DataFrame]


def prepare(parameters: dict) -> Material:
    """Read the data, merge adapters if there are any, and encode every sample.

    Raises:
        ValueError: for an unknown ranking or number of orders.
    """
    ranking, orders = parameters["ranking"], parameters["candidate_orders"]
    if ranking not in RANKINGS or orders not in (1, 2):
        raise ValueError(f"ranking={ranking!r}, candidate_orders={orders}: known are {', '.join(RANKINGS)}, and 1 or 2 orders")
    if ranking == "likelihood" and orders == 2:
        raise ValueError("candidate_orders=2: a ranking by likelihood does not depend on the order; give candidate_orders: 1")
    prompts, dataset = prompts_of(parameters["language"]), read_dataset(parameters["dataset_dir"])
    helped = read_parquet(parameters["assistance_file"]) if parameters["assistance_file"] else None
    merged_dir = Path(parameters["dataset_dir"]).parent / "backbones"
    base = with_adapters(parameters["model_name_or_path"], parameters["adapter_name_or_path"], merged_dir)
    tokenizer = load_tokenizer(base)
    if ranking == "letter":
        letter_tokens(tokenizer)  # a tokenizer that does not tell letters apart is refused before tuning
    splits = {name: part for name, part in dataset.splits(parameters["folds"], parameters["held_out_fold"]).items() if len(part)}
    shape = parameters["template"], parameters["cutoff_len"], parameters["max_new_tokens"]
    instructions = {name: build_instructions(part, dataset.facts, prompts, helped, ranking) for name, part in splits.items()}
    encoded = {name: encode_instructions(part, tokenizer, prompts, *shape) for name, part in instructions.items()}
    examples, fits = ({name: pair[place] for name, pair in encoded.items()} for place in (0, 1))
    turned = {name: part.assign(candidates=[items[::-1] for items in part["candidates"]]) for name, part in splits.items() if orders == 2}
    turned = {name: build_instructions(part, dataset.facts, prompts, helped, ranking) for name, part in turned.items()}
    turned = {name: encode_instructions(part, tokenizer, prompts, *shape)[0] for name, part in turned.items()}
    return Material(parameters, base, dataset, prompts, tokenizer, helped, splits, instructions, examples, turned, fits)


def train(material: Material, output_dir: str | Path) -> pd.DataFrame:
    """Tune a LoRA adapter in ``output_dir``. Returns the training history. For no epochs, the model stays as it was pretrained."""
    parameters = material.parameters
    adapter_names = (
        "quantization_bit", "dtype", "ranking", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "modules_to_save", "gradient_checkpointing", "seed",
    )  # fmt: skip
    training_names = (
        "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "per_device_train_batch_size",
        "tokens_per_batch", "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "report_to", "seed",
    )  # fmt: skip
    model = new_lora(material.base, **{name: parameters[name] for name in adapter_names})
    if not parameters["num_train_epochs"]:
        if 0 in parameters["curve_samples"]:
            add_to_curve(material, model, Path(output_dir), 0)
        return keep_untuned(model, material.tokenizer, output_dir)
    learned = {name: [material.examples[name][place] for place in part_of(material, name)] for name in ("train", "valid")}
    learned["train"] += any_candidate(learned["train"], parameters["seed"])
    if parameters["compile_layers"]:
        compile_layers(model)
    return tune(
        model, learned["train"], learned["valid"], material.tokenizer, output_dir=output_dir,
        points=parameters["curve_samples"], measure=lambda count: add_to_curve(material, model, Path(output_dir), count),
        **{name: parameters[name] for name in training_names},
    )  # fmt: skip


def any_candidate(examples: list[dict], seed: int) -> list[dict]:
    """For each example ranked by likelihood, one without the dialogue, whose answer is any candidate's description.

    So the model learns how likely a description is among the candidates, to which ``rank_by_likelihood`` compares.
    """
    draw = Random(seed)
    ranked = [example for example in examples if "descriptions" in example]
    return [{"prompt": one["background"], "answer": draw.choice(one["descriptions"]), "kind": ANY_DESCRIPTION} for one in ranked]


def add_to_curve(material: Material, model: PeftModel, output_dir: Path, count: int) -> None:
    """Measure the model on up to ``CURVE_SAMPLES`` validation samples of each task, after ``count`` training samples.

    The file ``CURVE`` gets a row per task and metric. What it holds already, from before a kill, is not measured again.
    """
    parameters, rows = material.parameters, read_json_or_none(output_dir / CURVE) or []
    if any(row["samples"] == count for row in rows):
        return
    samples = material.splits["valid"]
    places = samples[samples["split"] == "valid"].groupby("task").head(CURVE_SAMPLES).index
    asked = samples.loc[places].reset_index(drop=True)
    answers = predict(
        model.to(device()), material.tokenizer, asked, [material.examples["valid"][place] for place in places], material.prompts,
        max_new_tokens=parameters["max_new_tokens"], batch_size=parameters["eval_batch_size"],
        tokens_per_batch=WITHOUT_GRADIENTS * parameters["tokens_per_batch"],
    )  # fmt: skip
    scores = score(asked, label_run(answers, parameters["system"], parameters["seed"]), parameters["language"], "valid")
    for task, part in scores.groupby("task"):
        for metric in dict.fromkeys((HEADLINE[task], *(["Acc"] if task == "recommend" else []))):
            rows.append({"samples": count, "task": task, "metric": metric, "value": round(float(part[metric].mean()), 4), "n": len(part)})
    write_json(output_dir / CURVE, rows)


def read_curve(output_dir: str | Path) -> pd.DataFrame:
    """The learning curve of a run: ``samples, task, metric, value, n``; empty if none was asked for."""
    return pd.DataFrame(read_json_or_none(Path(output_dir) / CURVE) or [], columns=["samples", "task", "metric", "value", "n"])


def part_of(material: Material, split: str) -> list[int]:
    """Places of the samples of a split that are used in tuning: all, or ``max_samples`` of each task, drawn by the seed."""
    most, seed, tasks = material.parameters["max_samples"], material.parameters["seed"], material.splits[split]["task"]
    places = pd.Series(tasks.to_numpy()).sample(frac=1, random_state=seed)
    return sorted(places.groupby(places).head(most).index if most else places.index)


def answer(material: Material, output_dir: str | Path, splits: list[str]) -> pd.DataFrame:
    """Predictions of the tuned model for these splits, without system and seed.

    With the parameter ``merge_adapter`` the merged model is saved too.
    """
    parameters = material.parameters
    model = load_tuned(output_dir, parameters["quantization_bit"], material.base, parameters["dtype"])
    answers = pd.concat(
        predict(
            model, material.tokenizer, material.splits[name], material.examples[name], material.prompts,
            max_new_tokens=parameters["max_new_tokens"], batch_size=parameters["eval_batch_size"],
            tokens_per_batch=WITHOUT_GRADIENTS * parameters["tokens_per_batch"], reversed_examples=material.reversed_examples.get(name),
        )
        for name in splits
    )  # fmt: skip
    if parameters["merge_adapter"]:
        merge(output_dir, Path(output_dir) / "merged", material.base)
    return answers


def asked_live(parameters: dict) -> Callable[[pd.DataFrame, pd.DataFrame | None], pd.DataFrame]:
    """As ``crs.system.asked_live``. Candidates are read in one order."""
    prompts, facts = prompts_of(parameters["language"]), read_dataset(parameters["dataset_dir"]).facts
    merged_dir = Path(parameters["dataset_dir"]).parent / "backbones"
    base = with_adapters(parameters["model_name_or_path"], parameters["adapter_name_or_path"], merged_dir)
    tokenizer = load_tokenizer(base)
    model = load_tuned(parameters["output_dir"], parameters["quantization_bit"], base, parameters["dtype"])

    def ask(samples: pd.DataFrame, helped: pd.DataFrame | None) -> pd.DataFrame:
        instructions = build_instructions(samples, facts, prompts, helped, parameters["ranking"])
        shape = parameters["template"], parameters["cutoff_len"], parameters["max_new_tokens"]
        examples, _ = encode_instructions(instructions, tokenizer, prompts, *shape)
        return predict(model, tokenizer, samples, examples, prompts, max_new_tokens=parameters["max_new_tokens"], batch_size=len(samples))

    return ask
