"""Understanding by sequence labelling: where spans lie, what tags tell, what is learned, read and answered."""

import shutil
from functools import cache
from itertools import pairwise

import pandas as pd
import pytest
import tiny
import torch
from conftest import SHARED, corpus_of, dialogue_of, needs_shared, said, samples_of, slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, set_seed

from llmcrs_utils.checkpoints.loading import load_encoder, load_tokenizer
from llmcrs_utils.corpus.schema import LINK_ONLY, Corpus, read_dialogues
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import merge_turns
from llmcrs_utils.text.prompts import CHINESE, ENGLISH, parse_needs
from llmcrs_utils.training.collators import causal_collator
from llmcrs_utils.typical import tagging
from llmcrs_utils.typical.models import load_model, new_model
from llmcrs_utils.typical.tagging import (
    REASONS,
    TAGGER_LAYERS,
    Span,
    Tagger,
    answer_tagger,
    chunks,
    encode,
    flat,
    seen_tagger,
    taggable,
    tagged_answer,
    tags_of,
    train_tagger,
    turn_spans,
    unexpressed,
)

SYSTEMS = list(TAGGER_LAYERS)
ANSWERS = ["split", "sample_id", "text", "ranking", "scores", "raw", "valid", "confidence", "catalogue"]


def marked(act, text, *needs):
    """One utterance with spans: (attribute, value) where the value is first found, or (attribute, value, start, end)."""
    utterance = said(act, text, [need[:2] for need in needs])
    for attribute, (_, value, *ends) in zip(utterance["attributes"], needs, strict=True):
        start = text.find(value) if value else -1
        attribute["start"], attribute["exclusive_end"] = ends or ((start, start + len(value)) if value else (-1, -1))
    return utterance


def dataset_of(corpus, prompts=CHINESE):
    return Dataset(samples_of(corpus, prompts), build_catalogue(corpus, prompts).items)


def copies_of(*utterances, times=16):
    """The same dialogue several times over, so that few epochs are many steps."""
    return [dialogue_of(*utterances, sid=f"copy{n}") for n in range(times)]


def understand(dataset, split):
    samples = dataset.split(split)
    return samples[samples["task"] == "understand"].reset_index(drop=True)


