"""The LLM: labels, decoding in batches, ranking by letters, adapters on disk, 4 bits."""

import shutil
import time
from datetime import datetime, timezone

import numpy as np
import pytest
import tiny
import torch
from conftest import slow
from pandas.testing import assert_frame_equal
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils.chat_template_utils import _compile_jinja_template

from llmcrs_utils.checkpoints.checks import check_checkpoint
from llmcrs_utils.checkpoints.loading import load_causal, load_tokenizer
from llmcrs_utils.llm import system as llm_system
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.ranking import letter_tokens
from llmcrs_utils.llm.tuning import base_of, compile_layers, load_tuned, merge, new_lora, tune
from llmcrs_utils.study.parameters import with_defaults
from llmcrs_utils.tasks.answers import restore_width, text_answer
from llmcrs_utils.tasks.dataset import write_dataset
from llmcrs_utils.text.chat import DAY, FIXED_DAY
from llmcrs_utils.text.instructions import build_instructions, render_input
from llmcrs_utils.text.prompts import CHINESE, ENGLISH, LETTERS, TEMPLATES, parse_needs
from llmcrs_utils.training.collators import causal_collator, left_padded, with_labels
from llmcrs_utils.training.decoding import continue_greedily

CUTOFF, NEW = 1024, 12
LORA = {
    "quantization_bit": 0, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target": ["q_proj", "v_proj", "down_proj"],
    "modules_to_save": ["embed_tokens", "lm_head"], "gradient_checkpointing": False, "seed": 1,
}  # fmt: skip
TUNING = {"num_train_epochs": 1, "learning_rate": 0.01, "per_device_train_batch_size": 4, "seed": 1}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny.backbone("llama"))


@pytest.fixture(scope="module")
def model():
    return load_causal(tiny.backbone("llama"))


@pytest.fixture(scope="module")
def samples():
    return tiny.some_samples(5)


@pytest.fixture(scope="module")
def instructions(samples):
    return build_instructions(samples, tiny.dataset().facts, CHINESE)


@pytest.fixture(scope="module")
def examples(instructions, tokenizer):
    return encode_instructions(instructions, tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, examples, tokenizer):
    """A tuned adapter on disk, and the tuned model itself."""
    folder = tmp_path_factory.mktemp("adapter")
    model = new_lora(tiny.backbone("llama"), **LORA)
    tune(model, examples, examples, tokenizer, output_dir=folder / "training", **TUNING)
    model.save_pretrained(folder / "saved")
    tokenizer.save_pretrained(folder / "saved")
    return folder / "saved", model.eval()


def answers_of(model, tokenizer, samples, examples, batch_size=16):
    return predict(model, tokenizer, samples, examples, CHINESE, max_new_tokens=NEW, batch_size=batch_size)


@torch.no_grad()
def next_logits(model, ids):
    """Logits after one unpadded prompt."""
    return model(input_ids=torch.tensor([ids])).logits[0, -1]


def test_the_loss_is_on_the_answer_and_its_end_only(examples, instructions, tokenizer):
    collate = causal_collator(tokenizer.pad_token_id)
    batch = collate(with_labels(examples))
    assert batch["input_ids"].shape[1] == max(len(e["prompt"] + e["answer"]) for e in examples)
    padded = [batch[name].tolist() for name in ("input_ids", "attention_mask", "labels")]
    for example, output, ids, mask, labels in zip(examples, instructions["output"], *padded, strict=True):
        answer = [label for label in labels if label != -100]
        start, end = len(example["prompt"]), len(example["prompt"]) + len(answer)
        assert labels[:start] == [-100] * start and labels[end:] == [-100] * (len(labels) - end)
        assert ids[:end] == example["prompt"] + answer and mask == [1] * end + [0] * (len(mask) - end)
        assert answer[-1] == tokenizer.eos_token_id and 1 < len(answer) <= NEW
        written = tokenizer.decode(answer[:-1])
        assert output == written or (output.startswith(written) and len(answer) == NEW)


def test_a_prompt_is_open_and_leaves_room_for_the_answer(instructions, tokenizer):
    text = instructions[instructions["task"] != "recommend"]
    longest = max(len(e["prompt"]) for e in encode_instructions(text, tokenizer, CHINESE, "plain", 4096, NEW)[0])
    examples, report = encode_instructions(text, tokenizer, CHINESE, "plain", longest + NEW - 1, NEW)
    assert (report["cut"] > 0).sum() == 1 and max(len(e["prompt"]) for e in examples) < longest
    closing = load_tokenizer(tiny.backbone("bart"))
    assert closing("鞋")["input_ids"][-1] == closing.eos_token_id
    opened = encode_instructions(instructions, closing, CHINESE, "plain", CUTOFF, NEW)[0]
    assert all(closing.eos_token_id not in example["prompt"] for example in opened)


