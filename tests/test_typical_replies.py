"""GPT-2: what it reads and learns from, when it stops, what it answers."""

import json
import shutil
from pathlib import Path

import hub
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import corpus_of, dialogue_of, said, samples_of, slow
from transformers import GPT2Config, GPT2LMHeadModel

from llmcrs_utils.checkpoints.loading import load_causal
from llmcrs_utils.small.models import new_backbone, save_backbone, train_tokenizer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.prompts import CHINESE, ENGLISH
from llmcrs_utils.training.collators import causal_collator
from llmcrs_utils.typical import replies
from llmcrs_utils.typical.replies import answer_replies, encode, reply_tokenizer, seen_replies, train_replies

EPOCHS, NEW = 16, 12
SAID = {"想要面膜": "您是什么肤质呢", "价位要低": "好的", "有没有推荐": "亲，这款不错，可以看看", "谢谢": "不客气的"}
ENGLISH_SAID = {"I want a coat": "what size do you wear", "thank you": "you are welcome", "any colour": "fine"}


def toy(said_and_answered=None, prompts=CHINESE):
    """Each exchange three times in training, once in validation; longer and longer dialogues before it."""
    exchanges = list((said_and_answered or SAID).items())

    def talk(number, sid):
        first = exchanges[number % len(exchanges)]
        turns = [first] if number < len(exchanges) else [exchanges[(number + 1) % len(exchanges)], first]
        spoken = [(said("用户需求", user, [("品类", user)]), said("系统提问", staff, [("肤质", "")])) for user, staff in turns]
        return dialogue_of(*(utterance for pair in spoken for utterance in pair), sid=sid)

    training = [talk(number, f"t{number}") for number in range(2 * len(exchanges))]
    valid = [talk(number, f"v{number}") for number in range(len(exchanges))]
    return Dataset(samples_of(corpus_of(*training, valid=valid), prompts), pd.DataFrame({"item_id": []}))


def trained(dataset, output_dir, prompts=CHINESE, **changes):
    options = {
        "model_name_or_path": tiny.backbone("gpt2"), "output_dir": output_dir, "seed": 1, "num_train_epochs": 1,
        "learning_rate": 0.004, "per_device_train_batch_size": 4, "cutoff_len": 512, "max_new_tokens": NEW, **changes,
    }  # fmt: skip
    return train_replies("gpt2", dataset, None, prompts, **options)


def respond_samples(dataset, split="train"):
    part = dataset.split(split)
    return part[part["task"] == "respond"].reset_index(drop=True)


