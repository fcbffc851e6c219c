"""Look-up exercises: right answers, words from training alone, loss on answers, curriculum and resumption."""

from random import Random

import pandas as pd
import pytest
import tiny
import torch
from conftest import corpus_of, dialogue_of, said, shop_of, slow

from llmcrs_utils.checkpoints.loading import load_causal, load_tokenizer
from llmcrs_utils.evaluation.figures import lookup_curve
from llmcrs_utils.small import exercises
from llmcrs_utils.small.exercises import (
    draw_exercises,
    encode_pieces,
    held_out_lookups,
    lookup_accuracy,
    made_up_items,
    make_shelf,
    pretrain_with_exercises,
    spoken_words,
    write_exercise,
)
from llmcrs_utils.text.instructions import candidate_facts
from llmcrs_utils.text.prompts import CHINESE, ENGLISH, LETTERS
from llmcrs_utils.training.trainer import QuietTrainer

CAUSAL = ("llama", "chatglm")


@pytest.fixture(scope="module")
def shelf():
    return make_shelf(tiny.corpus().knowledge, tiny.corpus().dialogues["train"], CHINESE)


@pytest.fixture(params=CAUSAL)
def architecture(request):
    return request.param


def read_list(text: str, prompts) -> dict[str, dict[str, str]]:
    """Letter -> relation -> value, of the list as it stands in a prompt."""
    listed = text.rstrip("\n").split(prompts.candidates)[1]
    items = {}
    for member in listed.split(prompts.items):
        letter, facts = member.split(prompts.candidate.format(letter=""), 1)
        linked = prompts.fact.format(attribute="", values="")
        items[letter] = dict(fact.split(linked, 1) for fact in facts.split(prompts.facts))
    return items


def plain_shelf(prompts):
    """Shops without shoppers: every question is in the catalogue's words."""
    return make_shelf(tiny.corpus().knowledge, [], prompts)


@pytest.mark.parametrize("prompts", [CHINESE, ENGLISH], ids=["zh", "en"])
def test_every_answer_is_the_one_that_fits_and_ranks_first(prompts):
    shelf, random = plain_shelf(prompts), Random(1)
    seen = {"before": 0, "letter": 0, "facts": 0, "ranked": 0}
    for _ in range(300):
        items = made_up_items(shelf, random.choice((2, 5, 20)), random)
        pieces = write_exercise(items, shelf, prompts, random)
        opening = pieces[0][0]
        listed = read_list(opening, prompts)
        assert list(listed) == list(LETTERS[: len(items)]) and list(listed.values()) == items
        head = opening.split(prompts.candidates)[0]
        ranked = head.split(prompts.help["recommend"])[1].strip().split(prompts.values) if prompts.help["recommend"] in head else None
        assert ranked is None or sorted(ranked) == list(listed)
        seen["ranked"] += ranked is not None
        questions = [head.split(prompts.help["recommend"])[0]]
        answers = [text for text, is_answer in pieces if is_answer]
        if len(pieces) == 1 or not pieces[1][1]:
            assert not questions[0] and ranked is None
            questions = []
        questions += [text for text, is_answer in pieces[1:] if not is_answer]
        for question, answer in zip(questions, answers, strict=True):
            wanted = question.strip("\n").removeprefix(prompts.user)
            if not wanted:  # nothing but a ranking to go by
                assert answer == ranked[0]
                continue
            seen["before"] += question == questions[0] and bool(pieces[1][1])
            if wanted in listed:
                seen["facts"] += 1
                assert read_list(prompts.candidates + prompts.candidate.format(letter=wanted) + answer, prompts)[wanted] == listed[wanted]
                continue
            seen["letter"] += 1
            whole = prompts.candidate.format(letter="X") + wanted
            fits = [
                letter for letter, facts in listed.items()
                if wanted in {f"{relation}{prompts.pair}{value}" for relation, value in facts.items()} | set(facts.values())
                or whole == prompts.candidate.format(letter="X") + exercises.description(facts, prompts)
            ]  # fmt: skip
            # A value alone may be one of several relations: the answer has to be among those that fit, first by rank.
            assert answer in fits and (ranked is None or prompts.pair not in wanted or answer == min(fits, key=ranked.index))
    assert all(count > 20 for count in seen.values()), seen


def test_a_list_of_an_exercise_stands_as_it_does_in_a_recommendation(shelf):
    items = made_up_items(shelf, 3, Random(2))
    text = write_exercise(items, shelf, CHINESE, Random(2))[0][0]
    facts = {f"i{n}": exercises.description(item, CHINESE) for n, item in enumerate(items)}
    assert CHINESE.candidates + candidate_facts(list(facts), facts, CHINESE, CHINESE.candidate) + "\n" in text


def shoes(words: str, item: str, sid: str, user: str = "u1"):
    return dialogue_of(said("用户需求", f"想要{words}的", [("价位", words)]), said("系统推荐", "看", [], [item]), sid=sid, user=user)