def test_templates_put_instruction_and_input(instructions, tokenizer):
    row = instructions.iloc[[0]]
    instruction, text = row["instruction"].item(), render_input(row["lines"].item(), row["tail"].item(), CHINESE)
    (plain,), _ = encode_instructions(row, tokenizer, CHINESE, "plain", CUTOFF, NEW)
    assert plain["prompt"] == tokenizer(f"{instruction}\n{text}\n")["input_ids"]
    assert TEMPLATES["alpaca"].format(instruction="甲", input="乙") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n甲\n乙\n\n### Response: "
    )
    (alpaca,), _ = encode_instructions(row, tokenizer, CHINESE, "alpaca", CUTOFF, NEW)
    assert len(alpaca["prompt"]) > len(plain["prompt"])
    (bare,), _ = encode_instructions(row, tokenizer, CHINESE, "bare", CUTOFF, NEW)
    assert bare["prompt"] == tokenizer(f"{instruction}{text}")["input_ids"]
    with pytest.raises(ValueError, match="template 'vicuna' is unknown; known: plain, alpaca, bare, chat"):
        encode_instructions(row, tokenizer, CHINESE, "vicuna", CUTOFF, NEW)


def test_a_checkpoint_s_own_chat_template_is_used_and_cut_like_any(instructions):
    row = instructions.iloc[[0]]
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    with pytest.raises(ValueError, match="has no chat template; give template: plain"):
        encode_instructions(row, tokenizer, CHINESE, "chat", CUTOFF, NEW)
    tokenizer.chat_template = (
        "{% for m in messages %}[CLS]{{ m.content }}[SEP]{% endfor %}{% if add_generation_prompt %}答{% endif %}"
        "{% if enable_thinking is not false %}想{% endif %}"
    )
    instruction, text = row["instruction"].item(), render_input(row["lines"].item(), row["tail"].item(), CHINESE)
    (chat,), _ = encode_instructions(row, tokenizer, CHINESE, "chat", CUTOFF, NEW)
    plain = tokenizer(f"{instruction}\n{text}", add_special_tokens=False)["input_ids"]
    end, answer = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("答")
    assert chat["prompt"] == [tokenizer.bos_token_id, *plain, end, answer]
    long = instructions[instructions["task"] == "understand"].tail(1)
    whole = len(encode_instructions(long, tokenizer, CHINESE, "chat", CUTOFF, NEW)[0][0]["prompt"])
    (cut,), report = encode_instructions(long, tokenizer, CHINESE, "chat", whole + NEW - 1, NEW)
    assert report["cut"].item() == 1 and cut["prompt"][-2:] == [end, answer] and len(cut["prompt"]) < whole


DATED = "{% for m in messages %}[CLS]{{ m.content }}{% endfor %}{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/Los_Angeles"])
def test_a_chat_template_that_asks_for_the_date_is_told_one_day(instructions, monkeypatch, zone):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    tokenizer.chat_template = DATED
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    (chat,), _ = encode_instructions(instructions.iloc[[0]], tokenizer, CHINESE, "chat", CUTOFF, NEW)
    monkeypatch.undo()
    time.tzset()
    written = tokenizer("26 Jul 2024", add_special_tokens=False)["input_ids"]
    assert chat["prompt"][-len(written) :] == written


def test_the_day_is_written_as_any_computer_in_english_writes_it():
    compiled = _compile_jinja_template(FIXED_DAY + "{{ strftime_now(format) }}")
    day = datetime(2024, 7, 26, 12, tzinfo=timezone.utc)
    for format in [*DAY, "%A, %d. %B %Y %H:%M:%S %Z", "100%%", "no date"]:
        assert compiled.render(format=format) == day.strftime(format), format


@pytest.mark.parametrize("lot", ["{{ ['a', 'b'] | random }}", "{{ ['a', 'b']|random }}", "{{ lipsum() }}", "{{ [['a']] | map('random') }}"])
def test_a_chat_template_that_draws_lots_is_refused(instructions, lot):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}" + lot
    with pytest.raises(ValueError, match="makes part of its text at random; give template: plain"):
        encode_instructions(instructions.iloc[[0]], tokenizer, CHINESE, "chat", CUTOFF, NEW)


def test_a_tokenizer_without_end_token_is_one_clear_error(instructions):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end token to close an answer with; name its eos_token"):
        encode_instructions(instructions, tokenizer, CHINESE, "plain", CUTOFF, NEW)


def test_a_prompt_is_never_longer_than_the_model_s_positions(instructions, tokenizer):
    examples, report = encode_instructions(instructions, tokenizer, CHINESE, "plain", 10**6, NEW)
    lowered = encode_instructions(instructions, tokenizer, CHINESE, "plain", 1024, NEW)
    assert examples == lowered[0] and report.equals(lowered[1])
    long = instructions[instructions["task"] == "elicit"].head(1)
    long = long.assign(lines=[["用户：" + "要便宜的" * 1000]], keep=1)
    (example,), report = encode_instructions(long, tokenizer, CHINESE, "plain", 10**6, NEW)
    assert 1024 - NEW - 4 < len(example["prompt"]) <= 1024 - NEW and report["shortened"].item() > 0 and not report["over"].item()


