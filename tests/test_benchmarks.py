"""The benchmarks run, and what they count is so."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import slow
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, not a package

import architectures
import gpu_7b
import material
import memory
import rankings
import readers
import rounding
import tiny
import typical_settings

from llmcrs_utils.small.models import new_backbone, save_backbone
from llmcrs_utils.study.run import conduct, run_of
from llmcrs_utils.tasks.dataset import write_dataset
from llmcrs_utils.training.decoding import continue_greedily


@slow
def test_every_architecture_is_timed(capsys):
    threads = torch.get_num_threads()
    try:
        architectures.main(["--size", "quick"])
    finally:
        torch.set_num_threads(threads)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| quick")]
    assert [row[1] for row in rows] == [*architectures.STUDIED, *architectures.STUDIED]
    assert all(float(rate) > 0 for row in rows[:4] for rate in row[4:6])  # training
    assert all(float(rate) > 0 for row in rows[4:] for rate in row[3:5])  # decoding


@pytest.mark.parametrize("architecture", material.LLM_SECTIONS)
@pytest.mark.parametrize("checkpointing", (False, True))
def test_counted_flops_are_those_of_a_step(architecture, checkpointing):
    model = gpu_7b.build(architecture, "float32", tiny=True)
    model = material.new_lora_on(model, checkpointing, **material.paper_lora(architecture)).train()
    model.enable_input_require_grads()  # the formula takes a gradient at the embeddings' output for granted
    batch = material.full_rows(material.tokenizer_of(architecture), 2, 64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # other kernels count half, or nothing
        model(**batch).loss.backward()
    assert gpu_7b.step_flops(model, 2, 64, recomputed=checkpointing) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_answers_end_where_the_true_ones_do():
    tokenizer = material.tokenizer_of("llama")
    model = new_backbone("llama", tokenizer, hidden_size=32, layers=1, heads=2, max_positions=256, seed=1).eval()
    written = []

    def note(**options):
        written.append(original(**options))
        return written[-1]

    original, model.generate = model.generate, note
    prompts, lengths = [[7, 8, 9, 10], [11, 12]], [3, 9]
    material.end_as_true_answers(model, prompts, lengths)
    continue_greedily(model, tokenizer, prompts, 20)
    answers = written[0][:, 4:]
    assert [(row != tokenizer.pad_token_id).sum().item() for row in answers] == lengths


@slow
def test_gpu_script_prints_a_line_a_point(capsys, monkeypatch):
    # LLaMA alone: it has what ChatGLM has not, layers trained whole beside LoRA.
    monkeypatch.setattr(material, "LLM_SECTIONS", {"llama": "allm"})
    for where, name, few in ((gpu_7b, "WARM_UP", 1), (gpu_7b, "STEPS", 1), (material, "MAX_NEW_TOKENS", 4)):
        monkeypatch.setattr(where, name, few)
    gpu_7b.main(["--tiny"])
    points = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    training = [point for point in points if point["point"] == "training"]
    kinds = {(point["base"], point["checkpointing"]) for point in training}
    assert kinds == {("bfloat16", True), ("bfloat16", False), ("4 bits", True), ("float32", True)}
    assert all(0 < point["mfu"] and 0 < point["tokens_per_s"] for point in training)
    decoding = [point for point in points if point["point"] == "decoding"]
    assert {(point["adapter"], point["batch_size"]) for point in decoding} == {(False, 1), (False, 2), (True, 1), (True, 2)}
    assert all(point["times_batch_1"] == 1 for point in decoding if point["batch_size"] == 1)


def test_a_series_goes_on_where_memory_ends(capsys, monkeypatch):
    step = material.train_step

    def small_card(model, optimizer, batch, **options):
        if len(batch["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no memory")
        step(model, optimizer, batch, **options)

    monkeypatch.setattr(material, "train_step", small_card)
    gpu_7b.training_series("llama", "bfloat16", True, (1, 2, 4), True, 1e9, gpu_7b.Emit(9))
    points = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(point["batch_size"], point.get("out_of_memory", False)) for point in points] == [(1, False), (2, True)]


@slow
def test_fewer_bits_hold_fewer_bytes(tmp_path):
    tokenizer = material.tokenizer_of("llama")
    model = new_backbone("llama", tokenizer, hidden_size=128, layers=2, heads=2, max_positions=256, seed=1)
    save_backbone(model, tokenizer, tmp_path)
    rows = {name: tensor.tolist() for name, tensor in material.full_rows(tokenizer, 2, 16).items()}
    found = [memory.measure(str(tmp_path), "llama", base, False, rows) for base in memory.BASES]
    held = dict(zip(memory.BASES, (row["base held"] for row in found), strict=True))
    assert held["float32"] == pytest.approx(4 * model.num_parameters(), rel=0.01)
    assert held["4 bits"] < held["8 bits"] < held["float32"] and held["bfloat16"] == pytest.approx(held["float32"] / 2, rel=0.01)


@slow
@pytest.mark.parametrize("samples", [["0"], ["0", "8"]])
def test_rankings_are_measured_beside_matcher_and_ceilings(capsys, tmp_path, samples):
    arguments = ["--model", tiny.backbone("llama"), "--train", "6", "--valid", "2", "--test", "4", "--output", str(tmp_path), "--samples", *samples]
    rankings.main(arguments)
    found = json.loads("{" + capsys.readouterr().out.partition("{\n")[2])  # the losses of training are printed before
    assert {row["samples"] for row in found["curve"]} == set(map(int, samples)) and found["n"] > 4
    assert found["test"]["matcher"]["Acc"] <= found["ceilings"]["knows everything"]["MRR@5"] <= 1
    gain = found["over the matcher"]["MRR@5"]
    assert gain["gain"] == pytest.approx(found["test"]["allm"]["MRR@5"] - found["test"]["matcher"]["MRR@5"])


@slow
def test_all_ways_of_tuning_have_the_same_losses(capfd):
    readers.main(["--model", tiny.backbone("llama"), "--per-task", "5"])
    *_, plain, ours, compiled, batches, alone, summary = capfd.readouterr().out.splitlines()
    losses = [json.loads(line.partition(": ")[2])["losses"] for line in (plain, ours, compiled)]
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[1] == pytest.approx(losses[2], rel=1e-3)
    assert batches.startswith("answered batches") and alone.startswith("answered alone") and "decoding in batches" in summary


def test_rounding_counts_equal_answers_and_how_far_the_right_item_moves():
    asked = pd.DataFrame({"task": ["elicit", "elicit", "recommend", "recommend"], "label": ["品类", "价位", "b", "c"]})
    exact = pd.DataFrame({"text": ["品类", "价位", "A", "A"], "ranking": [[], [], ["a", "b", "c"], ["a", "b", "c"]]})
    rounded = exact.assign(text=["品类", "品类", "A", "B"], ranking=[[], [], ["a", "c", "b"], ["c", "a", "b"]])
    elicit, recommend = rounding.compared(asked, exact, rounded).to_dict("records")
    assert (elicit["answers"], elicit["equal"]) == (2, 0.5)
    assert recommend == {"task": "recommend", "answers": 2, "equal": 0.5, "right item stays": 0.0, "moves at most": 2}


@slow
def test_rounding_asks_a_tuned_llm_twice(tmp_path, capsys):
    write_dataset(tiny.dataset(), tmp_path / "data")
    given = {"system": "allm", "model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "allm")}
    given |= {"predictions_file": str(tmp_path / "allm.parquet"), "predict_splits": ["test"], "num_train_epochs": 1.0, "max_samples": 4, "max_new_tokens": 8}
    conduct(run_of("04_tune_llm", given))
    rounding.main(["--run", str(tmp_path / "allm"), "--per-task", "3"])
    printed = capsys.readouterr().out
    assert all(task in printed for task in ("understand", "elicit", "recommend", "respond")) and "moves at most" in printed


def test_all_learning_rates_of_a_system_are_scaled_and_nothing_else():
    settings = {"learning_rate": 0.002, "recommender_learning_rate": 0.003, "num_train_epochs": 12.0}
    assert typical_settings.scaled(settings, 2.0) == {"learning_rate": 0.004, "recommender_learning_rate": 0.006, "num_train_epochs": 12.0}
