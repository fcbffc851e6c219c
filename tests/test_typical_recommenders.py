"""Bert, SASRec and TG-CRS: what they read, what they learn from, how they rank candidates and the whole catalogue."""

from dataclasses import replace

import hub
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import corpus_of, dialogue_of, said, slow
from transformers import BertConfig, BertForMaskedLM, set_seed

from llmcrs_utils.behaviour.sasrec import SASRec
from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE, ENGLISH
from llmcrs_utils.training.collators import recommender_collator
from llmcrs_utils.training.trainer import QuietTrainer
from llmcrs_utils.typical import recommenders
from llmcrs_utils.typical.models import load_model, new_model
from llmcrs_utils.typical.recommenders import (
    MODELS,
    NO_CHOICE,
    BehaviourRec,
    answer_recommender,
    coldness,
    inputs_of,
    made_in,
    seen_recommender,
    train_recommender,
    training_sequences,
)

SYSTEMS = list(MODELS)
DIM, SLOTS = 8, 6


def recommend_samples(split="train", dataset=None):
    return (dataset or tiny.dataset()).split(split).query("task == 'recommend'").reset_index(drop=True)


def trained(system, folder, dataset=None, corpus=None, prompts=CHINESE, **changes):
    options = {
        "model_name_or_path": None if system == "sasrec" else tiny.backbone("bert"), "seed": 1, "num_train_epochs": 2,
        "learning_rate": 0.01, "per_device_train_batch_size": 8, "cutoff_len": 256, "item_dim": 16, "behaviour_epochs": 1, **changes,
    }  # fmt: skip
    return train_recommender(system, dataset or tiny.dataset(), corpus or tiny.corpus(), prompts, output_dir=folder, **options)


def answers_of(system, folder, samples, batch_size=8, dataset=None, prompts=CHINESE):
    return answer_recommender(system, dataset or tiny.dataset(), samples, prompts, output_dir=folder, batch_size=batch_size)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """System -> the folder of a model that learned the toy corpus for some epochs, and its history."""
    made = {}

    def get(system):
        if system not in made:
            folder = tmp_path_factory.mktemp(system)
            made[system] = folder, trained(system, folder, num_train_epochs=6)
        return made[system]

    return get


# The behaviour encoder


@pytest.fixture(scope="module")
def encoder():
    set_seed(3)
    encoder = SASRec(DIM, SLOTS).eval()
    torch.nn.init.normal_(encoder.positions.weight)
    return encoder


def actions(*seeds):
    return torch.stack([torch.randn(DIM, generator=torch.Generator().manual_seed(seed)) for seed in seeds])[None]


@torch.no_grad()
def test_no_state_sees_a_later_action(encoder):
    states = encoder.states(actions(1, 2, 3, 4, 5))
    later = encoder.states(actions(1, 2, 3, 8, 9))
    torch.testing.assert_close(later[:, :3], states[:, :3], rtol=1e-5, atol=1e-6)
    assert (later[:, 3:] - states[:, 3:]).abs().amax(dim=-1).min() > 0.05
    assert (encoder.states(actions(7, 2, 3, 4, 5)) - states).abs().amax(dim=-1).min() > 0.05  # all see the first