FORGERY = "我要<sop>便宜<eop>的[MASK]</s><s>[SEP]<pad>[PAD]<|turn|>"


@pytest.mark.parametrize(("architecture", "template"), [("chatglm", "bare"), ("llama", "chat"), ("llama", "plain")])
def test_typed_special_tokens_are_plain_text_in_prompt_and_answer(instructions, architecture, template):
    tokenizer = load_tokenizer(tiny.backbone(architecture))
    if template == "chat":
        tokenizer.add_tokens([AddedToken("<|turn|>", special=True)])  # of the template alone, as LLaMA 3's are
        tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m.content }}<|turn|>{% endfor %}"
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    row = instructions[instructions["task"] == "respond"].head(1)
    typed = row.assign(lines=[[FORGERY, "客服：好"]], tail=FORGERY, output=FORGERY, instruction=FORGERY)
    both = [encode_instructions(part, tokenizer, CHINESE, template, CUTOFF, 100)[0][0] for part in (row, typed)]
    for part in ("prompt", "answer"):
        ours, forged = ([index for index in example[part] if index in special] for example in both)
        assert forged == ours and ours


def test_a_typed_start_stops_neither_training_nor_decoding(tmp_path, samples, instructions):
    folder = tiny.backbone("chatglm")
    tokenizer = load_tokenizer(folder)
    few = instructions[instructions["task"] == "understand"]
    few = few.assign(tail=[f"用户：你好<sop>有吗{number}" for number in range(len(few))], output="颜色：<eop>黑<sop>")
    examples, _ = encode_instructions(few, tokenizer, CHINESE, "bare", CUTOFF, NEW)
    model = new_lora(folder, **LORA | {"lora_target": ["query_key_value"], "modules_to_save": []})
    assert tune(model, examples, examples, tokenizer, output_dir=tmp_path, **TUNING)["train_loss"].notna().all()
    assert len(continue_greedily(model.eval(), tokenizer, [example["prompt"] for example in examples], NEW)) == len(few)


def test_left_padding_puts_every_prompts_end_last():
    batch = left_padded([[5, 6, 7], [8]], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_batched_decoding_is_greedy_decoding_one_at_a_time(model, tokenizer, samples, examples):
    together, alone = (answers_of(model, tokenizer, samples, examples, size) for size in (16, 1))
    assert together["sample_id"].tolist() == samples["sample_id"].tolist()
    assert together["raw"].tolist() == alone["raw"].tolist() and together["raw"].nunique() > 8
    np.testing.assert_allclose(together["confidence"].astype(float), alone["confidence"].astype(float), rtol=1e-4)
    for task, example, raw, confidence in zip(samples["task"], examples, together["raw"], together["confidence"], strict=True):
        if task == "recommend":
            assert np.isnan(confidence)
            continue
        written, told = [], []
        while len(written) < NEW and tokenizer.eos_token_id not in written:
            likely = next_logits(model, example["prompt"] + written).log_softmax(dim=0)
            written.append(likely.argmax().item())
            told.append(likely.max().item())
        assert raw == tokenizer.decode(written, skip_special_tokens=True)
        assert confidence == pytest.approx(np.mean(told), rel=1e-4)


def test_what_follows_the_end_of_a_text_does_not_count_in_its_confidence(model, examples):
    """Texts of different lengths in one batch: the shorter ones are padded."""
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    prompts = [example["prompt"] for example in examples[:8]]
    text, _ = continue_greedily(model, tokenizer, prompts[:1], NEW)[0]
    tokenizer.eos_token_id = tokenizer(text, add_special_tokens=False)["input_ids"][3]  # the fourth token becomes the end
    together = continue_greedily(model, tokenizer, prompts, NEW)
    alone = [continue_greedily(model, tokenizer, [prompt], NEW)[0] for prompt in prompts]
    assert [text for text, _ in together] == [text for text, _ in alone] and len({len(text) for text, _ in together}) > 1
    np.testing.assert_allclose([sure for _, sure in together], [sure for _, sure in alone], rtol=1e-4)


def test_penalties_of_a_checkpoint_do_not_reach_greedy_decoding(model, tokenizer, examples):
    prompts = [example["prompt"] for example in examples[:6]]
    plain = [text for text, _ in continue_greedily(model, tokenizer, prompts, NEW)]
    penalised = load_causal(tiny.backbone("llama"))
    penalised.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1)
    assert [text for text, _ in continue_greedily(penalised, tokenizer, prompts, NEW)] == plain
    given = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    written = penalised.generate(**left_padded(prompts, tokenizer.pad_token_id), **given)[:, -NEW:]
    assert tokenizer.batch_decode(written, skip_special_tokens=True) != plain  # else the penalties would not show


