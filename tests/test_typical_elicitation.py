"""DiaMultiClass and DiaSeq: what they read, how they learn and choose, whose model answers."""

import json
import shutil
from itertools import permutations
from pathlib import Path

import hub
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import corpus_of, dialogue_of, said, samples_of, slow
from transformers import BertConfig, BertForMaskedLM

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.prompts import CHINESE, ENGLISH
from llmcrs_utils.training.collators import attributes_collator
from llmcrs_utils.training.trainer import QuietTrainer
from llmcrs_utils.typical.elicitation import (
    ALL,
    KINDS,
    RECORD,
    DiaMultiClass,
    DiaSeq,
    answer_elicitation,
    beam_search,
    encode,
    labelled_questions,
    seen_elicitation,
    spoken_attributes,
    train_elicitation,
)
from llmcrs_utils.typical.models import load_model, new_model

SYSTEMS = list(KINDS)
EPOCHS = 16
BEAUTY, SHOES, PHONES = "美妆行业", "鞋类行业", "手机行业"
# What is asked after which words; "推荐一款" tells nothing, so that only the category does.
ASKED = {
    BEAUTY: {"想要面膜": ["肤质", "功效"], "想要口红": ["色号"], "推荐一款": ["价位"]},
    SHOES: {"想要跑鞋": ["鞋码"], "想要靴子": ["款式", "材质", "颜色"], "推荐一款": ["性别"]},
}


def question(domain, text, asked, sid):
    needs = [(attribute, "") for attribute in asked]
    return dialogue_of(said("用户需求", text, [("品类", text)]), said("系统提问", "、".join(asked) + "呢", needs), sid=sid, domain=domain)


def toy(prompts=CHINESE, extra=(), valid_extra=()):
    """Each question twice in training, once in validation; ``extra`` dialogues besides."""
    asked = [(domain, text, names) for domain, texts in ASKED.items() for text, names in texts.items()]
    training = [question(*what, sid=f"t{n}") for n, what in enumerate(asked * 2)]
    valid = [question(*what, sid=f"v{n}") for n, what in enumerate(asked)]
    corpus = corpus_of(*training, *extra, valid=[*valid, *valid_extra], test=[question(PHONES, "推荐一款", ["价位"], "x")])
    return Dataset(samples_of(corpus, prompts), pd.DataFrame({"item_id": []}))


def trained(system, dataset, output_dir, prompts=CHINESE, **changes):
    options = {
        "model_name_or_path": tiny.backbone("bert"), "output_dir": output_dir, "seed": 1, "num_train_epochs": 1,
        "learning_rate": 0.002, "per_device_train_batch_size": 2, "cutoff_len": 512, "hidden": 128, **changes,
    }  # fmt: skip
    return train_elicitation(system, dataset, None, prompts, **options)


def elicit_samples(dataset, split):
    part = dataset.split(split)
    return part[part["task"] == "elicit"].reset_index(drop=True)


def answers_of(system, samples, output_dir, batch_size=4, prompts=CHINESE):
    return answer_elicitation(system, None, samples, prompts, output_dir=output_dir, batch_size=batch_size)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """System -> folder and history of a run that knows the toy by heart."""
    made = {}

    def get(system):
        if system not in made:
            folder = tmp_path_factory.mktemp(system)
            made[system] = folder, trained(system, toy(), folder, num_train_epochs=EPOCHS)
        return made[system]

    return get


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """System -> folder of a run of one epoch."""
    made = {}

    def get(system):
        if system not in made:
            made[system] = tmp_path_factory.mktemp(system)
            trained(system, toy(), made[system])
        return made[system]

    return get


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny.backbone("bert"), segments=True)


# --- learning and answering