def untrained(folder, attributes, system="bert", base=None, cutoff_len=512):
    """What training leaves, without any."""
    base = base or tiny.backbone("bert")
    tokenizer = load_tokenizer(base)
    tokenizer.model_max_length = cutoff_len
    new_model(Tagger, base, 1, attributes=attributes, **TAGGER_LAYERS[system]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def published():
    """A checkpoint folder like bert-base-chinese's: vocab.txt, weights, no tokenizer.json."""
    folder = f"{tiny.FOLDER.name}/published"
    characters = sorted(set("".join(tiny.texts())) - set(" \n")) + list("需求") + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(characters), "5000", "need", "##e", "##s"]
    set_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        initializer_range=0.2, max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    with open(f"{folder}/vocab.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(words) + "\n")
    return folder


# --- spans


def test_spans_follow_their_utterances_into_the_merged_turn():
    dialogue = dialogue_of(
        marked("用户需求", "有面霜吗", ("品类", "面霜")),
        marked("用户需求", "要补水的", ("功效", "补水")),
        marked("系统提问", f"{LINK_ONLY}什么肤质呢，油皮吗{LINK_ONLY}", ("肤质", ""), ("肤质", "油皮")),
        marked("用户回答", f"油皮，{LINK_ONLY}，清爽", ("肤质", "油皮"), ("质地", "清爽")),
        marked("系统推荐", LINK_ONLY),
        marked("系统推荐", f"看{LINK_ONLY}这款{LINK_ONLY}补水", ("功效", "补水")),
        marked("系统解释", "很清爽", ("质地", "清爽")),
    )
    spans, turns = turn_spans(dialogue), merge_turns(dialogue)
    assert list(spans) == [turn.seq_no for turn in turns] == [1, 3, 4, 5]
    told = [[(s.attribute, turn.text[s.start : s.end], s.start) for s in spans[turn.seq_no]] for turn in turns]
    assert told == [
        [("品类", "面霜", 1), ("功效", "补水", 6)],
        [("肤质", "", -1), ("肤质", "油皮", 6)],
        [("肤质", "油皮", 0), ("质地", "清爽", 11)],
        [("功效", "补水", 4), ("质地", "清爽", 8)],  # after the space that joins it to the emptied first message
    ]


def spans_of(dialogues):
    return [(turn, turn_spans(d)[turn.seq_no]) for d in dialogues for turn in merge_turns(d)]


def assert_spans_hold_their_values(dialogues):
    found = spans_of(dialogues)
    for turn, spans in found:
        assert [(span.attribute, span.value) for span in spans] == turn.needs
        assert all(turn.text[span.start : span.end] == span.value for span in spans if span.value)
    return found


def test_spans_of_a_generated_corpus_hold_their_values(generated):
    found = assert_spans_hold_their_values([d for split in generated.dialogues.values() for d in split])
    assert sum(bool(span.value) for _, spans in found for span in spans) > 30
    assert any(len(turn.texts) > 1 and spans and spans[-1].start > len(turn.texts[0]) for turn, spans in found)


@needs_shared
def test_spans_of_u_need_hold_their_values():
    found = assert_spans_hold_their_values(public_dialogues())
    assert sum(bool(span.value) for _, spans in found for span in spans) == 28


def public_dialogues():
    return [d for file in ("train_dialogue.json", "uneed_examples.json") for d in read_dialogues(SHARED / file)]


def test_of_spans_that_share_characters_the_longest_stays():
    outer, inner, other = Span("功效", "不用美白", 2, 6), Span("功效", "美白", 4, 6), Span("品类", "水乳", 6, 8)
    assert flat([inner, other, outer]) == [outer, other]
    first, second = Span("颜色", "黑色", 0, 2), Span("款式", "黑色", 0, 2)
    assert flat([first, second]) == [first] and flat([second, first]) == [second]
    chain = [Span("a", "", 0, 3), Span("b", "", 2, 6), Span("c", "", 5, 8)]
    assert flat(chain) == [chain[1]]


# --- tags


@pytest.mark.parametrize(
    "tags, expected",
    [
        ([0, 1, 2, 2, 0], [(0, 1, 4)]),
        ([1, 1, 2], [(0, 0, 1), (0, 1, 3)]),
        ([0, 2, 2, 0, 4], [(0, 1, 3), (1, 4, 5)]),  # an I after O, or first of all, opens
        ([1, 4, 4], [(0, 0, 1), (1, 1, 3)]),  # so does an I of another attribute
        ([3, 0, 4], [(1, 0, 1), (1, 2, 3)]),
        ([4, 3], [(1, 0, 1), (1, 1, 2)]),
        ([0, 0], []),
        ([], []),
    ],
)
def test_tags_are_read_as_conlleval_reads_them(tags, expected):
    assert chunks(tags) == expected


TEXTS = st.text(alphabet="红蓝大小X3 ，", min_size=1, max_size=12)
PLACES = st.lists(st.tuples(st.sampled_from(["颜色", "尺码"]), st.integers(0, 11), st.integers(1, 6)), max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS, PLACES, st.booleans(), st.sampled_from([CHINESE, ENGLISH]))
def test_spans_come_back_from_their_tags(text, places, blanks_are_tokens, prompts):
    """Whatever is repeated, touches or is nested: the answer names what ``flat`` kept, in its order, each pair once."""
    ends = [min(start + length, len(text)) for _, start, length in places]
    annotated = [Span(name, text[start:end], start, end) for (name, start, _), end in zip(places, ends, strict=True)]
    attributes = ["尺码", "颜色"]
    kept = taggable(annotated, text, attributes, prompts)
    offsets = [(i, i + 1) for i, sign in enumerate(text) if blanks_are_tokens or sign != " "]
    answer = tagged_answer(text, offsets, tags_of(kept, text, offsets, attributes), attributes, prompts)
    pairs = [(span.attribute, prompts.space.join(span.value.split())) for span in kept]
    assert parse_needs(answer["text"], prompts) == list(dict.fromkeys(pairs)) and answer["valid"] == bool(pairs)
    assert all(one.end <= other.start for one, other in pairwise(kept))
    lost = [span for span in annotated if span.value.strip() and span not in kept]
    assert all(any(span.start < k.end and k.start < span.end and len(k.value) >= len(span.value) for k in kept) for span in lost)


def answered(text, tags, attributes, prompts=CHINESE):
    return tagged_answer(text, [(i, i + 1) for i in range(len(text))], tags, attributes, prompts)


def test_an_answer_names_pairs_in_order_and_each_once():
    answer = answered("白的黑的白", [1, 0, 1, 0, 1], ["颜色"])
    assert answer["text"] == answer["raw"] == "颜色：白；颜色：黑" and answer["valid"]
    assert answer["ranking"] == answer["scores"] == []
    empty = answered("白的", [0, 0], ["颜色"])
    assert empty["text"] == "" and empty["valid"] is False


def test_values_keep_their_words_and_lose_what_would_part_a_set():
    assert answered(" 冰丝 的", [1, 2, 2, 2, 0], ["材质"])["text"] == "材质：冰丝"
    assert parse_needs(answered("大；小", [1, 2, 2], ["尺码"])["text"], CHINESE) == [("尺码", "大，小")]
    assert answered("；", [1], ["尺码"])["valid"]
    english = answered(" dark  Red; blue", [3] + [4] * 15, ["Size", "Colour"], ENGLISH)
    assert english["text"] == "Colour: dark Red, blue" and parse_needs(english["text"], ENGLISH) == [("Colour", "dark Red, blue")]
    assert answered("  ", [1, 2], ["尺码"])["valid"] is False


def test_a_token_that_reaches_beyond_a_span_belongs_to_the_first_that_it_touches():
    text, offsets = "ab cd", [(0, 2), (2, 4), (4, 5)]  # the second token holds the blank and a letter
    assert tags_of([Span("x", "ab ", 0, 3)], text, offsets, ["x"]) == [1, 0, 0]
    assert tags_of([Span("x", "b", 1, 2), Span("y", "cd", 3, 5)], text, offsets, ["x", "y"]) == [1, 3, 4]
    assert tags_of([Span("x", "ab c", 0, 4), Span("y", "d", 4, 5)], text, offsets, ["x", "y"]) == [1, 2, 3]
    assert tags_of([Span("x", "a", 0, 1), Span("y", "b", 1, 2)], text, offsets, ["x", "y"]) == [1, 0, 0]


@pytest.mark.parametrize("base", [lambda: tiny.backbone("bert"), published], ids=["small", "published"])
def test_tokens_know_their_place_in_the_text(base):
    tokenizer = load_tokenizer(base())
    tokenizer.model_max_length = 64
    texts = ["想要 冰丝的X3，5000mAh", "[SEP]冰丝[MASK] [user]", "龘é 🎉冰丝", ""]
    ids, offsets = encode(texts, tokenizer)
    for text, row, places in zip(texts, ids, offsets, strict=True):
        assert row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id and len(row) == len(places) + 2
        assert "".join("".join(text[a:b] for a, b in places).split()) == "".join(text.split())
        assert not {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id} & set(row[1:-1])
        for id, (a, b) in zip(row[1:-1], places, strict=True):
            token = tokenizer.convert_ids_to_tokens(id)
            assert token == "[UNK]" or token.replace("▁", " ").removeprefix("##") == text[a:b]
    for text, places in zip(texts[:3], offsets):
        span = Span("材质", "冰丝", text.index("冰丝"), text.index("冰丝") + 2)
        answer = tagged_answer(text, places, tags_of([span], text, places, ["材质"]), ["材质"], CHINESE)
        assert answer["text"] == "材质：冰丝"


# --- what tags cannot say


@needs_shared
@pytest.mark.parametrize("base", [lambda: tiny.backbone("bert"), published], ids=["small", "published"])
def test_perfect_tags_of_u_need_miss_only_what_has_no_value(tmp_path, base):
    filler = [(f"k{n:02d}", "k", "价格区间", "高") for n in range(30)]
    corpus = corpus_of(*public_dialogues(), knowledge=filler)
    dataset = dataset_of(corpus)
    attributes = sorted({name for turn, _ in spans_of(public_dialogues()) for name, _ in turn.needs})
    counts = unexpressed(dataset, corpus, CHINESE, output_dir=untrained(tmp_path, attributes, base=base())).loc["train"]
    assert counts["no value"] == 5 and counts["expressed"] == 28 and counts["labels"] == 33
    assert counts[list(REASONS[1:])].sum() == 0 and counts["samples"] == len(understand(dataset, "train"))


def test_every_label_that_tags_cannot_tell_is_counted_with_its_reason(tmp_path):
    user, desk = "用户需求", "系统提问"
    test = dialogue_of(
        marked(desk, "什么颜色，什么颜色", ("颜色", ""), ("颜色", "")),
        marked(user, "想要好看的", ("颜色", "红", -1, -1)),
        marked(desk, "要大的红", ("颜色", "红", 0, 1), ("颜色", "红", -1, -1)),
        marked(user, "要大的", ("新奇", "大")),
        marked(desk, "黑色吗", ("颜色", "黑色"), ("款式", "黑色")),
        marked(user, "不用美白", ("功效", "美白"), ("功效", "不用美白")),
        marked(desk, "黑色要这样那样这样那样", ("颜色", "黑色")),
        marked(user, "要xl的", ("款式", "XL", 1, 3)),
        marked(desk, "5000的", ("款式", "500")),
        marked(user, "要白色，白色", ("颜色", "白色", -1, -1), ("颜色", "白色"), ("颜色", "白色")),
        marked(desk, "要红；黑", ("颜色", "红；黑")),
    )
    corpus = corpus_of(dialogue_of(marked(user, "白色的", ("颜色", "白色")), sid="s0"), test=[test])
    dataset = dataset_of(corpus)
    folder = untrained(tmp_path, ["功效", "款式", "颜色"], base=published(), cutoff_len=10)
    counts = unexpressed(dataset, corpus, CHINESE, output_dir=folder)
    assert counts.index.tolist() == ["train", "test"] and (counts.loc["train", ["labels", "expressed", "recall"]] == 1).all()
    row = counts.loc["test"]
    expected = dict.fromkeys(REASONS, 1) | {"written otherwise": 3}  # XL, and 红；黑, which a label reads as two
    assert row[list(REASONS)].to_dict() == expected
    assert row["samples"] == 11 and row["labels"] == 14 and row["expressed"] == 3
    assert row["recall"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 11) and row["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 11)


# --- the model


def batch_of(folder, texts):
    tokenizer = load_tokenizer(str(folder))
    examples = [{"input_ids": ids, "labels": []} for ids in encode(texts, tokenizer)[0]]
    return {k: v for k, v in causal_collator(tokenizer.pad_token_id)(examples).items() if k != "labels"}


UTTERANCES = ["要补水的面霜", "", "油皮，想要清爽一点的，三百以内", "好"]


@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_the_scores_of_an_utterance_do_not_depend_on_its_batch(tmp_path, system):
    model = load_model(Tagger, untrained(tmp_path, ["功效", "肤质"], system))
    emissions, mask = model.emissions(**batch_of(tmp_path, UTTERANCES))
    assert mask.sum(dim=1).tolist() == [6, 0, 15, 1] and emissions.shape == (4, 15, 5)
    tags = model.best_tags(**batch_of(tmp_path, UTTERANCES))
    assert [len(row) for row in tags] == [6, 0, 15, 1]
    for row, text in enumerate(UTTERANCES):
        alone, its_mask = model.emissions(**batch_of(tmp_path, [text]))
        torch.testing.assert_close(emissions[row, : len(text)], alone[0], rtol=1e-4, atol=1e-5)
        assert its_mask.all() and model.best_tags(**batch_of(tmp_path, [text])) == [tags[row]]


@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_only_the_bilstm_carries_words_in_both_directions(tmp_path, system, monkeypatch):
    """Over an encoder that looks at each token alone."""
    model = load_model(Tagger, untrained(tmp_path, ["功效"], system))
    words = model.encoder.embeddings.word_embeddings
    monkeypatch.setattr(Tagger, "states", lambda self, input_ids, attention_mask: words(input_ids))
    one, other_end, other_start = (model.emissions(**batch_of(tmp_path, [text]))[0][0] for text in ("补水面霜", "补水面膜", "美水面霜"))
    assert torch.equal(one[0], other_end[0]) == torch.equal(one[3], other_start[3]) == (system != "bert_bilstm_crf")
    assert not torch.equal(one[3], other_end[3]) and not torch.equal(one[0], other_start[0])


@torch.no_grad()
def test_bert_decides_for_each_token_and_the_crf_for_all(tmp_path):
    batch = batch_of(untrained(tmp_path, ["功效"], "bert_crf"), UTTERANCES)
    model = load_model(Tagger, tmp_path)
    emissions, mask = model.emissions(**batch)
    alone = [row[:length].argmax(dim=1).tolist() for row, length in zip(emissions, mask.sum(dim=1).tolist(), strict=True)]
    assert model.best_tags(**batch) == alone, "a chain that says nothing changes nothing"
    assert len({tag for row in alone for tag in row}) > 1
    model.crf.transitions[:, 1:] = -100
    model.crf.start[1:] = -100
    assert model.best_tags(**batch) == [[0] * len(row) for row in alone]
    model.crf = None
    assert model.best_tags(**batch) == alone


@torch.no_grad()
def test_the_loss_is_the_mean_over_utterances_of_how_unlikely_all_their_tags_are(tmp_path):
    untrained(tmp_path, ["功效"], "bert_crf")
    model = load_model(Tagger, tmp_path)
    texts = ["要补水的面霜", "油皮清爽"]
    batch = batch_of(tmp_path, texts)
    labels = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 0, 1, 2, -100, -100]])
    probabilities = model.emissions(**batch)[0].softmax(dim=2)
    unlikely = [-sum(probabilities[r, i, t].log() for i, t in enumerate(row) if t >= 0) for r, row in enumerate(labels.tolist())]
    expected = sum(unlikely) / 2
    assert abs(unlikely[0] - unlikely[1]) > 0.5
    torch.testing.assert_close(model(**batch, labels=labels)["loss"], expected, rtol=1e-5, atol=0)  # its transitions are all 0
    model.crf.transitions[:] = torch.tensor([[0.0, 0, -5], [-5, -5, 0], [0, -5, -5]])  # what these labels never do
    assert model(**batch, labels=labels)["loss"] < expected - 0.5
    model.crf = None
    torch.testing.assert_close(model(**batch, labels=labels)["loss"], expected, rtol=1e-5, atol=0)