def test_what_shoppers_mean_is_counted_in_what_they_were_recommended():
    items = {f"{kind}{n}": {"价格区间": kind, "颜色": "红" if n % 2 else "蓝"} for kind in ("高", "低") for n in range(6)}
    dialogues = [shoes("贵点", f"高{n}", f"a{n}") for n in range(5)] + [shoes("便宜", f"低{n}", f"b{n}") for n in range(5)]
    dialogues += [shoes("随缘", f"{'高低'[n % 2]}{n}", f"c{n}") for n in range(2)]
    dialogues += [shoes("超值", f"低{n}", f"d{n}") for n in range(2)]  # told apart from chance by nothing
    meant = spoken_words(dialogues, items, CHINESE, min_support=3)
    assert meant == {
        ("价格区间", "高"): ["价位：贵点", "贵点", "想要贵点的"],
        ("价格区间", "低"): ["价位：便宜", "便宜", "想要便宜的"],
    }
    assert spoken_words(dialogues, items, CHINESE, min_support=6) == {}


def test_shoppers_words_are_used_and_those_of_validation_and_test_are_not():
    knowledge = [(f"{kind}{n}", "shop", "价格区间", kind) for kind in ("高", "低") for n in range(6)]
    knowledge += [(item, "shop", "一级类目", "1801") for item, *_ in knowledge]
    train = [shoes("贵点", f"高{n}", f"a{n}") for n in range(5)] + [shoes("便宜", f"低{n}", f"b{n}") for n in range(5)]
    other = [shoes("不差钱", f"高{n}", f"v{n}") for n in range(5)]
    corpus = corpus_of(*train, knowledge=knowledge, valid=other, test=other)
    shelf = make_shelf(corpus.knowledge, corpus.dialogues["train"], CHINESE)
    drawn = [text for n in range(100) for text, _ in write_exercise(made_up_items(shelf, 4, Random(n)), shelf, CHINESE, Random(n))]
    questions = "".join(text for text in drawn)
    assert "贵点" in questions and "想要便宜的" in questions and "价格区间：高" in questions
    assert "不差钱" not in questions


def test_the_loss_is_on_answers_alone_and_a_mask_stands_before_the_first(shelf, architecture):
    tokenizer = load_tokenizer(tiny.backbone(architecture))
    pieces = [("用户：贵点\n", False), ("A", True), ("\n用户：B\n", False), ("价格区间是高", True)]
    (example,) = encode_pieces([pieces], tokenizer)
    asked = [token for token in example["labels"] if token != -100]
    assert tokenizer.decode(asked, skip_special_tokens=True).replace(" ", "") == "A价格区间是高" and asked[-1] == tokenizer.eos_token_id
    assert all(label in (-100, token) for label, token in zip(example["labels"], example["input_ids"], strict=True))
    prompt = tokenizer("用户：贵点\n")["input_ids"]
    assert example["input_ids"][: len(prompt)] == prompt and example["labels"][: len(prompt)] == [-100] * len(prompt)


def test_drawn_exercises_have_the_tokens_asked_for_evenly_by_size(shelf):
    tokenizer = load_tokenizer(tiny.backbone("llama"))
    drawn = draw_exercises(tokenizer, shelf, CHINESE, (2, 20), 20_000, Random(1))
    lengths = [len(example["input_ids"]) for example in drawn]
    assert 20_000 <= sum(lengths) < 23_000
    assert drawn == draw_exercises(tokenizer, shelf, CHINESE, (2, 20), 20_000, Random(1))
    assert drawn != draw_exercises(tokenizer, shelf, CHINESE, (2, 20), 20_000, Random(2))
    assert tokenizer.unk_token_id not in {token for example in drawn for token in example["input_ids"]}


def test_held_out_lists_are_the_catalogue_s_own_and_ask_for_what_one_candidate_has(shelf):
    own = {exercises.description(item, CHINESE) for items in shelf.items.values() for item in items}
    lookups = held_out_lookups(shelf, CHINESE, sizes=(4, 20), count=40)
    assert set(lookups["size"]) == {4, 20} and len(lookups) > 60
    for row in lookups.itertuples():
        listed = read_list(row.prompt.split("\n" + CHINESE.user)[0], CHINESE)
        assert len(listed) == row.size and {exercises.description(item, CHINESE) for item in listed.values()} <= own
        asked = next(line for line in row.prompt.split("\n") if line.startswith(CHINESE.user)).removeprefix(CHINESE.user)
        relation, value = asked.split(CHINESE.pair, 1)
        assert [letter for letter, facts in listed.items() if facts.get(relation) == value] == [row.answer]


class Knowing(torch.nn.Module):
    """Stands for a model: it gives a fixed letter the highest score at every place."""

    def __init__(self, config, favourite: int, vocabulary: int):
        super().__init__()
        self.config, self.favourite, self.vocabulary, self.device = config, favourite, vocabulary, torch.device("cpu")

    def forward(self, input_ids, attention_mask):
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        logits[..., self.favourite] = 1.0
        return type("Output", (), {"logits": logits})