def assert_ranked_by(logits, sample, answer):
    scores = dict(zip(sample["candidates"], logits.log_softmax(dim=0).tolist(), strict=True))
    assert answer["ranking"] == sorted(scores, key=scores.get, reverse=True) and answer["text"] == answer["ranking"][0]
    np.testing.assert_allclose(answer["scores"], sorted(scores.values(), reverse=True), rtol=1e-4)
    assert answer["raw"] == LETTERS[sample["candidates"].index(answer["text"])]
    assert max(scores.values()) - min(scores.values()) > 0.1


def test_candidates_are_ranked_by_the_letters_logits(model, tokenizer, samples, examples):
    answers = answers_of(model, tokenizer, samples, examples, batch_size=5)
    letters = tokenizer.convert_tokens_to_ids(list(LETTERS))
    ranked = 0
    for sample, example, answer in zip(samples.to_dict("records"), examples, answers.to_dict("records"), strict=True):
        if sample["task"] == "recommend":
            assert_ranked_by(next_logits(model, example["prompt"])[letters], sample, answer)
            ranked += 1
    assert ranked == 5


@pytest.mark.parametrize("adapted", [False, True])
def test_letters_do_not_tie_in_bfloat16(adapter, tokenizer, samples, examples, adapted):
    model = (load_tuned(adapter[0]) if adapted else load_causal(tiny.backbone("llama"))).to(torch.bfloat16).eval()
    letters = tokenizer.convert_tokens_to_ids(list(LETTERS))
    head = model.get_output_embeddings().weight[letters].float()
    rounded = []
    answers = answers_of(model, tokenizer, samples, examples, batch_size=1)
    for sample, example, answer in zip(samples.to_dict("records"), examples, answers.to_dict("records"), strict=True):
        if sample["task"] == "recommend":
            with torch.no_grad():
                seen = model(input_ids=torch.tensor([example["prompt"]]), output_hidden_states=True)
            assert_ranked_by(head @ seen.hidden_states[-1][0, -1].float(), sample, answer)
            assert len(set(answer["scores"])) == 20 and seen.logits.dtype == torch.bfloat16
            rounded.append(len(set(seen.logits[0, -1, letters].tolist())))
    assert min(rounded) < 20


class Products(TorchDispatchMode):
    """Notes each product of matrices: its operation and the size of its last dimension."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        found = operation(*arguments, **(named or {}))
        if operation in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.seen.append((operation.overloadpacket, found.shape[-1]))
        return found


@pytest.mark.parametrize("rows", [1, 3])
def test_the_head_is_not_copied_for_each_row(tokenizer, examples, rows):
    """torch does so with frozen weights for the last states of a longer text, which takes 14 s for 16 rows of a real vocabulary."""
    model = load_causal(tiny.backbone("llama"), dtype="bfloat16").eval().requires_grad_(False)
    prompts = [example["prompt"] for example in examples[:rows]]
    with Products() as products:
        continue_greedily(model, tokenizer, prompts, 3)
    of_the_head = [operation for operation, size in products.seen if size == model.config.vocab_size]
    assert of_the_head == [torch.ops.aten.mm] * 3


def letter_tokenizer(vocabulary):
    """A tokenizer that puts a blank before a text, as LLaMA's does, and knows these pieces."""
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]")


SPECIALS = ["[UNK]", "[PAD]", "[SEP]"]


def recommend_with(tokenizer, model, samples, examples):
    """(sample, short prompt, answer) of the recommend samples, their letters tokenised by ``tokenizer``."""
    recommend = (samples["task"] == "recommend").to_numpy()
    few = [{**example, "prompt": example["prompt"][:50]} for example in np.array(examples)[recommend]]
    asked = samples[recommend].reset_index(drop=True)
    answers = answers_of(model, tokenizer, asked, few)
    return zip(asked.to_dict("records"), few, answers.to_dict("records"), strict=True)


def test_letters_of_two_tokens_are_told_apart_by_the_second(model, samples, examples):
    tokenizer = letter_tokenizer([*SPECIALS, "▁", *LETTERS])
    assert letter_tokens(tokenizer) == [[3, place] for place in range(4, 24)]
    for sample, example, answer in recommend_with(tokenizer, model, samples, examples):
        assert_ranked_by(next_logits(model, example["prompt"] + [3])[4:24], sample, answer)


def test_letters_of_one_and_of_two_tokens_are_ranked_together(model, samples, examples):
    """T is a blank and a letter, the others are one token each: all count by their whole probability."""
    tokenizer = letter_tokenizer([*SPECIALS, "▁", *(f"▁{letter}" for letter in LETTERS[:-1]), "T"])
    assert letter_tokens(tokenizer) == [*([place] for place in range(4, 23)), [3, 23]]
    for sample, example, answer in recommend_with(tokenizer, model, samples, examples):
        first = next_logits(model, example["prompt"]).log_softmax(dim=0)
        second = next_logits(model, example["prompt"] + [3]).log_softmax(dim=0)
        wanted = torch.cat([first[4:23], (first[3] + second[23])[None]]).log_softmax(dim=0)
        given = dict(zip(answer["ranking"], answer["scores"], strict=True))
        np.testing.assert_allclose([given[item] for item in sample["candidates"]], wanted.tolist(), rtol=1e-4)
        assert answer["scores"] == sorted(answer["scores"], reverse=True)