# --- training and answering


@cache
def toy():
    """Dialogues to learn by heart: validation and test are the same, training has them several times over."""
    dialogues = tiny.corpus().dialogues["train"][:3]
    copies = {
        split: [d.model_copy(update={"sid": f"{split}-{time}-{d.sid}"}) for time in range(times) for d in dialogues]
        for split, times in (("train", 6), ("valid", 1), ("test", 1))
    }
    corpus = Corpus(copies, tiny.corpus().knowledge, tiny.corpus().behaviour)
    return dataset_of(corpus), corpus


@cache
def few():
    """An utterance or two, for tests that need no more."""
    user, desk = "用户需求", "系统提问"
    dialogue = [marked(user, "要补水的面霜", ("功效", "补水"), ("品类", "面霜")), marked(desk, "油皮吗", ("肤质", "油皮"))]
    corpus = corpus_of(dialogue_of(*dialogue, sid="s0"), valid=[dialogue_of(*dialogue, sid="s1")])
    return dataset_of(corpus), corpus


def needs(label):
    return parse_needs(label, CHINESE)


def trained(folder, system="bert_crf", data=None, epochs=1, seed=1, base=None, cutoff_len=64, prompts=CHINESE, lr=0.005):
    dataset, corpus = data or toy()
    return train_tagger(
        system, dataset, corpus, prompts, model_name_or_path=base or tiny.backbone("bert"), output_dir=folder,
        seed=seed, num_train_epochs=epochs, learning_rate=lr, per_device_train_batch_size=4, cutoff_len=cutoff_len,
        warmup_steps=0.1,
    )  # fmt: skip