def test_accuracy_is_the_share_of_lists_whose_letter_is_the_likeliest(shelf, architecture):
    model, tokenizer = load_causal(tiny.backbone(architecture)), load_tokenizer(tiny.backbone(architecture))
    lookups = held_out_lookups(shelf, CHINESE, sizes=(4, 20), count=30)
    letter = tokenizer("C", add_special_tokens=False)["input_ids"][-1]
    always = lookup_accuracy(Knowing(model.config, letter, len(tokenizer)), tokenizer, lookups)
    assert always.tolist() == (lookups["answer"] == "C").tolist() and 0 < always.mean() < 0.5
    one_by_one = pd.concat([lookup_accuracy(model, tokenizer, lookups.iloc[[n]]) for n in range(6)])
    assert one_by_one.tolist() == lookup_accuracy(model, tokenizer, lookups).tolist()[:6]


def test_accuracy_reads_the_state_that_writes_the_letter(shelf, architecture):
    """A model tuned to answer one look-up answers it: the state read is the one that was trained."""
    model, tokenizer = load_causal(tiny.backbone(architecture)), load_tokenizer(tiny.backbone(architecture))
    lookups = held_out_lookups(shelf, CHINESE, sizes=(4,), count=1)
    for answer in "AD":
        lookups["answer"] = answer
        (example,) = encode_pieces([[(lookups["prompt"].iloc[0], False), (answer, True)]], tokenizer)
        batch = {name: torch.tensor([ids]) for name, ids in example.items()}
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(8):
            model(**batch).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        assert lookup_accuracy(model, tokenizer, lookups).tolist() == [True]


@slow
@pytest.mark.parametrize("architecture", ["llama", "chatglm"])
def test_training_in_rounds_reads_what_was_asked_for_and_goes_on_after_a_kill(shelf, architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "ROUNDS", 3)
    monkeypatch.setattr(exercises, "LOOKUPS", 5)
    tokenizer = load_tokenizer(tiny.backbone(architecture))

    def run(folder, killed_in_round=None):
        model = load_causal(tiny.backbone(architecture), for_training=True)
        rounds = []

        def train(trainer, *args, **options):
            rounds.append(trainer.train_dataset.examples)
            if len(rounds) == killed_in_round:
                raise KeyboardInterrupt
            return original(trainer, *args, **options)

        monkeypatch.setattr(QuietTrainer, "train", train)
        history = pretrain_with_exercises(
            model, tokenizer, tiny.texts(), shelf, CHINESE, exercise_tokens=6000, block_size=64, seed=1, num_train_epochs=1.0,
            learning_rate=0.003, per_device_train_batch_size=8, output_dir=folder,
        )  # fmt: skip
        return model, history, rounds

    original = QuietTrainer.train
    model, history, rounds = run(tmp_path / "whole")
    assert len(history) == 3 and {"train_loss", "valid_loss", "accuracy_4", "accuracy_20"} <= set(history)
    assert history["train_loss"].iloc[-1] < 0.9 * history["train_loss"].iloc[0]
    assert 6000 <= history["exercise_tokens"].iloc[-1] < 10_000 and history["exercise_tokens"].is_monotonic_increasing
    blocks = [[tuple(example["input_ids"]) for example in part if "labels" not in example] for part in rounds]
    assert len({block for part in blocks for block in part}) == sum(map(len, blocks)) > 10  # one pass: no text twice
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    longest = [max(len(example["input_ids"]) for example in part if "labels" in example) for part in rounds]
    assert longest[0] < longest[-1]  # lists grow

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed_in_round=3)
    again, whole_history, rounds = run(tmp_path / "killed")
    assert len(rounds) == 1
    pd.testing.assert_frame_equal(whole_history, history, check_exact=False, rtol=1e-6)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_a_catalogue_too_small_for_held_out_lists_has_exercises_and_no_accuracy(architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "ROUNDS", 2)
    knowledge = corpus_of(knowledge=shop_of("shop", ["i1", "i2", "i3"])).knowledge
    shelf = make_shelf(knowledge, [], CHINESE)
    lookups = held_out_lookups(shelf, CHINESE)
    model, tokenizer = load_causal(tiny.backbone(architecture)), load_tokenizer(tiny.backbone(architecture))
    assert lookups.empty and list(lookups) == ["size", "place", "prompt", "answer"]
    assert lookup_accuracy(model, tokenizer, lookups).empty
    history = pretrain_with_exercises(
        model, tokenizer, tiny.texts(), shelf, CHINESE, exercise_tokens=1000, block_size=64, seed=1, num_train_epochs=0.2,
        learning_rate=0.003, per_device_train_batch_size=8, output_dir=tmp_path,
    )  # fmt: skip
    assert len(history) == 2 and not [name for name in history if name.startswith("accuracy_")]
    (axes,) = lookup_curve(history, "title").axes
    assert not axes.lines and "too small" in axes.texts[0].get_text()


def test_the_curve_shows_each_length_of_list_and_its_chance_level():
    history = pd.DataFrame({"exercise_tokens": [1e6, 2e6], "accuracy_4": [0.25, 0.9], "accuracy_20": [0.05, 0.5]})
    (axes,) = lookup_curve(history, "title").axes
    assert [line.get_ydata()[0] for line in axes.lines] == [0.25, 0.25, 0.05, 0.05]
    assert axes.lines[0].get_xdata().tolist() == [1.0, 2.0]
