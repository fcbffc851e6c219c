"""KBRD: the graph of the product knowledge, what is linked to it, how it leans on the words of a reply, what it learns."""

import json
from pathlib import Path

import hub
import pandas as pd
import pytest
import tiny
import torch
from conftest import corpus_of, dialogue_of, said, samples_of, slow
from safetensors.torch import load_file

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.corpus.schema import KNOWLEDGE_COLUMNS
from llmcrs_utils.systems.predictions import SCHEMA
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import dialogue_samples
from llmcrs_utils.text.prompts import CHINESE, ENGLISH
from llmcrs_utils.typical import kbrd
from llmcrs_utils.typical.graph import RelationalGraph, SelfAttention, knowledge_graph, make_linker
from llmcrs_utils.typical.kbrd import (
    Kbrd,
    answer_kbrd,
    read_texts,
    recommend_examples,
    respond_examples,
    seen_kbrd,
    train_kbrd,
    with_users,
)
from llmcrs_utils.typical.models import load_model, new_model

close = torch.testing.assert_close
DEFAULTS = {
    "seed": 1, "num_train_epochs": 1, "learning_rate": 0.002, "per_device_train_batch_size": 16, "cutoff_len": 512,
    "max_target_len": 32, "recommender_epochs": 1, "graph_dim": 16, "bases": 2, "bias_dim": 32, "hidden_size": 64, "layers": 1,
}  # fmt: skip


# --- the graph


def knowledge_of(*facts):
    return pd.DataFrame([(item, "shop", relation, value) for item, relation, value in facts], columns=KNOWLEDGE_COLUMNS, dtype=str)


FACTS = [("a", "颜色", "白色"), ("a", "颜色", " "), ("b", "颜色", "白色"), ("b", "底色", "白色"), ("b", "尺寸", "大"), ("b", "尺寸", "大")]


def test_items_and_values_are_nodes_and_facts_are_edges_both_ways():
    graph = knowledge_graph(knowledge_of(*FACTS), ["a", "alone", "b"])
    assert (graph.items, graph.values, graph.relations) == (["a", "alone", "b"], ["白色", "大"], 6)
    size, base, colour = 0, 1, 2  # in the order of 尺寸, 底色, 颜色
    facts = {(0, colour, 3), (2, colour, 3), (2, base, 3), (2, size, 4)}
    edges = [tuple(edge) for edge in graph.edges.T.tolist()]
    assert len(edges) == 8 and set(edges) == facts | {(value, relation + 3, item) for item, relation, value in facts}
    assert [target for _, _, target in edges] == sorted(target for _, _, target in edges)


def graph_of(edges, nodes, relations, dim, bases, seed=1):
    torch.manual_seed(seed)
    graph = RelationalGraph(nodes, relations, len(edges), dim, bases)
    graph.edges.copy_(torch.tensor(sorted(edges, key=lambda edge: edge[2]), dtype=torch.long).reshape(-1, 3).T)
    torch.nn.init.normal_(graph.bias)
    return graph


@torch.no_grad()
def test_a_small_graph_by_hand():
    """Relation 0 leads from nodes 0 and 1 to node 2, relation 1 from node 0 to node 2 and from node 2 to node 0."""
    graph = graph_of([(0, 0, 2), (1, 0, 2), (0, 1, 2), (2, 1, 0)], nodes=3, relations=2, dim=2, bases=2)
    graph.bases[0] = torch.tensor([[1.0, 0], [2, 0], [3, 0]])
    graph.bases[1] = torch.tensor([[0.0, 10], [0, 20], [0, 30]])
    graph.mixing.copy_(torch.tensor([[1.0, 2], [3, -1]]))  # W_0 = [1 20; 2 40; 3 60], W_1 = [3 -10; 6 -20; 9 -30]
    graph.root.copy_(torch.tensor([[100.0, 0], [200, 0], [300, 0]]))
    graph.bias.copy_(torch.tensor([0.5, 0.25]))
    # node 2: (W_0[0] + W_0[1]) / 2 + W_1[0] = (1.5, 30) + (3, -10); node 0: W_1[2]
    close(graph(), torch.tensor([[109.5, -29.75], [200.5, 0.25], [305.0, 20.25]]))