def answers_of(folder, samples, system="bert_crf", batch_size=8, prompts=CHINESE):
    return answer_tagger(system, toy()[0], samples, prompts, output_dir=folder, batch_size=batch_size)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """System -> folder of one that learned the toy by heart, its history, and the model as training left it."""
    made = {}

    def get(system):
        if system not in made:
            folder, models = tmp_path_factory.mktemp(system), []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tagging, "new_model", lambda *args, **shape: models.append(new_model(*args, **shape)) or models[0])
                history = trained(folder, system, epochs=10 if system == "bert_bilstm_crf" else 5)
            made[system] = folder, history, models[0].eval()
        return made[system]

    return get


@pytest.mark.parametrize("system", [*(pytest.param(system, marks=slow) for system in ("bert", "bert_crf")), "bert_bilstm_crf"])
def test_each_system_learns_its_dialogues_by_heart(learned, system):
    folder, history, _ = learned(system)
    assert history["valid_loss"].iloc[-1] < 0.1 * history["valid_loss"].iloc[0]
    samples = understand(toy()[0], "test")
    answers = answers_of(folder, samples, system)
    assert answers.columns.tolist() == ANSWERS and answers["sample_id"].tolist() == samples["sample_id"].tolist()
    wanted = [{pair for pair in needs(label) if pair[1]} for label in samples["label"]]
    assert [set(needs(text)) for text in answers["text"]] == wanted
    assert answers["valid"].tolist() == [bool(pairs) for pairs in wanted] and 0 < answers["valid"].mean() < 1
    counts = unexpressed(*toy(), CHINESE, output_dir=folder).loc["test"]
    assert counts["labels"] == sum(len(set(needs(label))) for label in samples["label"])
    assert counts["expressed"] == sum(map(len, wanted))


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_saved_answers_as_what_was_trained(learned, system, tmp_path):
    folder, _, model = learned(system)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    moved = shutil.copytree(folder, tmp_path / "moved")
    batch = batch_of(folder, ["".join(row["current"]) for row in understand(toy()[0], "test").to_dict("records")])
    loaded = load_model(Tagger, moved)
    assert loaded.best_tags(**batch) == model.best_tags(**batch)
    assert all(torch.equal(p, model.state_dict()[name]) for name, p in loaded.state_dict().items())
    parts = {"bert": (True, True), "bert_crf": (True, False), "bert_bilstm_crf": (False, False)}
    assert loaded.config.shape == model.config.shape and (loaded.lstm is None, loaded.crf is None) == parts[system]
    samples = understand(toy()[0], "test")
    pd.testing.assert_frame_equal(answers_of(moved, samples, system), answers_of(folder, samples, system))


