"""Ranking by scores of candidates, logits at answers only, and batches by tokens."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import hub
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import slow
from safetensors.torch import load_file
from test_llm import LORA, TUNING, answers_of
from torch import nn
from torch.backends import mkldnn
from transformers import TrainingArguments

from llmcrs_utils.checkpoints.loading import flat_linear, load_causal, load_tokenizer
from llmcrs_utils.evaluation.figures import skill_curve
from llmcrs_utils.llm import ranking as ranking_module
from llmcrs_utils.llm import system as llm
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.ranking import HEAD, exact_head, saved_head, target_log_probabilities
from llmcrs_utils.llm.tuning import AnswerTrainer, load_tuned, merge, new_lora, tune
from llmcrs_utils.study.run import conduct, run_of
from llmcrs_utils.tasks.dataset import write_dataset
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.collators import causal_collator, with_labels
from llmcrs_utils.training.token_batches import TokenBatchSampler, grouped, rounded
from llmcrs_utils.training.trainer import ListDataset

ROOT = Path(__file__).parents[1]
CUTOFF, NEW = 1024, 12


@pytest.fixture(scope="module")
def samples():
    return tiny.some_samples(4)


@pytest.fixture(scope="module")
def instructions(samples):
    return build_instructions(samples, tiny.dataset().facts, CHINESE, ranking="candidates")


@pytest.fixture(scope="module")
def examples(instructions):
    return encode_instructions(instructions, load_tokenizer(tiny.backbone("llama")), CHINESE, "plain", CUTOFF, NEW)[0]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, examples):
    """A model that ranks by scores, tuned for a few steps, and its folder."""
    folder = tmp_path_factory.mktemp("ranking")
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates"})
    tune(model, examples, examples, load_tokenizer(tiny.backbone("llama")), output_dir=folder, **TUNING | {"num_train_epochs": 3})
    return model.eval(), folder


@pytest.mark.parametrize(("kind", "template"), [("llama", "alpaca"), ("chatglm", "bare"), ("qwen", "chat")])
def test_a_candidate_is_read_to_the_end_of_its_description(tmp_path, samples, instructions, kind, template):
    name = hub.qwen(tmp_path / "qwen", tiny.texts()) if kind == "qwen" else tiny.backbone(kind)
    tokenizer = load_tokenizer(name)
    encoded = encode_instructions(instructions, tokenizer, CHINESE, template, 4096, NEW)[0]
    for task, row, example in zip(samples["task"], instructions.to_dict("records"), encoded, strict=True):
        assert ("candidates" in example) == (task == "recommend") == (not example["answer"])
        if task == "recommend":
            assert len(example["candidates"]) == 20 and row["output"] == "ABCDEFGHIJKLMNOPQRST"[example["gold"]]
            for place, description in zip(example["candidates"], row["described"], strict=True):
                read = "".join(tokenizer.decode(example["prompt"][: place + 1]).split())
                assert read.endswith(description[-3:]) or read.endswith(description[-4:-1])


def test_every_candidate_is_described_and_a_crs_stands_beside_it(samples):
    helped = tiny.help_for(samples)
    row = build_instructions(samples, {}, CHINESE, helped, ranking="candidates").set_index("task").loc["recommend"].iloc[0]
    assert row["described"][:3] == ["A的信息未知，推荐系统排第19", "B的信息未知，推荐系统排第20", "C的信息未知，推荐系统排第1"]
    assert "Top1-20商品排序结果：C、D" in row["tail"] and row["tail"].endswith("；".join(row["described"]))
    by_letter = build_instructions(samples, {}, CHINESE, helped).set_index("task").loc["recommend"].iloc[0]
    assert by_letter["described"] == [] and "排第" not in by_letter["tail"]


def test_scores_do_not_depend_on_the_batch_and_survive_saving_and_merging(tmp_path, samples, examples, tuned):
    model, folder = tuned
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    together, alone = (answers_of(model, tokenizer, samples, examples, size) for size in (16, 1))
    tiny.assert_same_answers(together, alone)
    ranked = together[samples["task"] == "recommend"]
    assert (ranked["scores"].map(max) - ranked["scores"].map(min) > 1e-3).all(), "the head has learned nothing"
    tiny.assert_same_answers(answers_of(load_tuned(folder), tokenizer, samples, examples), together)
    merge(folder, tmp_path / "merged")
    again = new_lora(str(tmp_path / "merged"), **LORA | {"ranking": "candidates"})
    tiny.assert_same_answers(answers_of(again, tokenizer, samples, examples), together)
    assert saved_head(tmp_path / "merged").abs().max() > 0 and saved_head(None) is None


def test_scores_are_learned(samples, examples, tmp_path):
    """On a handful of rankings the loss falls far below that of guessing, log 20 = 3.0."""
    few = [example for example in examples if "candidates" in example]
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates", "modules_to_save": ["embed_tokens"]})
    history = tune(model, few, few, load_tokenizer(tiny.backbone("llama")), output_dir=tmp_path, **TUNING | {"num_train_epochs": 15, "learning_rate": 0.02})
    assert history["valid_loss"].iloc[0] > 2.5 and history["valid_loss"].min() < 1.0
    answers = answers_of(model, load_tokenizer(tiny.backbone("llama")), samples, examples)
    asked = samples["task"] == "recommend"
    assert (answers.loc[asked, "text"] == samples.loc[asked, "label"]).mean() >= 0.75


def test_two_orders_are_averaged(samples, examples, tuned):
    model, _ = tuned
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    turned = samples.assign(candidates=[items[::-1] for items in samples["candidates"]])
    other = encode_instructions(build_instructions(turned, tiny.dataset().facts, CHINESE, ranking="candidates"), tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]
    both = predict(model, tokenizer, samples, examples, CHINESE, max_new_tokens=NEW, batch_size=8, reversed_examples=other)
    single = [answers_of(model, tokenizer, *pair) for pair in ((samples, examples), (turned, other))]
    for place in samples.index[samples["task"] == "recommend"]:
        scores = [dict(zip(answers.loc[place, "ranking"], torch.tensor(answers.loc[place, "scores"]).exp().tolist(), strict=True)) for answers in single]
        mean = {item: (scores[0][item] + scores[1][item]) / 2 for item in scores[0]}
        assert both.loc[place, "ranking"] == sorted(mean, key=mean.get, reverse=True)
        torch.testing.assert_close(torch.tensor(both.loc[place, "scores"]).exp().tolist(), sorted(mean.values(), reverse=True), rtol=1e-4, atol=1e-6)


# --- by likelihood


@pytest.fixture(scope="module")
def likely(samples):
    return build_instructions(samples, tiny.dataset().facts, CHINESE, ranking="likelihood")


def test_the_answer_is_the_description_and_a_crs_s_rank_is_in_it(samples, likely):
    row = likely.set_index("task").loc["recommend"].iloc[0]
    sample = samples[samples["task"] == "recommend"].iloc[0]
    place = list(sample["candidates"]).index(sample["label"])
    assert row["output"] == row["described"][place] and row["tail"] == "" and "A-T" not in row["instruction"]
    helped = tiny.help_for(samples)
    row = build_instructions(samples, {}, CHINESE, helped, ranking="likelihood").set_index("task").loc["recommend"].iloc[0]
    assert row["described"][:3] == ["信息未知，推荐系统排第19", "信息未知，推荐系统排第20", "信息未知，推荐系统排第1"]
    assert row["output"] == row["described"][place] and row["tail"] == "" and "参考对话式推荐系统的商品推荐排序结果" in row["instruction"]
    texts = ["instruction", "tail", "output"]
    others = [build_instructions(samples, {}, CHINESE, helped, ranking=ranking).query("task != 'recommend'") for ranking in ("likelihood", "letter")]
    pd.testing.assert_frame_equal(others[0][texts], others[1][texts])


def capped(module, inputs, output):
    """A forward hook: logits as Gemma 2 computes them, which are not its head's."""
    output.logits = 2 * torch.tanh(output.logits / 2)