@torch.no_grad()
def test_basis_decomposition_is_one_matrix_per_relation():
    nodes, relations = 7, 3
    generator = torch.Generator().manual_seed(2)
    edges = {tuple(int(torch.randint(most, (), generator=generator)) for most in (nodes, relations, nodes)) for _ in range(40)}
    graph = graph_of(edges, nodes, relations, dim=5, bases=4)
    matrices = torch.einsum("rb,bnd->rnd", graph.mixing, graph.bases)
    expected = graph.root + graph.bias
    for target in range(nodes):
        for relation in range(relations):
            sources = [s for s, r, t in edges if (r, t) == (relation, target)]
            if sources:
                expected[target] = expected[target] + matrices[relation, sources].mean(dim=0)
    close(graph(), expected, rtol=1e-5, atol=1e-6)


def test_every_part_of_the_graph_learns():
    graph = graph_of([(0, 0, 1), (1, 1, 0), (1, 0, 2)], nodes=4, relations=2, dim=3, bases=2)
    graph().square().sum().backward()
    for parameter in (graph.bases, graph.mixing, graph.root, graph.bias):
        assert (parameter.grad.abs().sum(dim=-1) > 0).sum() >= min(2, parameter.grad.dim())
    # nodes 0 and 1 are the sources; 2 and 3 lead nowhere
    assert (graph.bases.grad.abs().sum(dim=(0, 2)) > 0).tolist() == [True, True, False, False]


@torch.no_grad()
@pytest.mark.parametrize("edges", [[(0, 0, 1)], []])
def test_a_node_without_edges_has_its_own_state(edges):
    graph = graph_of(edges, nodes=3, relations=1, dim=2, bases=2)
    close(graph()[2], graph.root[2] + graph.bias)
    assert graph().isfinite().all()


def test_a_corpus_without_knowledge_has_a_graph_without_edges():
    graph = knowledge_graph(knowledge_of(), ["a", "b"])
    assert graph.edges.shape == (3, 0) and graph.values == [] and graph.items == ["a", "b"]


# --- what is linked to it

NAMES = ["干性", "干", "大", "大容量", "4g", "4G 全网通", "dry skin", "dry"]


def linked(*segments, prompts=CHINESE):
    linker = make_linker(["i1", "i2"], NAMES, prompts)
    return [["i1", "i2", *NAMES][node] for node in linker({"context": [list(segments)], "current": []})]


def test_values_are_linked_by_the_longest_name_and_items_by_their_id():
    assert linked("[understand]肤质：干性皮肤；容量：大容量或大") == ["干性", "大", "大容量"]
    assert linked("[understand]网络：14G") == [] and linked("[understand]网络：4G") == ["4g"]
    assert linked("[understand]a: Dry skin; b: drying; c: too dry", prompts=ENGLISH) == ["dry skin", "dry"]
    assert linked("[recommend]i2；i9；i2", "[understand]容量：大") == ["i2", "大"]


def test_words_said_or_asked_for_are_not_linked():
    assert linked("[user]容量：大", "[system]肤质：干性；i1", "[elicit]容量：大", "[understand]大：；容量：", "[understand]") == []