def answers_of(samples, output_dir, batch_size=4, prompts=CHINESE):
    return answer_replies("gpt2", None, samples, prompts, output_dir=output_dir, batch_size=batch_size)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Folder and history of a run that knows the toy by heart."""
    folder = tmp_path_factory.mktemp("gpt2")
    return folder, trained(toy(), folder, num_train_epochs=EPOCHS)


@pytest.fixture(scope="module")
def tokenizer():
    return reply_tokenizer(tiny.backbone("gpt2"))


def test_replies_are_learnt_with_their_end(learnt):
    folder, history = learnt
    samples = respond_samples(toy())
    answers = answers_of(samples, folder)
    known = reply_tokenizer(tiny.backbone("gpt2"))
    labels = known.batch_decode(known(samples["label"].tolist())["input_ids"], skip_special_tokens=True)
    assert answers["sample_id"].tolist() == samples["sample_id"].tolist() and answers["valid"].all()
    assert answers["text"].tolist() == labels and len(set(labels)) == 4
    assert history.columns.tolist() == ["epoch", "train_loss", "valid_loss"] and len(history) == EPOCHS
    assert history["valid_loss"].min() < 0.3 * history["valid_loss"].iloc[0]


def test_neither_batch_size_nor_order_changes_a_reply(learnt):
    folder, _ = learnt
    samples = tiny.dataset().samples.query("task == 'respond'").reset_index(drop=True)
    samples = pd.concat([samples, respond_samples(toy())], ignore_index=True)
    together, alone = (answers_of(samples, folder, size) for size in (64, 1))
    tiny.assert_same_answers(together, alone)
    assert together["text"].nunique() > 4
    order = np.random.default_rng(1).permutation(len(samples))
    shuffled = answers_of(samples.iloc[order].reset_index(drop=True), folder, 5)
    tiny.assert_same_answers(together.iloc[order].reset_index(drop=True), shuffled)


def test_what_is_saved_is_the_best_model_and_all_that_answering_needs(tmp_path, learnt, tokenizer):
    folder, history = learnt
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    samples = respond_samples(toy(), "valid")
    tiny.assert_same_answers(answers_of(samples, moved), answers_of(samples, folder))
    assert {path.suffix for path in moved.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    assert not list(moved.rglob("checkpoint-*"))
    examples = examples_of(toy(), tmp_path / "again")["valid"]
    with torch.no_grad():
        loss = load_causal(str(moved)).eval()(**causal_collator(tokenizer.pad_token_id)(examples)).loss.item()
    assert loss == pytest.approx(history["valid_loss"].min(), rel=1e-4)


@slow
def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path):
    models = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        trained(toy(), tmp_path / name, seed=seed)
        models.append(load_causal(str(tmp_path / name)).state_dict())
    one, again, other = models
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


class Seen(Exception):
    pass


def examples_of(dataset, output_dir, prompts=CHINESE, **changes):
    """What ``training.train`` is given to learn from and to choose by."""
    given = {}

    def stop(model, examples, valid_examples, collate, **options):
        given.update(train=examples, valid=valid_examples)
        raise Seen

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Seen):
        patch.setattr(replies, "train", stop)
        trained(dataset, output_dir, prompts, **changes)
    return given


def test_the_loss_is_on_the_reply_and_its_end_alone(tmp_path, tokenizer):
    samples = respond_samples(toy())
    dialogues = encode(samples, tokenizer, CHINESE, 512)
    ends = tokenizer(samples["label"].tolist(), add_special_tokens=False)["input_ids"]
    for example, dialogue, reply in zip(examples_of(toy(), tmp_path)["train"], dialogues, ends, strict=True):
        answer = [*reply, tokenizer.eos_token_id]
        assert example["input_ids"] == dialogue + answer and example["labels"] == [-100] * len(dialogue) + answer
    short = examples_of(toy(), tmp_path, max_new_tokens=4)["train"]
    answers = [[token for token in example["labels"] if token != -100] for example in short]
    assert max(map(len, answers)) == 4 and all(answer[-1] == tokenizer.eos_token_id for answer in answers)


# --- what is read


def shop_talk(reply="这款皮的", asked=("材质",), items=(), later="好的"):
    """The reply to predict is the second; everything that is a parameter must not be known."""
    act = said("系统推荐", reply, items=items) if items else said("系统提问", reply, [(attribute, "") for attribute in asked])
    return dialogue_of(
        said("用户需求", "想买面膜", [("品类", "面膜")]),
        said("系统提问", "什么功效呢", [("功效", "")]),
        said("用户回答", "要低价的", [("价位", "低价")]),
        act,
        said("用户反馈", later, [("价位", later)]),
    )


def second_reply(dialogue, prompts=CHINESE):
    samples = samples_of(corpus_of(dialogue), prompts)
    return samples[samples["task"] == "respond"].iloc[[1]].reset_index(drop=True)


def test_only_what_was_said_before_is_read(tokenizer):
    sample = second_reply(shop_talk())
    ids = encode(sample, tokenizer, CHINESE, 512)
    assert ids == [tokenizer("用户：想买面膜\n客服：什么功效呢\n用户：要低价的\n客服：")["input_ids"]]
    for other in (
        second_reply(shop_talk(reply="别的话", later="都不要")),
        second_reply(shop_talk(asked=("颜色", "款式"))),
        second_reply(shop_talk(items=("i01", "i02"))),
        sample.assign(label="别的", needs=[[["价位", "高"]]], items=[["i03"]], asked=[["鞋码"]]),
    ):
        assert encode(other, tokenizer, CHINESE, 512) == ids
    assert encode(second_reply(shop_talk()).assign(current=[["[user]要高价的"]]), tokenizer, CHINESE, 512) != ids


def test_what_is_seen_is_what_is_read(learnt, tokenizer):
    sample = second_reply(shop_talk())
    seen = seen_replies("gpt2", None, sample.iloc[0].to_dict(), CHINESE, output_dir=learnt[0])
    assert seen == tokenizer.decode(encode(sample, tokenizer, CHINESE, 512)[0]) and seen.endswith("客服：")


def test_a_dialogue_that_the_desk_opens_is_an_empty_one(tokenizer):
    samples = samples_of(corpus_of(dialogue_of(said("系统提问", "要什么颜色", [("颜色", "")]))))
    samples = samples[samples["task"] == "respond"].reset_index(drop=True)
    assert encode(samples, tokenizer, CHINESE, 512) == [tokenizer("客服：")["input_ids"]]


def test_what_is_too_long_loses_its_oldest_utterances(tokenizer):
    sample = second_reply(shop_talk()).iloc[0].to_dict()
    sample["context"] = [[f"[user]{n}{n}{n}{n}", "[understand]"] for n in range(9)] + sample["context"]
    whole = encode(pd.DataFrame([sample]), tokenizer, CHINESE, 512)[0]
    kept = []
    for limit in range(len(whole), 16, -1):
        cut = encode(pd.DataFrame([sample]), tokenizer, CHINESE, limit)[0]
        text = tokenizer.decode(cut)
        assert limit - 14 < len(cut) <= limit and cut[0] == tokenizer.bos_token_id and text.endswith("要低价的\n客服：")
        kept.append([n for n in range(9) if f"{n}{n}{n}{n}" in text])
    assert kept[0] == list(range(9)) and kept[-1] == []
    assert all(turns == list(range(9 - len(turns), 9)) for turns in kept)
    sample["current"] = ["[user]" + "的" * 90 + "款"]
    cut = encode(pd.DataFrame([sample]), tokenizer, CHINESE, 30)[0]
    assert len(cut) == 30 and cut[0] == tokenizer.bos_token_id and tokenizer.decode(cut[1:]).endswith("的的款\n客服：")
    assert tokenizer.decode(cut[1:]).startswith("用户：的的")


def test_what_is_typed_never_passes_for_a_special_token(tmp_path, tokenizer):
    dataset = toy({"我打[SEP][PAD]了": "是[SEP]吗[CLS]", "好": "嗯"})
    for example in examples_of(dataset, tmp_path)["train"]:
        assert example["input_ids"].count(tokenizer.eos_token_id) == 1 and example["input_ids"].count(tokenizer.bos_token_id) == 1
        assert tokenizer.pad_token_id not in example["input_ids"]


def test_room_for_the_dialogue_and_replies_to_learn_from_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="cutoff_len=20 .* max_new_tokens=12"):
        trained(toy(), tmp_path, cutoff_len=20)
    dataset = toy()
    silent = Dataset(dataset.samples.query("split != 'valid' or task != 'respond'"), dataset.items)
    with pytest.raises(ValueError, match="no respond sample in the valid split"):
        trained(silent, tmp_path)


def test_a_model_that_never_ends_is_stopped(tmp_path, learnt):
    shutil.copytree(learnt[0], tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "replies.json").read_text())
    (tmp_path / "replies.json").write_text(json.dumps(record | {"max_new_tokens": 2}))
    samples = respond_samples(toy())
    tokenizer = reply_tokenizer(str(tmp_path))
    short, whole = answers_of(samples, tmp_path)["raw"], answers_of(samples, learnt[0])["raw"]
    assert all(len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= 2 for text in short)
    assert all(one.startswith(other) for one, other in zip(whole, short, strict=True)) and (short != whole).any()


# --- published checkpoints, English


def chinese_gpt2(folder, texts):
    """Laid out like uer/gpt2-chinese-cluecorpussmall: BERT's vocabulary, no start or end token in the config; few positions."""
    folder.mkdir(parents=True)
    vocabulary = hub.chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": 48, "n_embd": 64, "n_head": 2, "n_layer": 1,
        "n_positions": 48, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "tokenizer_class": "BertTokenizer",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 320}}, "vocab_size": len(vocabulary),
    }  # fmt: skip
    hub.save_json(folder / "tokenizer_config.json", {"do_lower_case": False, "max_len": 1024})
    torch.save(hub.new(GPT2LMHeadModel, GPT2Config.from_dict(config)).state_dict(), folder / "pytorch_model.bin")
    hub.save_json(folder / "config.json", config)
    return str(folder)