@pytest.mark.parametrize("system", [pytest.param("dia_multiclass", marks=slow), "dia_seq"])
def test_what_was_asked_is_learnt_and_the_category_tells_where_words_do_not(learnt, system):
    folder, history = learnt(system)
    samples = elicit_samples(toy(), "train")
    answers = answers_of(system, samples, folder)
    assert answers["sample_id"].tolist() == samples["sample_id"].tolist() and answers["split"].unique().tolist() == ["train"]
    assert [set(text.split("；")) for text in answers["text"]] == [set(label.split("；")) for label in samples["label"]]
    if system == "dia_seq":  # which says them in the order in which the desk does
        assert answers["text"].tolist() == samples["label"].tolist()
    assert answers["valid"].all() and (answers["raw"] == answers["text"]).all() and (answers["ranking"].str.len() == 0).all()
    assert history["stage"].drop_duplicates().tolist() == ["all categories", BEAUTY, SHOES]
    assert (history.groupby("stage").size() == EPOCHS).all()
    assert history["valid_loss"].iloc[EPOCHS - 1] < 0.7 * history["valid_loss"].iloc[0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_category_goes_on_from_the_model_of_all(tmp_path, learnt, system):
    """With a rate of next to nothing it ends where it began."""
    folder, _ = learnt(system)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for note in tmp_path.glob("category_*/history.json"):
        note.unlink()
    trained(system, toy(), tmp_path, learning_rate=1e-9)
    of_all = load_model(KINDS[system], tmp_path / ALL).state_dict()
    assert sorted(path.name for path in tmp_path.glob("category_*")) == ["category_1", "category_2"]
    for number in (1, 2):
        weights = load_model(KINDS[system], tmp_path / f"category_{number}").state_dict()
        learnt_ones = load_model(KINDS[system], folder / f"category_{number}").state_dict()
        assert all(torch.allclose(weights[name], of_all[name], rtol=0, atol=1e-6) for name in of_all)
        assert not all(torch.allclose(learnt_ones[name], of_all[name], rtol=0, atol=1e-6) for name in of_all)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_category_without_a_model_is_answered_by_that_of_all(tmp_path, learnt, system):
    folder, _ = learnt(system)
    unknown = elicit_samples(toy(), "test")
    assert set(json.loads((folder / RECORD).read_text())["folders"]) == {BEAUTY, SHOES}
    samples = pd.concat([elicit_samples(toy(), "valid"), unknown], ignore_index=True)
    answers = answers_of(system, samples, folder)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    record = json.loads((folder / RECORD).read_text()) | {"folders": {}}
    (tmp_path / RECORD).write_text(json.dumps(record))
    of_all = answers_of(system, samples, tmp_path)
    assert answers["text"].iloc[-1] == of_all["text"].iloc[-1] and answers["text"].tolist() != of_all["text"].tolist()
    assert "model of all" in seen_elicitation(system, None, unknown.iloc[0].to_dict(), CHINESE, output_dir=folder)
    assert f"model of {SHOES}" in seen_elicitation(system, None, samples.iloc[4].to_dict(), CHINESE, output_dir=folder)


def test_a_category_needs_training_and_validation_samples_for_a_model_of_its_own(tmp_path):
    untested = question(PHONES, "想要手机", ["颜色"], "only-train")
    untrained = question("服装行业", "想要衬衫", ["尺码"], "only-valid")
    trained("dia_multiclass", toy(extra=(untested,), valid_extra=(untrained,)), tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    assert set(record["folders"]) == {BEAUTY, SHOES}
    assert "颜色" in record["attributes"] and "尺码" not in record["attributes"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_neither_batch_size_nor_order_changes_an_answer(learnt, system):
    folder, _ = learnt(system)
    samples = tiny.dataset().samples.query("task == 'elicit'").reset_index(drop=True)
    samples = pd.concat([samples, elicit_samples(toy(), "train")], ignore_index=True)
    assert samples["domain"].nunique() > 2
    together, alone = (answers_of(system, samples, folder, batch_size) for batch_size in (64, 1))
    tiny.assert_same_answers(together, alone)
    assert together["text"].nunique() > 3
    order = np.random.default_rng(1).permutation(len(samples))
    shuffled = answers_of(system, samples.iloc[order].reset_index(drop=True), folder, 5)
    tiny.assert_same_answers(together.iloc[order].reset_index(drop=True), shuffled)


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_saved_is_the_best_model_and_all_that_answering_needs(tmp_path, learnt, system):
    folder, history = learnt(system)
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    samples = elicit_samples(toy(), "valid")
    tiny.assert_same_answers(answers_of(system, samples, moved), answers_of(system, samples, folder))
    assert {path.suffix for path in moved.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    assert not list(moved.rglob("checkpoint-*")) and not list(moved.rglob("settings.json"))
    record = json.loads((moved / RECORD).read_text())
    tokenizer = load_tokenizer(str(moved / "tokenizer"))
    ids = encode(samples, tokenizer, CHINESE, record["cutoff_len"])
    examples = labelled_questions(KINDS[system], ids, samples["label"], record["attributes"], 7, CHINESE)
    model = load_model(KINDS[system], moved / ALL)
    collate = attributes_collator(tokenizer.pad_token_id, system == "dia_multiclass")
    with torch.no_grad():
        loss = np.mean([model(**collate([example]))["loss"].item() for example in examples])
    assert loss == pytest.approx(history[history["stage"] == "all categories"]["valid_loss"].min(), rel=1e-4)


@slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_seed_gives_the_same_models_and_another_seed_others(tmp_path, once, system):
    folders = [once(system), tmp_path / "again", tmp_path / "other"]
    for folder, seed in zip(folders[1:], (1, 2), strict=True):
        trained(system, toy(), folder, seed=seed)
    for part in (ALL, "category_2"):
        one, again, other = (load_model(KINDS[system], folder / part).state_dict() for folder in folders)
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert not all(torch.equal(one[name], other[name]) for name in one)


@slow
def test_after_a_kill_finished_models_are_not_trained_again(tmp_path, monkeypatch, once):
    real, called = QuietTrainer.train, []

    def count(self, *arguments, **options):
        called.append(Path(self.args.output_dir).name)
        if called == [ALL, "category_1", "category_2"]:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(QuietTrainer, "train", count)
    with pytest.raises(KeyboardInterrupt):
        trained("dia_seq", toy(), tmp_path)
    history = trained("dia_seq", toy(), tmp_path)
    assert called == [ALL, "category_1", "category_2", "category_2"] and len(history) == 3
    for part in (ALL, "category_1", "category_2"):
        one, other = (load_model(DiaSeq, folder / part).state_dict() for folder in (once("dia_seq"), tmp_path))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_corpus_that_asks_nothing_is_refused_by_name(tmp_path, system):
    dataset = toy()
    silent = Dataset(dataset.samples.query("split != 'valid' or task != 'elicit'"), dataset.items)
    with pytest.raises(ValueError, match="no elicit sample in the valid split"):
        trained(system, silent, tmp_path)


@pytest.mark.parametrize("system", ["dia_multiclass", pytest.param("dia_seq", marks=slow)])
def test_attributes_that_training_never_saw_do_no_harm(tmp_path, system):
    new = question(BEAUTY, "想要眼霜", ["保质期"], "n1"), question(SHOES, "想要凉鞋", ["鞋码", "鞋跟"], "n2")
    dataset = toy(valid_extra=new)
    trained(system, dataset, tmp_path)
    attributes = json.loads((tmp_path / RECORD).read_text())["attributes"]
    assert {"鞋码", "肤质"} <= set(attributes) and not {"保质期", "鞋跟", "品类"} & set(attributes)
    later = elicit_samples(dataset, "valid").tail(2).to_dict("records")
    for sample in later:
        sample["current"] = [*sample["current"], "[understand]保质期：长"]
    assert len(answers_of(system, pd.DataFrame(later), tmp_path)) == 2


# --- what is read


def shop_talk(asked=("材质",), later="好的，就要皮的"):
    """A dialogue whose second question is the one to predict; ``asked`` and ``later`` are what must not be known."""
    return dialogue_of(
        said("用户需求", "想买靴子", [("品类", "靴子"), ("价位", "高")]),
        said("系统提问", "什么款式呢", [("款式", "")]),
        said("用户回答", "低帮的吧", [("款式", "低帮"), ("风格", "休闲")]),
        said("系统提问", "还要问" + "、".join(asked), [(attribute, "") for attribute in asked]),
        said("用户回答", later, [(attribute, later) for attribute in asked]),
        domain=SHOES,
    )


def second_question(dialogue):
    samples = samples_of(corpus_of(dialogue))
    return samples[samples["task"] == "elicit"].tail(1).reset_index(drop=True)


def test_neither_the_label_nor_what_follows_changes_a_byte_of_the_input(tokenizer):
    sample = second_question(shop_talk())
    ids = encode(sample, tokenizer, CHINESE, 512)
    other = second_question(shop_talk(asked=("颜色", "鞋码"), later="都可以"))
    assert sample["label"].tolist() == ["材质"] and other["label"].tolist() == ["颜色；鞋码"]
    assert encode(other, tokenizer, CHINESE, 512) == ids
    assert encode(sample.assign(label="风格", history=[["b"]], candidates=[["a"]]), tokenizer, CHINESE, 512) == ids
    assert "材质" not in tokenizer.decode(ids[0])


def test_the_dialogue_comes_first_and_then_what_was_spoken_of_each_once(tokenizer):
    sample = second_question(shop_talk())
    assert spoken_attributes(sample.iloc[0].to_dict(), CHINESE) == ["品类", "价位", "款式", "风格"]
    text = "[user]想买靴子[system]什么款式呢[user]低帮的吧[SEP]品类；价位；款式；风格"
    assert encode(sample, tokenizer, CHINESE, 512) == [tokenizer(text)["input_ids"]]
    turns = {"context": [["[elicit]材质；颜色", "[system]问"]], "current": ["[user]答", "[understand]颜色：红"]}
    assert spoken_attributes(sample.iloc[0].to_dict() | turns, CHINESE) == ["材质", "颜色"]


def test_a_dialogue_that_begins_with_a_question_has_an_empty_input(tokenizer):
    opening = dialogue_of(said("系统提问", "要什么颜色", [("颜色", "")]), said("用户回答", "红", [("颜色", "红")]))
    ids = encode(second_question(opening), tokenizer, CHINESE, 512)
    assert ids == [[tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.sep_token_id]]


def test_what_is_too_long_loses_its_oldest_turns_and_no_attribute(tokenizer):
    sample = second_question(shop_talk()).iloc[0].to_dict()
    sample["context"] = [[f"[user]{n}{n}{n}{n}", "[understand]旧事：有"] for n in range(9)] + sample["context"]
    whole = encode(pd.DataFrame([sample]), tokenizer, CHINESE, 512)[0]
    spoken = tokenizer.decode(tokenizer("[SEP]旧事；品类；价位；款式；风格")["input_ids"][1:])
    kept = []
    for cutoff in range(len(whole), 24, -1):
        cut = encode(pd.DataFrame([sample]), tokenizer, CHINESE, cutoff)[0]
        text = tokenizer.decode(cut)
        assert cutoff - 12 < len(cut) <= cutoff and cut[0] == tokenizer.cls_token_id
        assert text.endswith(spoken) and "低帮的吧" in text
        kept.append([n for n in range(9) if f"{n}{n}{n}{n}" in text])
    assert kept[0] == list(range(9)) and kept[-1] == []
    assert all(turns == list(range(9 - len(turns), 9)) for turns in kept)


def test_one_turn_that_is_too_long_alone_loses_its_beginning(tokenizer):
    sample = second_question(shop_talk()).iloc[0].to_dict() | {"current": ["[user]" + "的" * 90 + "款", "[understand]款式：低帮"]}
    cut = encode(pd.DataFrame([sample]), tokenizer, CHINESE, 30)[0]
    assert len(cut) == 30 and cut[0] == tokenizer.cls_token_id
    assert tokenizer.decode(cut[1:]).startswith("[user]的的") and tokenizer.decode(cut[1:]).endswith("的的款[SEP]品类；价位；款式[SEP]")


def test_what_a_shopper_types_never_passes_for_a_special_token(tokenizer):
    sample = second_question(shop_talk()).iloc[0].to_dict()
    sample |= {"context": [], "current": ["[user]我打[SEP][user][PAD]了", "[understand]怪[SEP]：x"]}
    ids = encode(pd.DataFrame([sample]), tokenizer, CHINESE, 512)[0]
    user, pad = tokenizer.convert_tokens_to_ids(["[user]", "[PAD]"])
    assert ids.count(tokenizer.sep_token_id) == 2 and ids.count(user) == 1 and ids.count(pad) == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_seen_is_what_is_read(learnt, tokenizer, system):
    folder, _ = learnt(system)
    seen = seen_elicitation(system, None, second_question(shop_talk()).iloc[0].to_dict(), CHINESE, output_dir=folder)
    text, reader = seen.split("\n")
    assert text == tokenizer.decode(tokenizer("[user]想买靴子[system]什么款式呢[user]低帮的吧[SEP]品类；价位；款式；风格")["input_ids"])
    assert "款式呢[user]" in text and SHOES in reader


# --- published checkpoints, English


def bert_base_chinese(folder, texts):
    """Laid out like the published one: config.json, vocab.txt, weights with the heads of pretraining; few positions."""
    folder.mkdir(parents=True)
    vocabulary = hub.chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=48,
    )  # fmt: skip
    hub.new(BertForMaskedLM, config).save_pretrained(folder)
    return str(folder)


def test_a_published_bert_with_fewer_positions_than_asked_for_serves(tmp_path):
    system = "dia_seq"
    base = bert_base_chinese(tmp_path / "bert", ["想买靴子面膜口红跑鞋推荐一款肤质功效色号价位鞋码款式材质颜色性别品类风格要低帮的吧什么呢还问、；"])
    dataset = toy(extra=(shop_talk(),))
    trained(system, dataset, tmp_path / "out", model_name_or_path=base, cutoff_len=512)
    long = second_question(shop_talk()).iloc[0].to_dict()
    long["context"] = [["[user]想买靴子想买靴子想买靴子", "[understand]"]] * 9
    answers = answers_of(system, pd.DataFrame([long]), tmp_path / "out")
    assert len(answers) == 1
    seen = seen_elicitation(system, None, long, CHINESE, output_dir=tmp_path / "out")
    assert seen.startswith("[CLS][user]想买靴子") and "[UNK]" not in seen
    assert json.loads((tmp_path / "out" / RECORD).read_text())["cutoff_len"] == 48


@slow
def test_english_sets_are_read_and_written_as_english_does(tmp_path):
    dataset = toy(ENGLISH)
    trained("dia_seq", dataset, tmp_path, ENGLISH)
    attributes = json.loads((tmp_path / RECORD).read_text())["attributes"]
    assert {"款式", "材质", "颜色"} <= set(attributes)
    samples = elicit_samples(dataset, "test")
    sample = samples.iloc[0].to_dict() | {"current": ["[user]I want shoes", "[understand]kind of shoe: boot; size: 9"]}
    assert spoken_attributes(sample, ENGLISH) == ["kind of shoe", "size"]
    model = load_model(DiaSeq, tmp_path / ALL)
    with torch.no_grad():
        model.output.weight.zero_(), model.output.bias.zero_(), model.output.bias[-1].fill_(-99)  # it ends where it must
    model.save_pretrained(tmp_path / ALL)
    answer = answers_of("dia_seq", samples, tmp_path, prompts=ENGLISH).iloc[0]
    said_ones = answer["text"].split("; ")
    assert answer["valid"] and len(set(said_ones)) == len(said_ones) == 7 and set(said_ones) <= set(attributes)


# --- DiaMultiClass


def test_attributes_above_one_half_are_asked_and_without_any_the_answer_is_empty(tmp_path, learnt):
    folder, _ = learnt("dia_multiclass")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    samples = elicit_samples(toy(), "valid")
    attributes = json.loads((folder / RECORD).read_text())["attributes"]

    def answers_with(logits):
        for part in (ALL, "category_1", "category_2"):
            model = load_model(DiaMultiClass, tmp_path / part)
            with torch.no_grad():
                model.head[-1].weight.zero_(), model.head[-1].bias.copy_(torch.tensor(logits))
            model.save_pretrained(tmp_path / part)
        return answers_of("dia_multiclass", samples, tmp_path)

    some = [0.01 if place in (1, 4) else -0.01 for place in range(len(attributes))]
    assert set(answers_with(some)["text"]) == {f"{attributes[1]}；{attributes[4]}"}
    none = answers_with([-0.01] * len(attributes))
    assert set(none["text"]) == {""} and not none["valid"].any()


@torch.no_grad()
def test_a_positive_label_weighs_more():
    shape = {"attributes": 3, "hidden": 8}
    model = new_model(DiaMultiClass, tiny.backbone("bert"), 1, positive_weight=3.0, **shape).eval()
    batch = {"input_ids": torch.tensor([[2, 7, 3], [2, 9, 3]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    p = model(**batch)["logits"].double().sigmoid().numpy()
    y = labels.numpy()
    expected = -(3 * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert model(**batch, labels=labels)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert [len(head.weight) for head in model.head if hasattr(head, "weight")] == [8, 8, 3]


# --- DiaSeq


def sharp(attributes, max_attributes, num_beams=5, seed=1):
    """An untrained decoder with probabilities far from even."""
    shape = {"attributes": attributes, "hidden": 16, "embedding": 6, "max_attributes": max_attributes, "num_beams": num_beams}
    model = new_model(DiaSeq, tiny.backbone("bert"), seed, **shape).eval()
    with torch.no_grad():
        for parameter in [*model.decoder.parameters(), *model.output.parameters()]:
            parameter.normal_()
    return model


def log_probability(model, start, sequence):
    """Of one whole sequence behind one row of ``start``, by teacher forcing."""
    before = torch.tensor([[model.boundary, *sequence]])
    logits = model.step(before, start[None], start[None, None])[0][0].double().log_softmax(dim=-1)
    return sum(logits[place, symbol].item() for place, symbol in enumerate([*sequence, model.boundary]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("attributes, longest", [(4, 3), (3, 5), (1, 7)])
@torch.no_grad()
def test_a_beam_as_wide_as_the_space_finds_what_enumeration_finds(attributes, longest, seed):
    model = sharp(attributes, longest, seed=seed)
    start = 2 * torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    space = [list(s) for n in range(min(longest, attributes) + 1) for s in permutations(range(attributes), n)]
    found, scores = beam_search(model, start, len(space))
    for row, (sequence, value) in enumerate(zip(found, scores.tolist(), strict=True)):
        values = [log_probability(model, start[row], s) for s in space]
        assert sequence == space[int(np.argmax(values))]
        assert value == pytest.approx(max(values), rel=1e-4, abs=1e-5)


def simple_beam_search(model, start, num_beams):
    """One row, one hypothesis after the other: (log-probability, symbols, ended), the best first."""
    beam = [(0.0, [], False)]
    for length in range(model.max_attributes + 1):
        longer = [hypothesis for hypothesis in beam if hypothesis[2]]
        for score, said_ones, ended in beam:
            if not ended:
                before = torch.tensor([[model.boundary, *said_ones]])
                steps = model.step(before, start[None], start[None, None])[0][0, -1].log_softmax(dim=-1).tolist()
                longer.append((score + steps[model.boundary], said_ones, True))
                fresh = set(range(model.boundary)) - set(said_ones) if length < model.max_attributes else set()
                longer += [(score + steps[symbol], [*said_ones, symbol], False) for symbol in fresh]
        beam = sorted(longer, key=lambda hypothesis: -hypothesis[0])[:num_beams]
    return beam[0]


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@torch.no_grad()
def test_a_batch_of_beams_finds_what_one_after_the_other_finds(num_beams):
    model = sharp(6, 4)
    start = 2 * torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    found, scores = beam_search(model, start, num_beams)
    simple = [simple_beam_search(model, row, num_beams) for row in start]
    assert found == [symbols for _, symbols, _ in simple] and len({len(sequence) for sequence in found}) > 2
    np.testing.assert_allclose(scores, [score for score, _, _ in simple], rtol=1e-4, atol=1e-5)
    assert num_beams == 1 or found != beam_search(model, start, 1)[0]


@torch.no_grad()
def test_nothing_is_said_twice_and_no_more_than_may_be():
    model = sharp(10, 7)
    start = torch.randn(3, 8)
    model.output.weight.zero_()
    model.output.bias.copy_(torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0, -99]))  # the first again and again
    found, _ = beam_search(model, start, 5)
    assert [sorted(sequence) for sequence in found] == [[0, 1, 2, 3, 4, 5, 6]] * 3
    model.output.bias[-1] = 99.0
    assert beam_search(model, start, 5)[0] == [[]] * 3


@torch.no_grad()
def test_the_loss_is_the_mean_over_each_sequence_and_then_over_sequences():
    model = sharp(4, 7)
    batch = {"input_ids": torch.tensor([[2, 7, 3], [2, 9, 3]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    start = model.start(model.states(**batch)[:, 0])
    sequences = [[2, 0, 1], [3]]
    labels = torch.tensor([[2, 0, 1, 4], [3, 4, -100, -100]])
    means = [-log_probability(model, row, sequence) / (len(sequence) + 1) for row, sequence in zip(start, sequences, strict=True)]
    assert model(**batch, labels=labels)["loss"].item() == pytest.approx(np.mean(means), rel=1e-4)
    assert abs(means[0] - means[1]) > 0.1


def test_a_sequence_longer_than_may_be_is_cut_and_closed():
    labels = pd.Series(["；".join("甲乙丙丁戊己庚辛壬"), "乙；甲；乙；外"])
    examples = labelled_questions(DiaSeq, [[1], [1]], labels, list("甲乙丙丁戊己庚辛壬"), 7, CHINESE)
    assert [example["labels"] for example in examples] == [[0, 1, 2, 3, 4, 5, 6, 9], [1, 0, 9]]
    ones = labelled_questions(DiaMultiClass, [[1], [1]], labels, list("甲乙丙丁戊己庚辛壬"), 7, CHINESE)
    assert ones[0]["labels"] == [1.0] * 9 and ones[1]["labels"] == [1.0, 1.0] + [0.0] * 7