@pytest.mark.parametrize("system", SYSTEMS)
def test_answers_depend_on_neither_batch_size_nor_order(learned, system):
    samples = understand(toy()[0], "test")
    together = answers_of(learned(system)[0], samples, system, batch_size=64)
    pd.testing.assert_frame_equal(answers_of(learned(system)[0], samples, system, batch_size=1), together)
    turned = samples.iloc[::-1].reset_index(drop=True)
    again = answers_of(learned(system)[0], turned, system, batch_size=3)
    pd.testing.assert_frame_equal(again.iloc[::-1].reset_index(drop=True), together)


def inputs_of(folder, samples, monkeypatch):
    """All that the model is given, and what the notebook shows of it."""
    given = []
    with monkeypatch.context() as patch:
        record = lambda self, *read: given.extend(part.tolist() for part in read) or [[]] * len(read[0])  # noqa: E731
        patch.setattr(Tagger, "best_tags", record)
        answers_of(folder, samples, batch_size=4)
    return given, [seen_tagger("bert_crf", toy()[0], row, CHINESE, output_dir=folder) for row in samples.to_dict("records")]


def test_neither_the_label_nor_another_utterance_changes_what_is_read(learned, monkeypatch):
    folder = learned("bert_crf")[0]
    user, desk = "用户需求", "系统提问"
    before, current = marked(desk, "您好，想要什么", ("品类", "")), marked(user, "要补水的面霜", ("功效", "补水"), ("品类", "面霜"))
    relabelled = marked(user, "要补水的面霜", ("品类", "霜"), ("肤质", ""))
    after, other = marked(desk, "油皮吗", ("肤质", "油皮")), marked(desk, "多大了", ("人群", ""))
    read = []
    for dialogue in ([before, current, after], [before, relabelled, other, after], [before, current]):
        samples = samples_of(corpus_of(dialogue_of(*dialogue)))
        chosen = samples[samples["sample_id"] == "s1:2:understand"].reset_index(drop=True)
        read.append(inputs_of(folder, chosen, monkeypatch))
    alone = chosen.assign(context=[[]], label="", needs=[[]])
    read.append(inputs_of(folder, alone, monkeypatch))
    assert read[0] == read[1] == read[2] == read[3]
    assert read[0][1] == ["[CLS] 要 补 水 的 面 霜 [SEP]"]
    ids = [row for part in read[0][0][::2] for row in part]
    assert ids == [load_tokenizer(str(folder))("要补水的面霜")["input_ids"]]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path):
    weights = []
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        history = trained(tmp_path / name, "bert_bilstm_crf", seed=seed, data=few())
        assert history.columns.tolist() == ["epoch", "train_loss", "valid_loss"]
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_training_starts_from_the_checkpoints_weights(tmp_path):
    trained(tmp_path, data=few(), lr=0.0)
    begun, given = load_model(Tagger, tmp_path).encoder.state_dict(), load_encoder(tiny.backbone("bert")).state_dict()
    assert begun.keys() == given.keys() and all(torch.equal(begun[name], given[name]) for name in given)