@pytest.mark.parametrize(
    ("kind", "template", "caps"), [("llama", "alpaca", False), ("chatglm", "bare", False), ("qwen", "chat", False), ("gpt2", "plain", False), ("llama", "plain", True)]
)
def test_a_likelihood_is_that_of_the_whole_text(tmp_path, samples, likely, monkeypatch, kind, template, caps):
    """Prompts are read once, descriptions together, and a vocabulary in pieces: the same as one pass for each description, with and without the dialogue."""
    monkeypatch.setattr("llmcrs_utils.llm.ranking.TOKENS_AT_ONCE", 1024)  # several groups of descriptions
    monkeypatch.setattr("llmcrs_utils.llm.ranking.PIECE", 100)
    summed = []
    monkeypatch.setattr("llmcrs_utils.llm.ranking.target_log_probabilities", lambda *given: summed.append(target_log_probabilities(*given)) or summed[-1])
    name = hub.qwen(tmp_path / "qwen", tiny.texts()) if kind == "qwen" else tiny.backbone(kind)
    tokenizer, model = load_tokenizer(name), load_causal(name).eval()
    if caps:
        model.get_output_embeddings().weight.data *= 20  # logits large enough to be capped
        model.register_forward_hook(capped)
    encoded = encode_instructions(likely[likely["task"] == "recommend"], tokenizer, CHINESE, template, 4096, NEW)[0]
    asked = samples[samples["task"] == "recommend"].reset_index(drop=True)
    answers = answers_of(model, tokenizer, asked, encoded)
    assert bool(summed) != caps

    def wide(text: str) -> str:  # ChatGLM's tokenizer narrows signs
        return "".join(text.split()).replace("，", ",")

    @torch.no_grad()
    def log_probability(prompt: list[int], answer: list[int]) -> float:
        ids = torch.tensor([prompt + answer])
        told = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1].log_softmax(dim=1)
        return told.gather(1, torch.tensor(answer)[:, None]).sum().item()

    for example, sample, ranking, scores, raw in zip(
        encoded, asked.to_dict("records"), answers["ranking"], answers["scores"], answers["raw"], strict=True
    ):
        assert example["answer"] == example["descriptions"][list(sample["candidates"]).index(sample["label"])]
        assert example["answer"][-1] == tokenizer.eos_token_id and len(example["background"]) < len(example["prompt"])
        gained = [log_probability(example["prompt"], one) - log_probability(example["background"], one) for one in example["descriptions"]]
        expected = dict(zip(sample["candidates"], torch.tensor(gained).log_softmax(dim=0).tolist(), strict=True))
        torch.testing.assert_close(scores, [expected[item] for item in ranking], rtol=1e-3, atol=1e-3)
        described = dict(zip(sample["candidates"], likely.set_index("sample_id").loc[sample["sample_id"], "described"], strict=True))
        assert wide(raw) == wide(described[ranking[0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_log_probabilities_in_pieces_are_those_of_all_logits(monkeypatch, dtype):
    """With a bias, with logits of up to a thousand, and with a vocabulary that is no multiple of a piece."""
    monkeypatch.setattr("llmcrs_utils.llm.ranking.PIECE", 16)
    torch.manual_seed(1)
    head, states, targets = torch.nn.Linear(8, 37).to(dtype), torch.randn(5, 8).to(dtype) * 300, torch.tensor([0, 15, 16, 36, 20])
    head.bias.data = head.bias.data * 500
    with torch.no_grad(), exact_head(SimpleNamespace(get_output_embeddings=lambda: head)) as part_of_logits:
        found = target_log_probabilities(part_of_logits, states, targets)
    expected = (states.double() @ head.weight.double().T + head.bias.double()).log_softmax(dim=1)[range(5), targets]
    assert expected.min() < -300 and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_likelihoods_are_told_apart_in_bfloat16(samples, likely, monkeypatch):
    """Logits that are rounded to bfloat16 would make a sum over a long description a lottery."""
    model, tokenizer = load_causal(tiny.backbone("llama"), dtype="bfloat16").eval(), load_tokenizer(tiny.backbone("llama"))
    asked = samples[samples["task"] == "recommend"].head(2).reset_index(drop=True)
    encoded = encode_instructions(likely[likely["task"] == "recommend"].head(2), tokenizer, CHINESE, "plain", 4096, NEW)[0]
    seen = []
    model.register_forward_hook(lambda _, inputs, output: seen.append(output.logits.dtype))
    answers = answers_of(model, tokenizer, asked, encoded)
    assert len(seen) >= 6 and set(seen) == {torch.float32}
    monkeypatch.setattr("llmcrs_utils.llm.ranking.tells_logits", lambda *given: False)
    whole = answers_of(model, tokenizer, asked, encoded)  # from all logits at once
    assert answers["ranking"].tolist() == whole["ranking"].tolist()
    torch.testing.assert_close(answers["scores"].tolist(), whole["scores"].tolist(), rtol=1e-4, atol=1e-4)
    model(input_ids=torch.tensor([encoded[0]["prompt"]]))
    assert seen[-1] == torch.bfloat16


def test_an_exact_head_is_put_back():
    model = load_causal(tiny.backbone("llama"), dtype="bfloat16").eval()
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(KeyError), exact_head(model):
        with exact_head(model):
            assert model(input_ids=ids).logits.dtype == torch.float32
        assert model(input_ids=ids).logits.dtype == torch.float32
        raise KeyError
    assert model(input_ids=ids).logits.dtype == torch.bfloat16


def test_an_exact_head_multiplies_what_it_is_given_exactly(monkeypatch):
    """On a CPU with AMX products are computed in bfloat16 only where states and weights have it; the setting is put back."""
    used, usual = [], mkldnn.matmul.fp32_precision
    monkeypatch.setattr(ranking_module, "flat_linear", lambda states, weight, bias: used.append((mkldnn.matmul.fp32_precision, states.dtype)) or flat_linear(states, weight, bias))
    model, ids = load_causal(tiny.backbone("llama"), dtype="bfloat16").eval(), torch.tensor([[5, 6, 7]])
    with exact_head(model):
        logits = model(input_ids=ids).logits
        states = model.model(input_ids=ids).last_hidden_state
        model.get_output_embeddings()(states.float() + 1e-4)
    assert used == [("bf16", torch.float32), ("ieee", torch.float32)] and mkldnn.matmul.fp32_precision == usual
    torch.testing.assert_close(logits.double(), states.double() @ model.get_output_embeddings().weight.double().T, rtol=1e-5, atol=1e-5)


def test_descriptions_are_learned(samples, likely, tmp_path):
    """A model that has learned a handful of dialogues and, without them, any candidate, finds the dialogues' products."""
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    asked = samples[samples["task"] == "recommend"].reset_index(drop=True)
    few = encode_instructions(likely[likely["task"] == "recommend"], tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]
    extra = llm.any_candidate(few * 5, 1)
    assert [one["prompt"] for one in extra] == [example["background"] for example in few * 5]
    assert all(one["answer"] in example["descriptions"] for one, example in zip(extra, few * 5, strict=True))
    assert 1 < len({tuple(one["answer"]) for one in extra if one["prompt"] == few[0]["background"]})
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "likelihood", "modules_to_save": ["embed_tokens"]})
    history = tune(model, [*few * 5, *extra], few, tokenizer, output_dir=tmp_path, **TUNING | {"num_train_epochs": 12})
    assert history["valid_loss"].min() < 0.5 * history["valid_loss"].iloc[0]
    answers = answers_of(model, tokenizer, asked, few)
    described = likely.set_index("sample_id").loc[asked["sample_id"], "output"]
    tiny.assert_same_answers(answers_of(load_tuned(tmp_path), tokenizer, asked, few), answers)
    assert np.mean([raw.replace(" ", "") == output for raw, output in zip(answers["raw"], described, strict=True)]) >= 0.75


def test_what_stands_for_no_dialogue_is_no_sample_of_a_learning_curve(tmp_path):
    write_dataset(tiny.dataset(), tmp_path / "data")
    given = {"system": "allm", "model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "data"), "lora_rank": 4, "output_dir": str(tmp_path / "run")}
    given |= {"ranking": "likelihood", "max_samples": 4, "num_train_epochs": 2.0, "max_new_tokens": 8, "curve_samples": [0, 32, 33], "predict_splits": ["test"]}
    material = llm.prepare(run_of("04_tune_llm", {**given, "predictions_file": str(tmp_path / "x.parquet")}).parameters)
    history = llm.train(material, tmp_path / "run")
    curve = llm.read_curve(tmp_path / "run")
    assert len(history) == 2 and list(dict.fromkeys(curve["samples"])) == [0, 32]  # two epochs of four samples of each task
    assert set(curve["task"]) == {"understand", "elicit", "recommend", "respond"}


def test_descriptions_are_cut_alike_and_leave_every_dialogue_as_much(samples, likely):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    longest = max(len(ids) for ids in tokenizer([text for texts in likely["described"] for text in texts], add_special_tokens=False)["input_ids"]) + 1
    asked = likely[likely["task"] == "recommend"]
    whole = encode_instructions(asked, tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]
    assert max(len(one) for example in whole for one in example["descriptions"]) == longest
    cutoff = max(len(example["prompt"]) for example in whole) + longest
    assert encode_instructions(asked, tokenizer, CHINESE, "plain", cutoff, NEW)[0] == whole
    shorter, report = encode_instructions(asked, tokenizer, CHINESE, "plain", cutoff - 1, NEW)
    assert sorted(report["cut"])[-1] > 0 and [e["descriptions"] for e in shorter] == [e["descriptions"] for e in whole]
    narrow = encode_instructions(asked, tokenizer, CHINESE, "plain", 2 * longest - 2, NEW)[0]
    for example, before in zip(narrow, whole, strict=True):
        assert all(len(one) < longest and one[-1] == tokenizer.eos_token_id for one in example["descriptions"])
        assert all(one[:-1] == other[: len(one) - 1] for one, other in zip(example["descriptions"], before["descriptions"], strict=True))


def test_a_ranking_by_likelihood_has_one_order():
    with pytest.raises(ValueError, match="candidate_orders=2: a ranking by likelihood does not depend on the order"):
        llm.prepare({"ranking": "likelihood", "candidate_orders": 2})


@pytest.mark.parametrize("ranking", ["letter", "likelihood"])
def test_without_epochs_a_model_answers_as_it_was_pretrained(tmp_path, ranking):
    write_dataset(tiny.dataset(), tmp_path / "data")
    given = {"system": "allm", "model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run")}
    given |= {"ranking": ranking, "num_train_epochs": 0.0, "max_new_tokens": 8, "curve_samples": [0, 10], "predict_splits": ["test"]}
    run = run_of("04_tune_llm", {**given, "predictions_file": str(tmp_path / "answers.parquet")})
    material = llm.prepare(run.parameters)
    outcome = conduct(run, material)
    assert len(outcome.history) == 0 and list(dict.fromkeys(llm.read_curve(tmp_path / "run")["samples"])) == [0]
    part = material.splits["test"]
    expected = predict(load_causal(tiny.backbone("llama")), material.tokenizer, part, material.examples["test"], CHINESE, max_new_tokens=8, batch_size=16)
    tiny.assert_same_answers(outcome.predictions[expected.columns], expected)
    written = (tmp_path / "run" / "adapter_model.safetensors").stat().st_mtime_ns
    tiny.assert_same_answers(conduct(run, material).predictions[expected.columns], expected)
    assert (tmp_path / "run" / "adapter_model.safetensors").stat().st_mtime_ns == written


def test_a_published_adapter_answers_without_tuning_as_the_tuned_model(tmp_path, monkeypatch):
    """What publish.py keeps of a tuned LLM, merged into the base of a row that is not tuned, gives its answers up to the adapter's rounding."""
    write_dataset(tiny.dataset(), tmp_path / "run" / "data")
    monkeypatch.syspath_prepend(str(ROOT / "workflow"))
    from publish import publish_adapters

    def answers(name, **changes):
        given = {"system": "allm", "model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "run" / "data")}
        given |= {"output_dir": str(tmp_path / "run" / "systems" / name), "predictions_file": str(tmp_path / f"{name}.parquet")}
        given |= {"ranking": "likelihood", "max_new_tokens": 8, "modules_to_save": [], "predict_splits": ["test"], **changes}
        return conduct(run_of("04_tune_llm", given)).predictions

    def scores(table):
        ranked = table[table["ranking"].map(len) > 0]
        return np.array([[score for _, score in sorted(zip(*row, strict=True))] for row in zip(ranked["ranking"], ranked["scores"], strict=True)])

    untuned, tuned = answers("untuned", num_train_epochs=0.0), answers("tuned", num_train_epochs=2.0, learning_rate=0.01, max_samples=8)
    settings = {"num_train_epochs": 2.0, "modules_to_save": [], "ranking": "likelihood", "model_name_or_path": "base", "seed": 1}
    changes = {"tuned": {}, "second": {"seed": 2}, "untuned": {"num_train_epochs": 0.0}, "whole": {"modules_to_save": ["lm_head"]}, "scored": {"ranking": "candidates"}}
    changes["small"] = {"model_name_or_path": str(tmp_path / "run" / "backbones" / "llama")}  # which nobody else has
    for name in ("second", "whole", "scored", "small"):
        shutil.copytree(tmp_path / "run" / "systems" / "tuned", tmp_path / "run" / "systems" / name)
    publish_adapters(tmp_path / "run", tmp_path / "results", {name: {"settings": settings | change} for name, change in changes.items()})
    kept = tmp_path / "results" / "adapters"
    assert [folder.name for folder in kept.iterdir()] == ["tuned"]
    assert {tensor.dtype for tensor in load_file(kept / "tuned" / "adapter_model.safetensors").values()} == {torch.bfloat16}
    again = answers("again", num_train_epochs=0.0, adapter_name_or_path=[str(kept / "tuned")])
    near, far = (np.abs(scores(other) - scores(tuned)).mean() for other in (again, untuned))
    assert near < 0.1 * far
    same, other = ((table["text"] == tuned["text"]).mean() for table in (again, untuned))
    assert same > 0.7 > other


# --- the loss


def trainer_of(model, tokenizer, tmp_path, batch):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=batch, report_to="none", remove_unused_columns=False)
    return AnswerTrainer(model=model, args=arguments, data_collator=causal_collator(tokenizer.pad_token_id), train_dataset=ListDataset([]))


@pytest.mark.parametrize("architecture", ["llama", "chatglm"])
def test_the_loss_and_its_gradient_are_those_of_all_logits(tmp_path, samples, architecture):
    """Two batches of one update count as one batch of all their tokens, as transformers' own loss has it."""
    folder = tiny.backbone(architecture)
    tokenizer = load_tokenizer(folder)
    settings = LORA | {"lora_target": ["all-linear"], "modules_to_save": []}
    encoded = with_labels(encode_instructions(build_instructions(samples, tiny.dataset().facts, CHINESE), tokenizer, CHINESE, "bare", CUTOFF, NEW)[0])
    collate = causal_collator(tokenizer.pad_token_id)
    ours, theirs = (new_lora(folder, **settings) for _ in range(2))
    expected = theirs(**collate(encoded)).loss
    expected.backward()
    trainer = trainer_of(ours, tokenizer, tmp_path, 8)
    ours.train()
    sizes = []
    ours.get_output_embeddings().register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[1]))
    batches, counts = trainer.get_batch_samples(iter([collate(encoded[:5]), collate(encoded[5:])]), 2, ours.device)
    losses = [trainer.compute_loss(ours, batch, num_items_in_batch=counts) for batch in batches]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), expected, rtol=1e-5, atol=1e-6)
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6, msg=name)
    assert sum(sizes) == sum(label != -100 for example in encoded for label in example["labels"])  # no logits anywhere else