def test_a_tokenizer_that_cannot_tell_letters_apart_is_refused():
    for vocabulary in ([*SPECIALS, "▁"], [*SPECIALS, "▁", *LETTERS[:-2]]):
        with pytest.raises(ValueError, match="does not tell the letters A-T apart"):
            letter_tokens(letter_tokenizer(vocabulary))


def test_ranking_first_is_what_generating_writes(tmp_path, tokenizer, samples, examples):
    """A model tuned to choose writes a letter, and it is the letter that ranking puts first."""
    recommend = (samples["task"] == "recommend").to_numpy()
    asked, few = samples[recommend].reset_index(drop=True), list(np.array(examples)[recommend])
    tuned = new_lora(tiny.backbone("llama"), **LORA)
    tune(tuned, few, few, tokenizer, output_dir=tmp_path, **TUNING | {"num_train_epochs": 8})
    written = continue_greedily(tuned.eval(), tokenizer, [example["prompt"] for example in few], NEW)
    assert [raw for raw, _ in written] == answers_of(tuned, tokenizer, asked, few)["raw"].tolist() and {raw for raw, _ in written} <= set(LETTERS)


@pytest.mark.parametrize(
    ("task", "wrote", "meant"),
    [
        ("understand", "颜色:黑色;内存:128GB", "颜色：黑色；内存：128GB"),
        ("understand", "屏幕:6.1;价位:1,000-2,000;比例:3:1", "屏幕：6.1；价位：1,000-2,000；比例：3:1"),
        ("understand", "内存:8G;5G:是;SPF:50;接口:USB", "内存：8G；5G：是；SPF：50；接口：USB"),
        ("elicit", "CPU;GPU;SPF", "CPU；GPU；SPF"),
        ("respond", "好的,亲!这款(新款)可以吗?", "好的，亲！这款（新款）可以吗？"),
        ("respond", "平时穿多大码呢/:065", "平时穿多大码呢/:065"),
        ("respond", "看看这款哦~iPhone 13", "看看这款哦~iPhone 13"),
        ("respond", "链接:http://a.cn/b?c=1,好......10%", "链接：http://a.cn/b?c=1，好......10%"),
        ("understand", "链接:https://a.cn;https://b.cn;产地:中国", "链接：https://a.cn；https://b.cn；产地：中国"),
    ],
)
def test_full_width_signs_come_back_where_the_tokenizer_lost_them(task, wrote, meant):
    assert restore_width(task, wrote, CHINESE) == meant
    assert restore_width(task, wrote, ENGLISH) == wrote
    lost = text_answer(task, wrote, CHINESE, narrowed=True)
    assert (lost["text"], lost["raw"]) == ("".join(meant.split()), wrote)
    assert text_answer(task, wrote, CHINESE)["text"] == "".join(wrote.split())


def test_answers_of_a_tokenizer_that_loses_width_get_it_back_and_others_are_left_alone(monkeypatch, samples, instructions):
    asked = samples[samples["task"] == "understand"].reset_index(drop=True)
    monkeypatch.setattr("llmcrs_utils.llm.predict.continue_greedily", lambda model, tokenizer, prompts, limit: [("颜色:黑色;内存:128GB", -0.5)] * len(prompts))
    for architecture, text in (("chatglm", "颜色：黑色；内存：128GB"), ("llama", "颜色:黑色;内存:128GB")):
        tokenizer = load_tokenizer(tiny.backbone(architecture))
        few = encode_instructions(instructions[instructions["task"] == "understand"], tokenizer, CHINESE, "bare", CUTOFF, NEW)[0]
        answers = answers_of(load_causal(tiny.backbone(architecture)), tokenizer, asked, few)
        assert set(answers["text"]) == {text} and set(answers["raw"]) == {"颜色:黑色;内存:128GB"}
        assert answers["valid"].all() and parse_needs(text, CHINESE)[0] == (("颜色", "黑色") if architecture == "chatglm" else ("颜色:黑色;内存:128GB", ""))


def test_an_adapter_is_saved_as_peft_does_and_answers_as_before(adapter, tokenizer, samples, examples):
    folder, tuned = adapter
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert base_of(folder) == tiny.backbone("llama")
    before = answers_of(tuned, tokenizer, samples, examples)
    tiny.assert_same_answers(answers_of(load_tuned(folder), tokenizer, samples, examples), before)
    untuned = answers_of(load_causal(tiny.backbone("llama")), tokenizer, samples, examples)
    assert untuned["raw"].tolist() != before["raw"].tolist()