def test_a_published_checkpoint_trains_and_answers(tmp_path):
    trained(tmp_path, base=published(), epochs=8)
    samples = understand(toy()[0], "test")
    answers = answers_of(tmp_path, samples)
    gold = [{pair for pair in needs(label) if pair[1]} for label in samples["label"]]
    hits = [len(pairs & set(needs(text))) for pairs, text in zip(gold, answers["text"], strict=True)]
    assert sum(hits) > 0.7 * sum(map(len, gold)) > 5


def test_attributes_that_training_never_saw_are_no_tags_and_no_trouble(tmp_path):
    user = "用户需求"
    train = copies_of(marked(user, "要补水的面霜", ("品类", "面霜"), ("肤质", "油皮", -1, -1)))
    valid = [dialogue_of(marked(user, "要补水的面霜", ("功效", "补水"), ("品类", "面霜")), sid="s1")]
    corpus = corpus_of(*train, valid=valid, test=[dialogue_of(marked(user, "油皮", ("肤质", "油皮")), sid="s2")])
    dataset = dataset_of(corpus)
    trained(tmp_path, data=(dataset, corpus), epochs=8)
    assert load_model(Tagger, tmp_path).config.shape["attributes"] == ["品类"]
    assert answers_of(tmp_path, understand(dataset, "valid"))["text"].tolist() == ["品类：面霜"]
    lost = unexpressed(dataset, corpus, CHINESE, output_dir=tmp_path)["attribute without a span in training"]
    assert lost.to_dict() == {"train": 0, "valid": 1, "test": 1}