def test_rankings_and_texts_share_a_batch_or_do_without_each_other(tmp_path, examples):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates"})
    trainer, collate = trainer_of(model, tokenizer, tmp_path, 8), causal_collator(tokenizer.pad_token_id)
    model.eval()
    texts, ranked = ([e for e in with_labels(examples) if ("gold" in e) == kind] for kind in (False, True))
    losses = [trainer.compute_loss(model, collate(part)).item() for part in (texts, ranked, [*ranked[:2], *texts, *ranked[2:]])]
    assert losses[1] == pytest.approx(torch.tensor(20.0).log().item(), rel=1e-5)  # the vector is zero before training
    assert losses[2] == pytest.approx(losses[0] + losses[1], rel=1e-4)
    assert isinstance(getattr(model.get_base_model(), HEAD), nn.Module) and not hasattr(load_causal(tiny.backbone("llama")), HEAD)


def test_descriptions_count_as_much_as_all_answers_however_long_they_are(samples, likely, tmp_path):
    """In one mean over all tokens, understand, elicit and respond would hardly count, and their answers would become descriptions."""
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    encoded = encode_instructions(likely, tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]
    described = [example for example in encoded if "descriptions" in example]
    described += llm.any_candidate(described, 1)
    texts = [example for example in encoded if "descriptions" not in example]
    collate = causal_collator(tokenizer.pad_token_id)
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "likelihood"})
    trainer = trainer_of(model, tokenizer, tmp_path, 8)
    model.train()
    expected = sum(model(**{name: tensor for name, tensor in collate(with_labels(part)).items() if name != "kind"}).loss.item() for part in (texts, described))
    mixed = [example for pair in zip(texts, described * len(texts)) for example in pair][: 2 * len(described)]
    mixed += [example for example in texts if example not in mixed]
    parts = [with_labels(mixed[:7]), with_labels(mixed[7:])]
    batches, counts = trainer.get_batch_samples(iter([collate(part) for part in parts]), 2, model.device)
    assert sum(trainer.compute_loss(model, batch, num_items_in_batch=counts).item() for batch in batches) == pytest.approx(expected, rel=1e-5)
    assert trainer.seen == len(encoded)
    trainer.eval_dataset = ListDataset(with_labels(mixed))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_learning_curve_is_measured_on_the_way_once_and_changes_no_weight(tmp_path):
    write_dataset(tiny.dataset(), tmp_path / "data")
    given = {"system": "allm", "model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "data"), "lora_rank": 4}
    given |= {"ranking": "candidates", "max_samples": 10, "num_train_epochs": 2.0, "tokens_per_batch": 2048, "max_new_tokens": 8, "predict_splits": ["test"]}
    weights = []
    for points in ([], [0, 12, 10_000]):
        folder = tmp_path / str(len(points))
        run = run_of("04_tune_llm", {**given, "curve_samples": points, "output_dir": str(folder), "predictions_file": str(tmp_path / "x.parquet")})
        material = llm.prepare(run.parameters)
        llm.train(material, folder)
        weights.append(load_file(folder / "adapter_model.safetensors"))
        curve = llm.read_curve(folder)
        assert list(dict.fromkeys(curve["samples"])) == [point for point in points if point <= 80]
    assert set(curve["task"]) == {"understand", "elicit", "recommend", "respond"} and curve["value"].between(0, 1).all()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=0, msg=name)
    llm.add_to_curve(material, None, folder, 12)  # is there already
    assert len(skill_curve(curve, "Tiny").axes) == 4