def test_what_is_spoken_of_later_changes_nothing_for_an_earlier_turn():
    early = [said("用户需求", "要大的", [("容量", "大")]), said("系统推荐", "看这款", [], ["i1"]), said("用户反馈", "不要")]
    late = [said("系统推荐", "那这款", [("肤质", "干性")], ["i2"]), said("用户反馈", "好", [("容量", "大容量")])]
    linker = make_linker(["i1", "i2"], NAMES, CHINESE)

    def entities(*utterances):
        return {s["sample_id"]: linker(s) for s in dialogue_samples(dialogue_of(*utterances), CHINESE)}

    short, whole = entities(*early), entities(*early, *late)
    assert short == {name: whole[name] for name in short} and len(whole) > len(short)
    # nodes: 0 i1, 1 i2, 2 干性, 4 大, 5 大容量; a reply is given its items, a recommendation not its own
    assert whole["s1:2:recommend:i1"] == [4] and whole["s1:2:respond"] == [0, 4]
    assert whole["s1:4:recommend:i2"] == [0, 4] and whole["s1:4:respond"] == [1, 4]


# --- the models


def small(seed=1, **sizes) -> Kbrd:
    writer = {
        "vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "scale_embedding": True, "init_std": 0.25,
        "pad_token_id": 0, "decoder_start_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": None, "max_position_embeddings": 64,
    }  # fmt: skip
    shape = {"items": 3, "nodes": 6, "relations": 2, "edges": 4, "dim": 8, "bases": 2, "bias_dim": 8, "writer": writer, **sizes}
    model = new_model(Kbrd, None, seed, **shape)
    model.graph.edges.copy_(torch.tensor([[3, 0, 1, 5], [1, 0, 0, 1], [0, 3, 3, 4]]))
    return model.eval()