def test_a_corpus_without_spans_trains_and_gives_no_usable_answer(tmp_path):
    dialogue = [said("用户需求", "要补水的面霜", [("功效", "补水")]), said("系统提问", LINK_ONLY, [("肤质", "")])]
    # Samples of like length share a batch, so that some batches have no token at all.
    corpus = corpus_of(*copies_of(*dialogue), valid=[dialogue_of(*dialogue, sid="s1")])
    dataset = dataset_of(corpus)
    for system in SYSTEMS:
        trained(tmp_path / system, system, data=(dataset, corpus))
        answers = answers_of(tmp_path / system, understand(dataset, "valid"), system, batch_size=1)  # one of them has no token
        assert answers["text"].tolist() == ["", ""] and not answers["valid"].any()
    counts = unexpressed(dataset, corpus, CHINESE, output_dir=tmp_path / "bert").loc["valid"]
    assert counts[["no span", "no value", "expressed", "recall"]].tolist() == [1, 1, 0, 0]


def test_a_corpus_with_nothing_to_understand_is_refused(tmp_path):
    corpus = corpus_of(dialogue_of(said("用户需求", "好"), said("系统提问", "好的"), sid="s0"))
    with pytest.raises(ValueError, match="nothing to understand"):
        trained(tmp_path, data=(dataset_of(corpus), corpus))