def test_the_validation_loss_does_not_depend_on_the_batches(tmp_path, examples):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates"})
    losses = []
    for tokens in (0, 700, 1024, 100_000):
        trainer = trainer_of(model, tokenizer, tmp_path, 3)
        trainer.tokens_per_batch, trainer.eval_dataset = tokens, ListDataset(with_labels(examples))
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5) and losses[0] > 3


def test_batches_of_an_update_are_one_batch(tmp_path, examples):
    """The Trainer neither divides the loss by the number of batches again, nor forgets to."""
    tokenizer, few = load_tokenizer(tiny.backbone("llama")), with_labels(examples)[:8]
    norms = []
    for size, batches in ((8, 1), (2, 4)):
        model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates"})
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(size)), use_cpu=True, per_device_train_batch_size=size, gradient_accumulation_steps=batches,
            max_grad_norm=1e9, num_train_epochs=1, logging_steps=1, report_to="none", remove_unused_columns=False, save_strategy="no",
        )  # fmt: skip
        trainer = AnswerTrainer(model=model, args=arguments, data_collator=causal_collator(tokenizer.pad_token_id), train_dataset=ListDataset(few))
        trainer.train()
        norms.append(next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry))
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


@slow
def test_the_last_point_of_a_curve_is_of_the_last_weights_and_survives_a_kill(tmp_path, examples):
    """The Trainer ends with the weights of the best epoch. A kill in the last measurement must not end all further calls."""
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    options = TUNING | {"num_train_epochs": 2, "learning_rate": 0.3, "lr_scheduler_type": "constant"}  # so high that the best epoch is the first
    norms, number = {}, len(examples)

    def tuned_with(folder, measure):
        model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates"})
        return tune(model, examples, examples, tokenizer, output_dir=folder, points=[number, 2 * number], measure=lambda n: measure(model, n), **options)

    def record(model, count):
        norms[count] = getattr(model.get_base_model(), HEAD).weight.norm().item()

    def killed(model, count):
        if count == 2 * number:
            raise KeyboardInterrupt
        record(model, count)

    with pytest.raises(KeyboardInterrupt):
        tuned_with(tmp_path, killed)
    history = tuned_with(tmp_path, record)
    assert len(history) == 2 and history["valid_loss"].idxmin() == 0
    assert set(norms) == {number, 2 * number} and norms[2 * number] != norms[number]