def test_a_loaded_adapter_is_in_the_dtype_that_it_computes_in(adapter):
    """Autocast would convert frozen matrices in float32 at every product. With a base in float32 they stay as they were tuned."""
    for dtype in ("bfloat16", "float32"):
        model = load_tuned(adapter[0], dtype=dtype)
        matrices = {parameter.dtype for name, parameter in model.named_parameters() if "lora_" in name}
        assert matrices == {getattr(torch, dtype)}


def test_lora_trains_its_own_layers_and_the_saved_modules_only():
    model = new_lora(tiny.backbone("llama"), **LORA)
    trained = {name.split("model.", 1)[1] for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    for part in ("q_proj.lora_A", "v_proj.lora_B", "down_proj.lora_A", "embed_tokens.modules_to_save", "lm_head.modules_to_save"):
        assert any(part in name for name in trained), part
    assert not any("k_proj" in name for name in trained)


def test_a_merged_checkpoint_is_a_plain_one_with_the_same_logits(tmp_path, adapter, tokenizer, examples):
    folder, tuned = adapter
    merge(folder, tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    base = load_causal(tiny.backbone("llama"))
    assert not isinstance(merged, PeftModel) and type(merged) is type(base)
    assert load_tokenizer(str(tmp_path)).get_vocab() == tokenizer.get_vocab()
    for example in examples[:4]:
        expected = next_logits(tuned, example["prompt"])
        torch.testing.assert_close(next_logits(merged, example["prompt"]), expected, rtol=1e-4, atol=1e-4)
        assert (next_logits(base, example["prompt"]) - expected).abs().max() > 0.1


def test_merging_rounds_nothing_where_computing_would(tmp_path, monkeypatch, tokenizer):
    base = load_causal(tiny.backbone("llama"))
    base.to(torch.float16).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = new_lora(str(tmp_path / "base"), **LORA | {"modules_to_save": []})
    model.save_pretrained(tmp_path / "adapter")  # untrained, it changes nothing
    tokenizer.save_pretrained(tmp_path / "adapter")
    load = AutoModelForCausalLM.from_pretrained
    rounding = {torch.float32: torch.bfloat16}  # of a base to compute with, as on a GPU
    rounded = lambda name, dtype, **rest: load(name, dtype=rounding.get(dtype, dtype), **rest)  # noqa: E731
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", rounded)
    merge(tmp_path / "adapter", tmp_path / "merged")
    merged = load(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.float16
    for name, weight in base.state_dict().items():
        assert torch.equal(merged.state_dict()[name], weight), name


MODERN = {
    "qwen3": lambda sizes: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16)),
    "glm4": lambda sizes: Glm4ForCausalLM(Glm4Config(**sizes, head_dim=16)),
    "gemma3": lambda sizes: Gemma3ForCausalLM(Gemma3TextConfig(**sizes, head_dim=16)),
}


@pytest.mark.parametrize("architecture", MODERN)
def test_any_causal_model_with_a_chat_template_tunes_ranks_and_writes(tmp_path, samples, instructions, architecture):
    """As params/modern.yaml has it; random weights, the toy's tokenizer with a template of its own."""
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}[SEP]"
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(1)
    MODERN[architecture](sizes | {"bos_token_id": tokenizer.bos_token_id}).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    check_checkpoint(str(tmp_path / "model"), "llm")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    few = encode_instructions(instructions, tokenizer, CHINESE, "chat", CUTOFF, NEW)[0]
    model = new_lora(str(tmp_path / "model"), **LORA | {"lora_target": ["all-linear"], "modules_to_save": []})
    tuned = {name.split(".lora_A")[0].rsplit(".", 1)[1] for name, p in model.named_parameters() if "lora_A" in name}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "down_proj"} <= tuned and "lm_head" not in tuned
    history = tune(model, few, few, tokenizer, output_dir=tmp_path / "saved", **TUNING)
    assert history["train_loss"].notna().all()
    answers = answers_of(load_tuned(tmp_path / "saved"), tokenizer, samples, few)
    tiny.assert_same_answers(answers, answers_of(model, tokenizer, samples, few))
    ranked = answers[(samples["task"] == "recommend").to_numpy()]
    assert (ranked["ranking"].map(len) == 20).all() and all(scores[0] > scores[-1] for scores in ranked["scores"])


PLACED = MODERN | {
    "gpt2": lambda sizes: GPT2LMHeadModel(
        GPT2Config(vocab_size=sizes["vocab_size"], n_embd=32, n_layer=2, n_head=2, n_positions=CUTOFF, initializer_range=0.2)
    ),
    "qwen2": lambda sizes: Qwen2ForCausalLM(Qwen2Config(**sizes)),
    "llama": lambda sizes: load_causal(tiny.backbone("llama")),
    "chatglm": lambda sizes: load_causal(tiny.backbone("chatglm")),
}