def test_a_long_utterance_loses_its_beginning_and_that_is_told(tmp_path, caplog):
    user = "用户需求"
    long = marked(user, "要面霜，" + "很" * 30 + "补水", ("品类", "面霜"), ("功效", "补水"))
    corpus = corpus_of(*copies_of(long), valid=[dialogue_of(long, sid="s1")])
    dataset = dataset_of(corpus)
    trained(tmp_path, data=(dataset, corpus), epochs=8, cutoff_len=12)
    samples = understand(dataset, "valid")
    assert answers_of(tmp_path, samples)["text"].tolist() == ["功效：补水"]
    assert "1 of 1 inputs lost the beginning of their current turn" in caplog.text
    seen = seen_tagger("bert", dataset, samples.to_dict("records")[0], CHINESE, output_dir=tmp_path)
    assert seen.split() == ["[CLS]", *"很" * 8, *"补水", "[SEP]"]
    counts = unexpressed(dataset, corpus, CHINESE, output_dir=tmp_path).loc["valid"]
    assert counts["beyond cutoff_len"] == 1 and counts["recall"] == 0.5


def test_english_is_learned_and_answered_in_words(tmp_path):
    user, desk = "用户需求", "系统提问"
    dialogue = [
        marked(user, "A red dress; cheap", ("Colour", "red"), ("Kind", "dress"), ("Price", "Cheap", 13, 18)),
        marked(desk, "Any size?", ("Size", "")),
    ]
    shop = [(f"i{n:02d}", "shop", "Colour", "blue") for n in range(30)]
    corpus = corpus_of(*copies_of(*dialogue), valid=[dialogue_of(*dialogue, sid="s1")], knowledge=shop)
    dataset = dataset_of(corpus, ENGLISH)
    trained(tmp_path, data=(dataset, corpus), epochs=10, base=published(), prompts=ENGLISH)
    answers = answers_of(tmp_path, understand(dataset, "valid"), prompts=ENGLISH)
    assert answers["text"].tolist() == ["Colour: red; Kind: dress; Price: cheap", ""]