def test_a_published_chinese_gpt2_learns_to_end_its_replies(tmp_path):
    base = chinese_gpt2(tmp_path / "base", [*SAID, *SAID.values(), "用户：客服："])
    out = tmp_path / "out"
    trained(toy(), out, model_name_or_path=base, num_train_epochs=24)
    samples = respond_samples(toy())
    long = samples.iloc[-1].to_dict()
    long["context"] = [["[user]有没有推荐谢谢", "[understand]"]] * 9
    samples = pd.concat([samples, pd.DataFrame([long])], ignore_index=True)
    answers = answers_of(samples, out)
    assert answers["text"].tolist()[:-1] == samples["label"].tolist()[:-1]
    assert json.loads((out / "replies.json").read_text())["cutoff_len"] == 48
    seen = seen_replies("gpt2", None, long, CHINESE, output_dir=out).replace(" ", "")
    assert seen.startswith("[CLS]用户：有没有推荐谢谢") and seen.endswith("客服：") and "[SEP]" not in seen and "[UNK]" not in seen


def test_english_words_stay_apart(tmp_path):
    tokenizer = train_tokenizer([f"User: {one}\nStaff: {other}" for one, other in ENGLISH_SAID.items()] * 3, "gpt2", 300)
    model = new_backbone("gpt2", tokenizer, hidden_size=64, layers=1, heads=2, max_positions=256, seed=1)
    save_backbone(model, tokenizer, tmp_path / "base")
    dataset = toy(ENGLISH_SAID, ENGLISH)
    trained(dataset, tmp_path / "out", ENGLISH, model_name_or_path=str(tmp_path / "base"), num_train_epochs=20)
    samples = respond_samples(dataset)
    assert answers_of(samples, tmp_path / "out", prompts=ENGLISH)["text"].tolist() == samples["label"].tolist()
    seen = seen_replies("gpt2", None, samples.iloc[-1].to_dict(), ENGLISH, output_dir=tmp_path / "out")
    assert "User: " in seen and seen.endswith("\nStaff:")


def test_a_tokenizer_that_ends_nothing_is_refused(tmp_path):
    base = chinese_gpt2(tmp_path / "base", list(SAID))
    tokenizer = reply_tokenizer(base)
    assert tokenizer.eos_token == "[SEP]"
    tokenizer.eos_token, tokenizer.sep_token = None, None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="neither an end token nor"):
        patch.setattr(replies, "load_tokenizer", lambda path: tokenizer)
        reply_tokenizer(base)