@pytest.mark.parametrize("architecture", PLACED)
def test_no_answer_depends_on_the_rows_beside_it(samples, instructions, architecture):
    """Each prompt alone, and among longer ones: the ranking, its scores and the text written are the same."""
    tokenizer = load_tokenizer(tiny.backbone("chatglm" if architecture == "chatglm" else "llama"))
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(1)
    model = PLACED[architecture](sizes | {"bos_token_id": tokenizer.bos_token_id}).eval()
    few = encode_instructions(instructions, tokenizer, CHINESE, "plain", CUTOFF, NEW)[0]
    if architecture != "chatglm":  # which needs the end of a prompt as it is
        few = [{**example, "prompt": example["prompt"][: 20 + 37 * place % 400]} for place, example in enumerate(few)]
    together, alone = (answers_of(model, tokenizer, samples, few, size) for size in (len(samples), 1))
    assert len({len(example["prompt"]) for example in few}) > 10
    tiny.assert_same_answers(together, alone)


@pytest.mark.parametrize(
    ("target", "saved"),
    [
        (["q_proj", "down_proj"], ["embed_tokens", "lm_head"]),
        pytest.param(["all-linear"], ["norm", "lm_head"], marks=slow),
        pytest.param(["q_proj", "down_proj"], ["norm", "lm_head"], marks=slow),
        pytest.param(["all-linear"], ["embed_tokens", "lm_head"], marks=slow),
    ],
)
def test_a_base_that_stands_still_is_held_in_bfloat16_and_what_is_trained_in_float32(tmp_path, tokenizer, samples, examples, target, saved):
    settings = LORA | {"lora_target": target, "modules_to_save": saved, "gradient_checkpointing": True, "dtype": "bfloat16"}
    model = new_lora(tiny.backbone("llama"), **settings)
    held = {trains: {p.dtype for p in model.parameters() if p.requires_grad == trains} for trains in (True, False)}
    assert held == {True: {torch.float32}, False: {torch.bfloat16}}
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad and "lora_A" not in name}
    history = tune(model, examples, examples, tokenizer, output_dir=tmp_path / "saved", **TUNING)
    assert history["train_loss"].notna().all()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    answers = answers_of(model, tokenizer, samples, examples)
    assert (answers.loc[samples["task"] == "recommend", "ranking"].map(len) == 20).all()


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="PyTorch compiles layers with a C++ compiler")
def test_compiled_layers_learn_the_same(tmp_path, tokenizer, examples):
    """And only training is compiled, not what is measured meanwhile."""
    counters = torch._dynamo.utils.counters
    start, learned, histories, measured = {}, [], [], []
    for compiles in (False, True):
        model = new_lora(tiny.backbone("llama"), **LORA)
        start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        torch._dynamo.reset()
        counters.clear()
        if compiles:
            compile_layers(model)

        def measure(_, model=model):
            before = counters["stats"]["unique_graphs"]
            with torch.no_grad():
                model(input_ids=torch.arange(9, 12)[None])
            measured.append(counters["stats"]["unique_graphs"] - before)

        histories.append(tune(model, examples, examples, tokenizer, points=[1], measure=measure, output_dir=tmp_path / str(compiles), **TUNING))
        learned.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})
        assert bool(counters["stats"]["unique_graphs"]) == compiles
    assert_frame_equal(*histories, rtol=1e-4)
    assert measured == [0, 0]
    for name, weights in learned[0].items():
        assert (learned[1][name] - weights).norm() <= 0.01 * (weights - start[name]).norm(), name


@pytest.mark.parametrize("compiles", [False, True])
def test_layers_are_compiled_if_the_parameter_says_so(tmp_path, monkeypatch, compiles):
    write_dataset(tiny.dataset(), tmp_path / "data")
    calls = []
    monkeypatch.setattr(llm_system, "compile_layers", lambda model: calls.append("compiled"))
    monkeypatch.setattr(llm_system, "tune", lambda *arguments, **options: calls.append("tuned"))
    given = {"model_name_or_path": tiny.backbone("llama"), "dataset_dir": str(tmp_path / "data"), "compile_layers": compiles}
    llm_system.train(llm_system.prepare(with_defaults("04_tune_llm", given)), tmp_path / "allm")
    assert calls == ["compiled"] * compiles + ["tuned"]


def test_layers_are_never_left_uncompiled_without_a_word(monkeypatch):
    model = new_lora(tiny.backbone("llama"), **LORA)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with pytest.raises(ValueError, match="TORCHDYNAMO_DISABLE is 1; take it away, or give compile_layers: false"):
        compile_layers(model)


CPUS = {"no": {}, "AVX512": {"avx512_f": True, "avx512_bf16": False}, "AVX512-BF16": {"avx512_bf16": True}, "AMX": {"amx_bf16": True}}