@torch.no_grad()
def test_no_state_sees_a_pad(encoder):
    padded = torch.cat([actions(1, 2, 3), torch.full((1, 3, DIM), 5.0)], dim=1)
    torch.testing.assert_close(encoder.states(padded)[:, :3], encoder.states(actions(1, 2, 3)), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_state_after_the_last_action_is_one_of_all_states(encoder):
    both = torch.cat([actions(1, 2, 3, 4), actions(5, 6, 7, 8)])
    states = encoder.states(both)
    assert torch.equal(encoder(both, torch.tensor([4, 2])), torch.stack([states[0, 3], states[1, 1]]))


# SASRec's own training


def behaviour_model(n_items=30, negatives=4096, seed=1):
    model = new_model(BehaviourRec, None, seed, n_items=n_items, item_dim=DIM, max_history=SLOTS, negatives=negatives)
    with torch.no_grad():
        model.item_embedding.weight[:-1].normal_(generator=torch.Generator().manual_seed(seed))
        model.item_bias.normal_(generator=torch.Generator().manual_seed(seed + 1))
    return model.eval()


@torch.no_grad()
def test_every_action_is_predicted_from_those_before_it():
    model = behaviour_model()
    batch = recommender_collator(0, 30)([
        {"history": [3, 7], "gold": [3, 7, 9]}, {"history": [4, 5, 6], "gold": [NO_CHOICE, NO_CHOICE, NO_CHOICE, 2]}
    ])  # fmt: skip
    losses = []
    for history, right in (([], 3), ([3], 7), ([3, 7], 9), ([4, 5, 6], 2)):
        scores = model.scores(torch.tensor([history], dtype=torch.long), torch.tensor([len(history)]))
        losses.append(-scores.log_softmax(dim=1)[0, right])
    assert torch.stack(losses).std() > 0.1
    torch.testing.assert_close(model(**batch)["loss"], torch.stack(losses).mean(), rtol=1e-5, atol=0)


@torch.no_grad()
def test_drawn_wrong_items_estimate_the_whole_catalogue():
    model = behaviour_model(n_items=400, negatives=100)
    states, gold = torch.randn(20, DIM, generator=torch.Generator().manual_seed(1)) / 2, torch.arange(20)
    whole = model.choice_loss(states, gold)
    set_seed(1)
    drawn = torch.stack([model.train().choice_loss(states, gold) for _ in range(50)])
    assert whole > 1 and drawn.std() > 0.01
    torch.testing.assert_close(drawn.mean(), whole, rtol=0.03, atol=0)
    model.negatives = 399
    assert torch.equal(model.choice_loss(states, gold), whole)


@torch.no_grad()
def test_the_right_item_is_never_drawn_as_a_wrong_one():
    model = behaviour_model(n_items=40, negatives=30).train()
    model.item_bias[:] = 0
    model.item_bias[5] = 50.0
    assert model.choice_loss(torch.zeros(4, DIM), torch.full((4,), 5)) < 1e-6


def test_the_pad_is_no_item():
    model = behaviour_model().train()
    batch = recommender_collator(0, 30)([{"history": [3], "gold": [3, 7]}, {"history": [4, 5, 6], "gold": [4, 5, 6, 2]}])
    model(**batch)["loss"].backward()
    assert model.item_embedding.weight.grad[30].abs().max() == 0 and model.item_embedding.weight.grad[29].abs().max() > 0


def behaviour(*actions):
    """(user, item, minute) of 2022-09-18, at 13 o'clock."""
    return [("shop", user, item, f"2022-09-18 13:{minute:02d}:00", "0") for user, item, minute in actions]


def recommending(item, user="u1", sid="s1"):
    """A dialogue at 14 o'clock."""
    return dialogue_of(said("用户需求", "有卫衣吗"), said("系统推荐", "看看这款", items=[item]), sid=sid, user=user)


def dataset_of(corpus, prompts=CHINESE):
    catalogue = build_catalogue(corpus, prompts)
    return Dataset(build_samples(corpus, catalogue, prompts), catalogue.items)


def test_training_shoppers_teach_in_order_of_time_and_others_nothing():
    acted = behaviour(("u1", "i02", 3), ("u1", "i01", 1), ("u9", "i05", 2), ("u9", "gone", 3), ("u9", "i04", 4), ("u1", "i07", 5))
    barred = behaviour(("v1", "i08", 1), ("t1", "i09", 1))
    dialogues = {"valid": [recommending("gone", "v1", "s2")], "test": [recommending("i03", "t1", "s3")]}
    corpus = corpus_of(recommending("i01"), behaviour=acted + barred, **dialogues)
    dataset = dataset_of(corpus)

    def told(**settings):
        sequences = training_sequences(corpus, dataset, **{"max_history": 50, "max_sequences": 9, "seed": 1, **settings})
        return [[dataset.items["item_id"][column] for column in actions] for actions in sequences]

    # "gone" is named by a dialogue alone: it would give that dialogue's answer away
    assert "gone" in dataset.index and told() == [["i01", "i02", "i07"], ["i05", "i04"]]
    assert told(max_history=1) == [["i02", "i07"], ["i05", "i04"]]
    assert {tuple(*told(max_sequences=1, seed=seed)) for seed in range(9)} == {("i01", "i02", "i07"), ("i05", "i04")}


def test_what_comes_next_is_learned_and_the_popular_serves_who_did_nothing(tmp_path):
    """Shoppers go round i00, i01, i02, i03; most begin with i02."""
    walks = [(start + step) % 4 for start in (2, 2, 2, 2, 2, 0, 1, 3) for step in range(4)]
    acted = behaviour(*((f"x{n // 4}", f"i0{item}", n % 4) for n, item in enumerate(walks)))
    asker = behaviour(("u1", "i00", 1), ("u1", "i01", 2))
    others = {"valid": [recommending("i02", "u1", "s2")], "test": [recommending("i02", "nobody", "s3")]}
    corpus = corpus_of(recommending("i02"), behaviour=acted + asker, **others)
    dataset = dataset_of(corpus)
    trained("sasrec", tmp_path, dataset, corpus, num_train_epochs=40, learning_rate=0.02)
    (told,) = answers_of("sasrec", tmp_path, recommend_samples("train", dataset), dataset=dataset)["catalogue"]
    (blank,) = answers_of("sasrec", tmp_path, recommend_samples("test", dataset), dataset=dataset)["catalogue"]
    assert told[0] == blank[0] == "i02"
    row = recommend_samples("train", dataset)
    for history, following in ((["i03"], "i00"), (["i02", "i03", "i00"], "i01"), (["i01", "i02"], "i03")):
        (best,) = answers_of("sasrec", tmp_path, row.assign(history=[history]), dataset=dataset)["catalogue"]
        assert best[0] == following


# All three


@pytest.mark.parametrize("system", [pytest.param("bert_rec", marks=slow), "tg_crs"])
def test_an_encoder_can_learn_all_it_is_shown(tmp_path, system):
    samples = recommend_samples()
    shown = tiny.dataset().samples.query("split == 'train' and task == 'recommend'")
    dataset = replace(tiny.dataset(), samples=pd.concat([shown, shown.assign(split="valid")], ignore_index=True))
    trained(system, tmp_path, dataset, num_train_epochs=20, behaviour_epochs=0)
    answers = answers_of(system, tmp_path, samples)
    assert (answers["text"] == samples["label"]).mean() > 0.9
    # some turns recommend two items
    assert np.mean([label in best[:2] for best, label in zip(answers["catalogue"], samples["label"], strict=True)]) > 0.9


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_saved_model_is_the_one_that_did_best(runs, system):
    folder, history = runs(system)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    dataset, samples = tiny.dataset(), recommend_samples("valid")
    record, tokenizer = made_in(folder, system, dataset.index)
    examples = inputs_of(system, samples, dataset.index, tokenizer, CHINESE, record)
    batch = recommender_collator(0, len(dataset.items))(examples)
    with torch.no_grad():
        scores = load_model(MODELS[system], folder).scores(**batch).log_softmax(dim=1)
    gold = torch.tensor([dataset.index[item] for item in samples["label"]])
    loss = -scores.gather(1, gold[:, None]).mean().item()
    last = history[history["stage"] == "all"] if system == "tg_crs" else history
    assert loss == pytest.approx(last["valid_loss"].min(), rel=1e-4)
    assert last["valid_loss"].min() < 0.999 * last["valid_loss"].max()


@pytest.mark.parametrize("system", SYSTEMS)
def test_candidates_and_catalogue_are_ranked_by_the_same_scores(runs, system):
    folder, _ = runs(system)
    dataset, samples = tiny.dataset(), recommend_samples("test")
    record, tokenizer = made_in(folder, system, dataset.index)
    model = load_model(MODELS[system], folder)
    answers = answers_of(system, folder, samples)
    assert answers["sample_id"].tolist() == samples["sample_id"].tolist() and answers["valid"].all()
    for row, answer in zip(samples.to_dict("records"), answers.to_dict("records"), strict=True):
        example = inputs_of(system, pd.DataFrame([row]), dataset.index, tokenizer, CHINESE, record)
        with torch.no_grad():
            scores = model.scores(**recommender_collator(0, len(dataset.items))(example))[0].numpy()
        of = dict(zip(dataset.items["item_id"], scores.tolist(), strict=True))
        assert scores.std() > 0.01
        assert answer["catalogue"] == sorted(of, key=of.get, reverse=True)[:50]
        assert answer["ranking"] == sorted(row["candidates"], key=of.get, reverse=True) and answer["text"] == answer["ranking"][0]
        np.testing.assert_allclose(answer["scores"], [of[item] for item in answer["ranking"]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_answers_depend_neither_on_batches_nor_on_order_nor_on_labels(runs, system):
    folder, _ = runs(system)
    samples = pd.concat([recommend_samples("test"), recommend_samples("valid")], ignore_index=True)
    assert samples["history"].map(len).nunique() > 2
    whole = answers_of(system, folder, samples, batch_size=16)
    tiny.assert_same_answers(answers_of(system, folder, samples, batch_size=1), whole)
    turned = answers_of(system, folder, samples[::-1].reset_index(drop=True), batch_size=3)[::-1].reset_index(drop=True)
    tiny.assert_same_answers(turned, whole)
    tiny.assert_same_answers(answers_of(system, folder, samples.drop(columns="label"), batch_size=16), whole)


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_comes_later_changes_no_input(runs, system):
    """Everything said from a recommendation on, and all behaviour since."""
    record, tokenizer = made_in(runs(system)[0], system, tiny.dataset().index)
    before = recommend_samples("test").iloc[0]
    assert before["history"] and before["context"]

    def changed(dialogue):
        if dialogue.sid != before["sid"]:
            return dialogue
        told = dialogue.model_dump()
        for utterance in told["dialogue"]:
            if utterance["seq_no"] >= before["seq_no"]:
                utterance["send_content"] = "别的话" + utterance["send_content"]
                utterance["attributes"] = []
                if utterance["rec_item_id"]:
                    utterance["rec_item_id"] = [tiny.dataset().items["item_id"][0]]
                    utterance["rec_item_candidates"] = []
        return type(dialogue).model_validate(told)

    corpus = tiny.corpus()
    late = corpus.behaviour["actime"] >= before["time"]
    items = corpus.behaviour["item_id_encrypt"].where(~late, corpus.behaviour["item_id_encrypt"].iloc[0])
    later = Corpus(
        {name: [changed(dialogue) for dialogue in part] for name, part in corpus.dialogues.items()}, corpus.knowledge,
        corpus.behaviour.assign(item_id_encrypt=items),
    )  # fmt: skip
    samples = build_samples(later, build_catalogue(later, CHINESE), CHINESE)
    after = samples[(samples["sid"] == before["sid"]) & (samples["seq_no"] == before["seq_no"]) & (samples["task"] == "recommend")]
    assert after.iloc[0]["label"] != before["label"] and late.any()
    rows = [pd.DataFrame([before]), after.head(1)]
    one, other = (inputs_of(system, row, tiny.dataset().index, tokenizer, CHINESE, record) for row in rows)
    assert one == other and any(one[0].values())


@pytest.mark.parametrize("system", ["sasrec", *(pytest.param(system, marks=slow) for system in ("bert_rec", "tg_crs"))])
def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path, system):
    weights = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        history = trained(system, tmp_path / name, seed=seed, num_train_epochs=1, max_sequences=8)
        weights.append((load_model(MODELS[system], tmp_path / name).state_dict(), history))
    (one, history), (again, history_again), (other, _) = weights
    assert all(torch.equal(one[name], again[name]) for name in one) and not all(torch.equal(one[name], other[name]) for name in one)
    pd.testing.assert_frame_equal(history, history_again, check_exact=True)


def test_tg_crs_starts_from_a_trained_sasrec_which_is_trained_once(tmp_path, monkeypatch):
    trains, epochs = QuietTrainer.train, []

    def watched(trainer, *args, **options):
        epochs.append((type(trainer.model).__name__, trainer.args.num_train_epochs))
        if type(trainer.model) is not BehaviourRec and len(epochs) == 2:
            raise InterruptedError
        return trains(trainer, *args, **options)

    monkeypatch.setattr(QuietTrainer, "train", watched)
    still = {"learning_rate": 0.0, "num_train_epochs": 1, "behaviour_epochs": 2}
    with pytest.raises(InterruptedError):
        trained("tg_crs", tmp_path, **still)
    history = trained("tg_crs", tmp_path, **still)
    assert epochs == [("BehaviourRec", 2), ("TgCrs", 1), ("TgCrs", 1)]
    assert history["stage"].tolist() == ["behaviour", "behaviour", "all"]
    model, alone = load_model(MODELS["tg_crs"], tmp_path), load_model(BehaviourRec, tmp_path / "stages" / "behaviour")
    record, tokenizer = made_in(tmp_path, "tg_crs", tiny.dataset().index)
    samples = recommend_samples("test")
    batch = recommender_collator(0, len(tiny.dataset().items))(inputs_of("tg_crs", samples, tiny.dataset().index, tokenizer, CHINESE, record))
    told = {name: batch[name] for name in ("history", "history_length")}
    with torch.no_grad():
        scores = alone.scores(**told)
        model.fusion.weight[:, model.item_embedding.embedding_dim :] = 0  # what BERT adds
        torch.testing.assert_close(model.scores(**batch), scores, rtol=1e-4, atol=1e-5)
    assert alone.item_bias.std() > 0 and scores.std() > 0.01
    assert trained("tg_crs", tmp_path / "random", **{**still, "behaviour_epochs": 0})["stage"].tolist() == ["all"]


def test_of_a_long_history_the_last_actions_are_read():
    samples = recommend_samples("test").head(2).assign(history=[["a", "b", "c", "d"], ["c"]])
    (long, short) = inputs_of("sasrec", samples, {"a": 0, "b": 1, "c": 2, "d": 3}, None, CHINESE, {"max_history": 2})
    assert (long, short) == ({"history": [2, 3]}, {"history": [2]})


def test_tg_crs_reads_the_dialogue_and_the_behaviour(runs):
    folder, _ = runs("tg_crs")
    samples = recommend_samples("test").head(3)
    told = answers_of("tg_crs", folder, samples)["scores"].tolist()
    for change in ({"history": [[]] * 3}, {"current": [["[user]要别的"]] * 3}):
        assert answers_of("tg_crs", folder, samples.assign(**change))["scores"].tolist() != told


# Text


def ids_of(samples, cutoff_len=256, prompts=CHINESE, tokenizer=None):
    tokenizer = tokenizer or load_tokenizer(tiny.backbone("bert"), segments=True)
    return tokenizer, recommenders.dialogue_ids(samples, tokenizer, prompts, cutoff_len)


def test_a_dialogue_reads_as_its_segments_and_typed_special_tokens_are_plain_text():
    sample = recommend_samples().head(1).assign(
        context=[[["[user]有[SEP]吗", "[understand]品类：[user]水"]]], current=[["[system]好[PAD]"]]
    )  # fmt: skip
    tokenizer, (ids,) = ids_of(sample)
    specials = [token for token in tokenizer.convert_ids_to_tokens(ids) if token in tokenizer.all_special_tokens]
    assert [token for token in specials if token != "[UNK]"] == ["[CLS]", "[user]", "[understand]", "[system]", "[SEP]"]


def test_a_long_dialogue_loses_its_oldest_turns_and_then_the_beginning_of_its_last():
    samples = recommend_samples()
    samples = samples.loc[[samples["context"].map(len).idxmax()]]
    tokenizer, (whole,) = ids_of(samples)
    _, (short,) = ids_of(samples, len(whole) - 5)
    assert len(short) <= len(whole) - 5 and short[0] == whole[0] and short[1:] == whole[1 - len(short) :]
    assert tokenizer.convert_ids_to_tokens(short[1]) in ("[user]", "[system]", "[recommend]")
    _, (tail,) = ids_of(samples, 6)
    markers = {segment[: segment.index("]") + 1] for segment in samples["current"].item()}
    assert len(tail) <= 6 and (tail[0], tail[-1]) == (whole[0], whole[-1]) and markers <= set(tokenizer.convert_ids_to_tokens(tail))


@pytest.mark.parametrize("system", ["bert_rec", "tg_crs"])
def test_a_published_bert_reads_a_corpus_without_behaviour_and_its_few_positions_are_enough(tmp_path, system):
    texts = tiny.texts()
    vocabulary = hub.chinese_vocabulary(texts)
    folder = tmp_path / "bert-base-chinese"
    set_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=24, **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    silent = replace(tiny.corpus(), behaviour=tiny.corpus().behaviour.iloc[:0])
    dataset = dataset_of(silent)
    assert recommend_samples("train", dataset)["history"].map(len).max() == 0
    trained(system, tmp_path / "model", dataset, silent, model_name_or_path=str(folder), num_train_epochs=1)
    samples = recommend_samples("test", dataset).head(3)
    samples.at[0, "context"] = []
    answers = answers_of(system, tmp_path / "model", samples, dataset=dataset)
    assert answers["ranking"].map(len).tolist() == [20, 20, 20] and np.ptp(answers["scores"][0]) > 0


def test_an_english_corpus(tmp_path):
    corpus = corpus_of(
        *(recommending(f"i{n:02d}", f"u{n}", f"s{n}") for n in range(4)), valid=[recommending("i05", "v", "v")],
        test=[recommending("i06", "t", "t")], behaviour=behaviour(("u1", "i02", 1), ("t", "i03", 1)),
    )  # fmt: skip
    dataset = dataset_of(corpus, ENGLISH)
    trained("tg_crs", tmp_path, dataset, corpus, ENGLISH, num_train_epochs=1)
    (row,) = recommend_samples("test", dataset).to_dict("records")
    told = seen_recommender("tg_crs", dataset, row, ENGLISH, output_dir=tmp_path)
    assert "[user]" in told and told.endswith("behaviour (1 items, oldest first): i03")


# What cannot be


def test_what_a_worked_example_shows(runs):
    row = next(row for row in recommend_samples().to_dict("records") if len(row["history"]) > 1)
    dataset = tiny.dataset()
    seen = {system: seen_recommender(system, dataset, row, CHINESE, output_dir=runs(system)[0]) for system in SYSTEMS}
    spoken = next(segment for segment in row["current"] if segment.startswith("[user]"))
    assert len(spoken) > 8 and all(("".join(spoken.split()) in seen[system]) == (system != "sasrec") for system in SYSTEMS)
    assert all((" > ".join(row["history"]) in seen[system]) == (system != "bert_rec") for system in SYSTEMS)
    alone = seen_recommender("sasrec", dataset, {**row, "history": []}, CHINESE, output_dir=runs("sasrec")[0])
    assert alone == "behaviour (0 items, oldest first): none; what is popular decides"


def test_another_catalogue_is_refused_and_so_is_an_empty_folder(tmp_path, runs):
    other = replace(tiny.dataset(), items=tiny.dataset().items.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ValueError, match="another catalogue"):
        answers_of("sasrec", runs("sasrec")[0], recommend_samples("test"), dataset=other)
    with pytest.raises(FileNotFoundError, match="no recommender was trained here"):
        answers_of("sasrec", tmp_path, recommend_samples("test"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_training_without_recommendations_is_refused(tmp_path, split):
    samples = tiny.dataset().samples
    without = samples[(samples["split"] != split) | (samples["task"] != "recommend")]
    with pytest.raises(ValueError, match=f"no recommend sample in the {split} split"):
        trained("sasrec", tmp_path, replace(tiny.dataset(), samples=without))


def test_coldness_counts_right_items_that_nothing_teaches():
    acted = behaviour(("x", "i02", 1), ("t1", "i03", 1), ("u1", "i04", 1))
    tested = [recommending(item, user, f"t{item}") for item, user in (("i01", "t1"), ("i02", "t2"), ("i03", "t1"), ("i04", "t2"))]
    corpus = corpus_of(recommending("i01"), behaviour=acted, valid=[recommending("i05", "v1", "v")], test=tested)
    table = coldness(dataset_of(corpus), corpus)
    assert table.index.tolist() == ["train", "valid", "test"]
    assert table.to_dict("list") == {
        "samples": [1, 1, 4], "never_recommended": [0.0, 1.0, 0.75], "never_seen": [0.0, 1.0, 0.25], "no_history": [0.0, 1.0, 0.5],
    }  # fmt: skip