TEXTS = {
    "input_ids": torch.tensor([[1, 7, 8, 9, 2], [1, 30, 2, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@torch.no_grad()
def test_a_user_is_the_attention_weighted_mean_of_the_entities_and_zeros_without():
    torch.manual_seed(1)
    attention, states = SelfAttention(4), torch.randn(3, 3, 4)
    users = attention(states, torch.tensor([[True, True, False], [False, False, False], [True, True, True]]))
    for row, count in ((0, 2), (2, 3)):
        scores = torch.tanh(states[row, :count] @ attention.hidden.weight.T) @ attention.weight.weight[0]
        close(users[row], scores.softmax(dim=0) @ states[row, :count])
        assert (users[row] - states[row, :count].mean(dim=0)).abs().max() > 0.01
    assert torch.equal(users[1], torch.zeros(4))
    assert torch.equal(attention(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)), torch.zeros(2, 4))


@torch.no_grad()
def test_items_are_scored_by_dot_product_with_their_states():
    model = small()
    model.item_bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    scores, nodes = model.item_scores(torch.tensor([[0, 4, -1], [-1, -1, -1]])), model.graph()
    close(scores[0], nodes[:3] @ model.users(nodes, torch.tensor([[0, 4]]))[0] + model.item_bias)
    close(scores[1], model.item_bias)


@torch.no_grad()
def test_the_user_changes_every_words_logits_by_the_same_bias_of_the_vocabulary():
    model = small()
    labels = torch.tensor([[5, 6, 2], [9, 2, -100]])
    one, other = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(1))
    by_one, by_other = (model.reply_logits(user, labels=labels, **TEXTS) for user in (one, other))
    bias = model.vocabulary_bias(one) - model.vocabulary_bias(other)
    close(by_one - by_other, bias[:, None].expand(-1, 3, -1), rtol=1e-4, atol=1e-5)
    assert bias.abs().max() > 0.1 and bias.shape == (2, 50)
    expected = torch.stack([by_one[0, 0], by_one[0, 1], by_one[0, 2], by_one[1, 0], by_one[1, 1]]).log_softmax(dim=1)
    loss = -expected[range(5), [5, 6, 2, 9, 2]].mean()
    close(model(user=one, labels=labels, **TEXTS)["loss"], loss)


@torch.no_grad()
def test_decoding_takes_the_likeliest_word_bias_included_one_by_one():
    model = small()
    users = 3 * torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    written = model.reply(users, **TEXTS, max_new_tokens=6)
    for row in range(2):
        words = []
        length = TEXTS["attention_mask"][row].sum()
        text = {name: tensor[row : row + 1, :length] for name, tensor in TEXTS.items()}
        while len(words) < 6 and 2 not in words:
            logits = model.reply_logits(users[row : row + 1], labels=torch.tensor([[*words, 0]]), **text)
            words.append(int(logits[0, -1].argmax()))
        assert written[row, 1 : 1 + len(words)].tolist() == words
    without = model.reply(torch.zeros(2, 8), **TEXTS, max_new_tokens=6)
    assert written.tolist() != without.tolist()


@torch.no_grad()
def test_a_saved_model_is_loaded_with_its_graph(tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    loaded = load_model(Kbrd, tmp_path)
    assert torch.equal(loaded.graph.edges, model.graph.edges)
    entities, labels = torch.tensor([[0, 3], [4, -1]]), torch.tensor([[5, 6, 2], [9, 2, -100]])
    close(loaded.item_scores(entities), model.item_scores(entities))
    user = model.users(model.graph(), entities)
    close(loaded.reply_logits(user, labels=labels, **TEXTS), model.reply_logits(user, labels=labels, **TEXTS))


# --- training and answering


def train(output_dir, dataset=None, corpus=None, prompts=CHINESE, backbone=None, **options):
    return train_kbrd(
        "kbrd", dataset or tiny.dataset(), corpus or tiny.corpus(), prompts, model_name_or_path=backbone or tiny.backbone("bert"),
        output_dir=output_dir, **{**DEFAULTS, **options},
    )  # fmt: skip


def answer(output_dir, samples, dataset=None, prompts=CHINESE, batch_size=4):
    return answer_kbrd("kbrd", dataset or tiny.dataset(), samples, prompts, output_dir=output_dir, batch_size=batch_size)


def responses(split="train"):
    samples = tiny.dataset().split(split)
    return samples[samples["task"] == "respond"].reset_index(drop=True)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Trained until it knows its samples by heart: validation is training."""
    samples = tiny.dataset().split("train")
    twice = pd.concat([samples, samples.assign(split="valid")], ignore_index=True)
    folder = tmp_path_factory.mktemp("learnt")
    history = train(
        folder, Dataset(twice, tiny.dataset().items), num_train_epochs=30, learning_rate=0.005, per_device_train_batch_size=8,
        recommender_epochs=30, recommender_learning_rate=0.03, dropout=0.0,
    )  # fmt: skip
    return folder, history


def test_it_learns_to_recommend_and_to_reply(learnt):
    folder, history = learnt
    answers = answer(folder, responses())
    assert answers.columns.tolist()[: len(SCHEMA.names) - 2] == [n for n in SCHEMA.names if n not in ("system", "seed")]
    said_so = answers["text"] == responses()["label"].map(lambda label: "".join(label.split()))
    assert said_so.mean() > 0.8 and answers["valid"].all() and answers["text"].nunique() > 5
    graph = knowledge_graph(tiny.corpus().knowledge, tiny.dataset().items["item_id"].tolist())
    linker = make_linker(graph.items, graph.values, CHINESE)
    samples = tiny.dataset().split("train")
    golds = {}
    for example in recommend_examples(samples, tiny.dataset().index, linker):
        golds.setdefault(tuple(example["entities"]), set()).add(example["gold"])
    model = load_model(Kbrd, folder)
    with torch.no_grad():
        best = [int(model.item_scores(torch.tensor([entities], dtype=torch.long))[0].argmax()) for entities in golds]
    assert sum(item in gold for item, gold in zip(best, golds.values(), strict=True)) > 0.7 * len(golds)


def test_the_history_tells_the_stages_and_who_spoke_of_nothing(learnt):
    _, history = learnt
    assert history["stage"].tolist() == ["recommender"] * 30 + ["reply"] * 30
    assert history.columns.tolist() == ["epoch", "train_loss", "valid_loss", "stage", "without_entities"]
    spoken = {stage: losses["valid_loss"].tolist() for stage, losses in history.groupby("stage")}
    assert all(losses[-1] < 0.3 * losses[0] for losses in spoken.values())
    graph = knowledge_graph(tiny.corpus().knowledge, tiny.dataset().items["item_id"].tolist())
    linker = make_linker(graph.items, graph.values, CHINESE)
    counted = history.groupby("stage")["without_entities"].unique()
    for stage, task in (("recommender", "recommend"), ("reply", "respond")):
        samples = tiny.dataset().split("train").query("task == @task").to_dict("records")
        assert counted[stage].tolist() == [sum(linker(sample) == [] for sample in samples)]


def test_answers_depend_neither_on_batch_size_nor_on_order(learnt):
    folder, _ = learnt
    samples = pd.concat([responses("train"), responses("test")], ignore_index=True)
    expected = answer(folder, samples, batch_size=7)
    tiny.assert_same_answers(answer(folder, samples, batch_size=1), expected)
    mixed = samples.sample(frac=1, random_state=1)
    shuffled = answer(folder, mixed.reset_index(drop=True), batch_size=3)
    tiny.assert_same_answers(shuffled.set_index(mixed.index).sort_index(), expected)


def test_the_items_to_recommend_reach_the_reply_through_the_graph(learnt):
    """The same text with other entities gets another user and another bias."""
    folder, _ = learnt
    model = load_model(Kbrd, folder)
    users = torch.stack([e["user"] for e in with_users(model, [{"entities": e} for e in ([0, 130], [0], [], [130, 0])])])
    assert torch.equal(users[2], torch.zeros(16)) and (users[0] - users[1]).abs().max() > 0.01
    close(users[0], users[3])
    with torch.no_grad():
        bias = model.vocabulary_bias(users)
    assert (bias[0] - bias[1]).abs().max() > 0.01 and (bias[1] - bias[2]).abs().max() > 0.01


def read(folder, samples):
    """All that answering makes of samples."""
    record, tokenizer, linker = kbrd.load_saved(folder, CHINESE)
    seen = [seen_kbrd("kbrd", tiny.dataset(), sample, CHINESE, output_dir=folder) for sample in samples]
    return read_texts(samples, tokenizer, CHINESE, linker, record["cutoff_len"]), seen


def test_the_label_and_what_follows_change_nothing_that_is_read(learnt):
    folder, _ = learnt
    dialogue = tiny.corpus().dialogues["test"][0]
    samples = dialogue_samples(dialogue, CHINESE)
    value, item = "白色", tiny.dataset().items["item_id"][0]
    checked = 0
    for sample in [sample for sample in samples if sample["task"] in ("respond", "recommend")]:
        record = dialogue.model_dump()
        utterances = record["dialogue"]
        for utterance in utterances:
            if utterance["seq_no"] >= sample["seq_no"]:
                utterance["send_content"] = "另一句"
                later = utterance["seq_no"] > sample["seq_no"]
                if later or sample["task"] == "recommend":
                    utterance["attributes"] = [{"key": "颜色", "value": value, "start": -1, "exclusive_end": -1}]
                    utterance["rec_item_id"] = [item] if utterance["rec_item_id"] else []
                    utterance["rec_item_candidates"] = []
        changed = dialogue_samples(type(dialogue).model_validate(record), CHINESE)
        twin = next(s for s in changed if (s["task"], s["seq_no"]) == (sample["task"], sample["seq_no"]))
        if sample["task"] == "respond":
            # later utterances of the same act merge into the turn: what it asks or recommends is the task's own input
            if twin["current"] != sample["current"]:
                continue
            assert twin["label"] != sample["label"]
        assert read(folder, [twin]) == read(folder, [sample])
        checked += 1
    assert checked >= 3


def test_a_worked_example_shows_the_text_and_the_entities(learnt):
    folder, _ = learnt
    rows = responses().to_dict("records")
    sample = next(row for row in rows if row["items"] and row["context"])
    seen = seen_kbrd("kbrd", tiny.dataset(), sample, CHINESE, output_dir=folder)
    text, entities = seen.split("\n")
    assert "".join(sample["current"]) in text and sample["context"][0][0] in text
    assert set(sample["items"]) <= set(entities.removeprefix("entities of the graph: ").split(", "))
    nothing = {**sample, "context": [], "current": ["[user]在吗", "[understand]"]}
    assert "none" in seen_kbrd("kbrd", tiny.dataset(), nothing, CHINESE, output_dir=folder).split("\n")[1]


def test_a_long_text_loses_its_oldest_turns_and_an_endless_one_its_oldest_words(learnt):
    folder, _ = learnt
    _, tokenizer, linker = kbrd.load_saved(folder, CHINESE)
    sample = max(responses().to_dict("records"), key=lambda row: len(row["context"]))
    (whole,) = read_texts([sample], tokenizer, CHINESE, linker, 512)
    (short,) = read_texts([sample], tokenizer, CHINESE, linker, len(whole["input_ids"]) - 5)
    assert short["entities"] == whole["entities"] and len(short["input_ids"]) <= len(whole["input_ids"]) - 5
    assert tokenizer.decode(short["input_ids"]).endswith("".join(sample["current"]) + CHINESE.crs["respond"] + "[SEP]")
    endless = {**sample, "current": ["[user]" + "要" * 3000, "[elicit]材质"]}
    (cut,) = read_texts([endless], tokenizer, CHINESE, linker, 512)
    assert len(cut["input_ids"]) == 512 and tokenizer.decode(cut["input_ids"]).endswith("[elicit]材质。生成系统回复：[SEP]")
    answers = answer(folder, pd.DataFrame([endless, {**sample, "context": [], "current": []}]))
    assert len(answers) == 2


def test_items_and_attributes_that_training_never_saw_are_no_entities(learnt):
    folder, _ = learnt
    sample = {**responses().to_dict("records")[0], "current": ["[user]在吗", "[understand]新属性：新值", "[recommend]new"]}
    assert "none" in seen_kbrd("kbrd", tiny.dataset(), sample, CHINESE, output_dir=folder)
    assert len(answer(folder, pd.DataFrame([sample]))) == 1


def test_a_reply_is_learnt_from_its_first_word_to_its_end():
    tokenizer = load_tokenizer(tiny.backbone("bert"), segments=True)
    samples = responses().head(3)
    examples = respond_examples(samples, tokenizer, CHINESE, lambda sample: [], 512, 64)
    for example, label in zip(examples, samples["label"], strict=True):
        assert example["labels"][-1] == tokenizer.sep_token_id
        assert tokenizer.decode(example["labels"][:-1]) == label
    cut = respond_examples(samples, tokenizer, CHINESE, lambda sample: [], 512, 5)
    assert all(example["labels"][:3] == whole["labels"][:3] for example, whole in zip(cut, examples, strict=True))
    assert {len(example["labels"]) for example in cut} == {4}


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The weights of two epochs, undisturbed."""
    folder = tmp_path_factory.mktemp("one")
    train(folder, num_train_epochs=2)
    return weights_of(folder)


def same(one, other):
    return {name for name in one if torch.equal(one[name], other[name])}


@slow
def test_the_same_seed_gives_the_same_model_also_after_a_kill(tmp_path, one, monkeypatch):
    replied = 0

    def killed(model, *args, logits=Kbrd.reply_logits, **texts):
        nonlocal replied
        replied += model.training
        if replied == 4:  # in the second epoch of two batches each
            raise KeyboardInterrupt
        return logits(model, *args, **texts)

    with monkeypatch.context() as patch:
        patch.setattr(Kbrd, "reply_logits", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, num_train_epochs=2)
    assert list(tmp_path.glob("checkpoint-*"))
    train(tmp_path, num_train_epochs=2)
    assert same(one, weights_of(tmp_path)) == one.keys()


def test_another_seed_gives_another_model_and_the_reply_stage_leaves_the_recommender(tmp_path, one):
    train(tmp_path / "other", num_train_epochs=2, seed=2)
    train(tmp_path / "faster", num_train_epochs=2, learning_rate=0.004)
    other, faster = weights_of(tmp_path / "other"), weights_of(tmp_path / "faster")
    assert not same(one, other) & {"graph.root", "graph.bases", "attention.hidden.weight", "vocabulary_bias.2.weight"}
    of_recommender = {name for name in one if name.startswith(("graph.", "attention.", "item_bias"))}
    assert same(one, faster) >= of_recommender and one["item_bias"].abs().max() > 0  # item biases start at zero
    assert not same(one, faster) & {"vocabulary_bias.2.weight", "writer.model.shared.weight"}


def test_the_recommender_learns_first_and_alone_and_then_stands_still(tmp_path, monkeypatch):
    learning = []

    def watch(model, *args, **options):
        learning.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})
        return pd.DataFrame({"epoch": [1.0]})

    monkeypatch.setattr(kbrd, "train", watch)
    train(tmp_path)
    first, second = learning
    assert {name.split(".")[0] for name in first} == {"graph", "attention", "item_bias"}
    assert {name.split(".")[0] for name in second} == {"writer", "vocabulary_bias"}
    assert not any("embed_positions" in name for name in second)


def test_nothing_is_left_but_weights_and_json(learnt):
    folder, _ = learnt
    files = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors", ".jinja"}
    assert len(json.loads((folder / kbrd.RECORD).read_text("utf-8"))["items"]) == len(tiny.dataset().items)


def test_a_published_chinese_bert_lends_its_vocabulary(tmp_path):
    backbone = hub.bart_base_chinese(tmp_path / "base", tiny.texts())
    train(tmp_path / "model", backbone=backbone)
    assert len(load_tokenizer(backbone)) + 6 == len(weights_of(tmp_path / "model")["writer.model.shared.weight"])
    answers = answer(tmp_path / "model", responses("test"))
    assert len(answers) == len(responses("test"))
    assert "[recommend]" in seen_kbrd("kbrd", tiny.dataset(), next(r for r in responses().to_dict("records") if r["items"]), CHINESE,
                                      output_dir=tmp_path / "model")  # fmt: skip


def english():
    """A corpus in English without spans of attributes, behaviour or knowledge of what is spoken of."""

    def talk(sid):
        return dialogue_of(
            said("用户需求", "a light jacket please"), said("系统提问", "which size do you want"), said("用户回答", "large"),
            said("系统推荐", "this one is light", [], ["i03"]), sid=sid,
        )  # fmt: skip

    corpus = corpus_of(talk("s1"), talk("s2"), valid=[talk("s3")], test=[talk("s4")])
    return corpus, Dataset(samples_of(corpus, ENGLISH), build_catalogue(corpus, ENGLISH).items)


def test_a_corpus_without_attributes_and_behaviour_in_english(tmp_path):
    corpus, dataset = english()
    history = train(tmp_path, dataset, corpus, ENGLISH)
    # two dialogues: a question without entities, a recommendation whose reply is given its item
    assert history.groupby("stage")["without_entities"].unique().map(list).to_dict() == {"recommender": [2], "reply": [2]}
    test = dataset.split("test").query("task == 'respond'").reset_index(drop=True)
    answers = answer(tmp_path, test, dataset, ENGLISH)
    assert len(answers) == 2 and set(answers["sample_id"]) == set(test["sample_id"])


@pytest.mark.parametrize("task, missing", [("recommend", "recommendations"), ("respond", "replies")])
def test_a_corpus_without_recommendations_or_replies_is_refused(tmp_path, task, missing):
    samples = tiny.dataset().samples
    lacking = samples[(samples["split"] != "valid") | (samples["task"] != task)].reset_index(drop=True)
    with pytest.raises(ValueError, match=f"no {missing}"):
        train(tmp_path, Dataset(lacking, tiny.dataset().items))