@pytest.mark.parametrize(("device", "computes"), [("no", False), ("AVX512", False), ("AVX512-BF16", True), ("AMX", True), ("GPU", True), ("old GPU", False)])
def test_auto_holds_in_bfloat16_only_a_base_that_stands_still_on_a_device_that_computes_in_it(monkeypatch, device, computes):
    folder = tiny.backbone("llama")
    dtypes = lambda model: {p.dtype for p in model.parameters()}  # noqa: E731
    assert dtypes(load_causal(folder)) == dtypes(load_causal(folder, dtype="float32")) == dtypes(new_lora(folder, **LORA)) == {torch.float32}
    assert dtypes(load_causal(folder, dtype="bfloat16")) == {torch.bfloat16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CPUS.get(device, CPUS["AMX"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device.endswith("GPU"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: computes)
    still = torch.bfloat16 if computes else torch.float32
    assert dtypes(load_causal(folder, dtype="auto")) == {still} and dtypes(load_causal(folder, for_training=True, dtype="auto")) == {torch.float32}
    assert {p.dtype for p in new_lora(folder, **LORA, dtype="auto").parameters() if not p.requires_grad} == {still}
    with pytest.raises(ValueError, match="dtype='float16' is unknown; known: auto, float32, bfloat16"):
        load_causal(folder, dtype="float16")


TARGETS = {"llama": LORA["lora_target"], "chatglm": ["query_key_value", "dense_4h_to_h"]}


@pytest.mark.parametrize(
    ("architecture", "bits"), [("llama", 4), ("chatglm", 8), pytest.param("llama", 8, marks=slow), pytest.param("chatglm", 4, marks=slow)]
)
def test_a_quantised_base_tunes_saves_reloads_and_merges(tmp_path, samples, instructions, architecture, bits):
    folder = tiny.backbone(architecture)
    tokenizer = load_tokenizer(folder)
    few = encode_instructions(instructions, tokenizer, CHINESE, "bare", CUTOFF, NEW)[0][:8]
    asked = samples[:8]
    settings = {"lora_target": TARGETS[architecture], "modules_to_save": [], "quantization_bit": bits, "gradient_checkpointing": True}
    model = new_lora(folder, **LORA | settings)
    held = [module for module in model.modules() if type(module).__name__ == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]]
    assert held and all(module.weight.dtype == {4: torch.uint8, 8: torch.int8}[bits] for module in held)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_B" in name}
    options = TUNING | {"learning_rate": 0.002, "num_train_epochs": 3}
    history = tune(model, few, few, tokenizer, output_dir=tmp_path / "saved", **options)
    assert len(history) == 3 and history["valid_loss"].iloc[-1] < history["valid_loss"].iloc[0]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)

    def logits(model):
        return torch.stack([next_logits(model.eval(), example["prompt"]) for example in few])

    reloaded = load_tuned(tmp_path / "saved", bits)
    torch.testing.assert_close(logits(reloaded), logits(model), rtol=1e-4, atol=1e-4)
    tiny.assert_same_answers(answers_of(reloaded, tokenizer, asked, few), answers_of(model, tokenizer, asked, few))

    # Merging folds the adapter into the base as it is, not as it was held: equal to the adapter on that base ...
    merge(tmp_path / "saved", tmp_path / "merged")
    merged, exact = load_causal(str(tmp_path / "merged")), load_tuned(tmp_path / "saved")
    torch.testing.assert_close(logits(merged), logits(exact), rtol=1e-3, atol=1e-3)
    answers = [answers_of(one, load_tokenizer(str(tmp_path / "merged")), asked, few) for one in (merged, exact)]
    assert answers[0]["raw"].tolist() == answers[1]["raw"].tolist()
    # ... and, by what rounding the base to few bits does to the logits, near to the adapter on the quantised one.
    distance = (logits(exact) - logits(reloaded)).abs().max() / logits(exact).std()
    assert 0 < distance < {4: 1.5, 8: 0.2}[bits]


def test_a_prompt_beyond_the_model_s_positions_is_refused_before_training():
    """Candidates and instruction cannot be cut; a model with absolute positions would end in an IndexError."""
    tokenizer = load_tokenizer(tiny.backbone("gpt2"))
    tokenizer.model_max_length = 60
    rows = build_instructions(tiny.some_samples(2), tiny.dataset().facts, CHINESE)
    with pytest.raises(ValueError, match=r"^sample \S+: \d+ tokens are left of its prompt .* the model has 60 positions; take a model with more"):
        encode_instructions(rows, tokenizer, CHINESE, "plain", 2048, 16)


def test_an_adapter_answers_on_the_base_that_it_is_given(tmp_path):
    """A base may move: where it was when the adapter was tuned does not matter."""
    shutil.copytree(tiny.backbone("llama"), tmp_path / "before")
    new_lora(str(tmp_path / "before"), **LORA).save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "before").rename(tmp_path / "after")
    model = load_tuned(tmp_path / "adapter", base=str(tmp_path / "after"))
    assert model.get_base_model().config.model_type == "llama"