def test_scores_stay_float32_in_a_base_of_bfloat16(samples, examples):
    model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates", "dtype": "bfloat16"})
    head = getattr(model.get_base_model(), HEAD)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    answers = answers_of(model, load_tokenizer(tiny.backbone("llama")), samples, examples)
    for scores in answers.loc[samples["task"] == "recommend", "scores"]:
        values = torch.tensor(scores)
        assert len(set(scores)) == 20 and not torch.equal(values, values.bfloat16().float())


# --- batches by tokens


def test_batches_keep_to_the_budget_and_take_every_example_once():
    lengths = [5, 700, 30, 31, 33, 400, 16, 17, 90, 90, 90, 90, 3000]
    batches = TokenBatchSampler(lengths, 1024, seed=1, shuffled=True)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * rounded(max(lengths[place] for place in batch)) <= 1024 or len(batch) == 1
    assert len(batches) < len(lengths) / 2
    first, again = list(batches), list(TokenBatchSampler(lengths, 1024, seed=1, shuffled=True))
    batches.set_epoch(1)
    assert first == again != list(batches) and sorted(first) == sorted(batches)


def test_processes_share_the_batches_evenly():
    lengths = [10 * n for n in range(1, 24)]
    shares = [list(TokenBatchSampler(lengths, 700, 1, True, 3, process)) for process in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(place for share in shares for batch in share for place in batch) == list(range(len(lengths)))


def test_groups_are_limited_by_number_and_by_tokens():
    assert grouped([], 4, 100) == []
    assert grouped([16] * 5, most=2) == [(0, 2), (2, 4), (4, 5)]
    assert grouped([100, 50, 16, 16, 16], tokens=128) == [(0, 1), (1, 3), (3, 5)]
    assert grouped([16] * 4, most=3, tokens=32) == [(0, 2), (2, 4)]


@pytest.mark.parametrize(("saved_every", "goes_on_at"), [pytest.param(600, 1.0, marks=slow), (0, 1.5)])
def test_tuning_by_tokens_resumes_to_the_same_weights(tmp_path, examples, monkeypatch, saved_every, goes_on_at):
    """After a break in the second epoch it goes on from the last checkpoint, with the batches that an unbroken run would have had."""
    monkeypatch.setattr("llmcrs_utils.llm.tuning.SAVED_EVERY", saved_every)
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    options = TUNING | {"num_train_epochs": 2, "tokens_per_batch": 1024, "gradient_accumulation_steps": 2}
    begun, broken_at = [], None
    original = AnswerTrainer.get_batch_samples

    class Stopped(Exception):
        pass

    def noting(self, *arguments):
        begun.append(self.state.epoch or 0.0)
        if broken_at and begun[-1] >= broken_at:
            raise Stopped
        return original(self, *arguments)

    monkeypatch.setattr(AnswerTrainer, "get_batch_samples", noting)

    def tuned_in(folder, measured):
        model = new_lora(tiny.backbone("llama"), **LORA | {"ranking": "candidates", "lora_dropout": 0.1})
        points = [0, len(examples), len(examples) + 1, 2 * len(examples)]
        history = tune(model, examples, examples, tokenizer, output_dir=folder, points=points, measure=measured.append, **options)
        return history, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    measured, again = [], []
    whole_history, whole = tuned_in(tmp_path / "whole", measured)
    assert measured == [0, len(examples), len(examples) + 1, 2 * len(examples)]
    broken_at = 1.5
    with pytest.raises(Stopped):
        tuned_in(tmp_path / "broken", again)
    begun, broken_at = [], None
    history, resumed = tuned_in(tmp_path / "broken", again)
    assert begun[0] >= goes_on_at and begun[0] < 1.8, "it did not go on from the last checkpoint"
    assert list(dict.fromkeys(again)) == measured and len(history) == 2
    pd.testing.assert_frame_equal(history, whole_history, check_exact=False, rtol=1e-6, atol=0)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0, msg=name)
