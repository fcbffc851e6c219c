"""Tokenizers, small backbones, and loading by folder or hub id."""

import pytest
import tiny
import torch

from llmcrs_utils.checkpoints import checks
from llmcrs_utils.checkpoints.checks import CheckpointError, check_checkpoint
from llmcrs_utils.checkpoints.loading import SEGMENT_TOKENS, load_causal, load_encoder, load_seq2seq, load_tokenizer
from llmcrs_utils.corpus.schema import SPLITS, Corpus
from llmcrs_utils.small.models import (
    ARCHITECTURES,
    new_backbone,
    pretrain,
    pretraining_texts,
    text_blocks,
    train_tokenizer,
)
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.text.prompts import CHINESE, LETTERS
from llmcrs_utils.training.collators import blank_filling_collator, infilling_collator, next_token_collator, pretraining_collator

TEXTS = ["推荐一款防晒霜，油皮用 要便宜的", "iPhone 13 内存128G多少钱？\n客服：2999元", "waterproof running shoes for running", "鞋子 鞋子，首尾 空格 两行 第一"] * 3


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture
def tokenizer(architecture):
    return train_tokenizer(TEXTS, architecture, 500)


def test_chinese_digits_and_signs_are_one_token_each(architecture, tokenizer):
    text = "推荐一款防晒霜，128？"
    # Sentencepiece opens a text with a blank, and ChatGLM's makes full-width signs half-width.
    expected = ["▁", *text.replace("，", ",").replace("？", "?")] if architecture == "chatglm" else list(text)
    assert tokenizer.tokenize(text) == expected
    assert "".join(tokenizer.tokenize("running")).strip("▁") == "running" and len(tokenizer.tokenize("running")) < 4


@pytest.mark.parametrize("text", [*TEXTS[:4], " 首尾 空格 ", "两  格", "第一行\n\n第两行 13\n", "鞋running鞋 iPhone"])
def test_text_survives_encoding_and_decoding(architecture, tokenizer, text):
    if architecture == "chatglm":  # its normalisation drops blanks at the ends and makes full-width signs half-width
        text = text.strip(" ").replace("，", ",").replace("？", "?").replace("：", ":")
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_letters_of_candidates_are_known_though_no_text_holds_them(tokenizer):
    ids = tokenizer(list(LETTERS), add_special_tokens=False)["input_ids"]
    assert len({row[-1] for row in ids}) == 20 and len({tuple(row[:-1]) for row in ids}) == 1
    assert tokenizer.unk_token_id not in ids[0]


def test_typed_special_tokens_are_plain_text_in_pretraining(tokenizer):
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    examples, held_out = text_blocks(tokenizer, ["鞋<sop>子[SEP]好<eop>[MASK]"] * 10, 20, seed=1)
    found = [index for example in examples + held_out for index in example["input_ids"] if index in special]
    assert found == [tokenizer.eos_token_id] * len(found) and 9 <= len(found) <= 10


def test_who_reads_whole_texts_closes_them_and_who_continues_them_leaves_them_open(architecture, tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("推荐")["input_ids"])
    closed, opened = ["[CLS]", "推", "荐", "[SEP]"], ["[CLS]", "推", "荐"]
    expected = {"bart": closed, "cpt": closed, "llama": opened, "chatglm": ["▁", "推", "荐", "[gMASK]", "<sop>"]}
    expected |= {"bert": closed, "gpt2": opened}
    assert tokens == expected[architecture]


LOADERS = {"bart": load_seq2seq, "cpt": load_seq2seq, "bert": load_encoder}


def test_a_saved_backbone_loads_like_a_published_one(architecture):
    folder = tiny.backbone(architecture)
    model = LOADERS.get(architecture, load_causal)(folder)
    tokenizer = load_tokenizer(folder)
    again = new_backbone(architecture, tokenizer, hidden_size=64, layers=1, heads=2, max_positions=1024, seed=1)
    assert model.config.model_type == architecture and all(p.dtype == torch.float32 for p in model.parameters())
    if architecture == "bert":  # what reads with it leaves its head behind
        again = again.bert
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    ids = tokenizer(tiny.texts()[0])["input_ids"]
    assert tokenizer.unk_token_id not in ids and len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    if architecture != "bert":  # which writes nothing
        assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id


def test_each_part_of_an_encoder_and_its_decoders_has_as_many_layers():
    bart, cpt = (load_seq2seq(tiny.backbone(name)).config for name in ("bart", "cpt"))
    assert (bart.encoder_layers, bart.decoder_layers) == (1, 1)
    assert (cpt.encoder_layers - cpt.decoder_layers, cpt.decoder_layers) == (1, 1)  # shared encoder, and either decoder
    assert cpt.generation_token_type == 1  # a text is read in generation as it was in training


def test_segment_tokens_are_added_where_asked():
    folder = tiny.backbone("bart")
    plain, segments = load_tokenizer(folder), load_tokenizer(folder, segments=True)
    assert len(segments) == len(plain) + len(SEGMENT_TOKENS)
    assert segments.tokenize("[user]鞋[LLM]") == ["[user]", "鞋", "[LLM]"] and "[user]" not in plain.tokenize("[user]鞋")


def blocks(count=200, length=64, first=5):
    """Blocks without repeated tokens, so that what survived can be told."""
    return [{"input_ids": list(range(first, first + length))} for _ in range(count)]


def infilled(seed):
    torch.manual_seed(seed)
    return infilling_collator(train_tokenizer(TEXTS, "bart", 500))(blocks())


def test_infilling_hides_about_a_third_in_spans_and_asks_for_the_whole_text():
    tokenizer = train_tokenizer(TEXTS, "bart", 500)
    start, end, mask, pad = (tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]", "[PAD]"))
    batch = infilled(seed=1)
    kept = masks = 0
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    for row, length, labels in zip(batch["input_ids"].tolist(), lengths, batch["labels"].tolist(), strict=True):
        seen = row[:length]
        assert set(row[len(seen) :]) <= {pad} and seen[0] == start and seen[-1] == end
        survivors = [token for token in seen[1:-1] if token != mask]
        assert survivors == sorted(set(survivors)) and set(survivors) <= set(range(5, 69))
        assert labels == [start, *range(5, 69), end]
        kept, masks = kept + len(survivors), masks + seen.count(mask)
    gone = 1 - kept / (200 * 64)
    assert 0.25 < gone < 0.33
    assert 2.5 < gone * 200 * 64 / masks < 3.5  # tokens per mask


def test_cpt_hides_token_for_token_and_asks_both_decoders():
    tokenizer = train_tokenizer(TEXTS, "cpt", 500)
    start, end, mask = (tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[MASK]"))
    torch.manual_seed(1)
    batch = infilling_collator(tokenizer, token_for_token=True)(blocks())
    text = [start, *range(5, 69), end]
    hidden = spans = 0
    for row, labels, asked in zip(*(batch[n].tolist() for n in ("input_ids", "labels", "understanding_labels")), strict=True):
        assert labels == text and all(seen in (token, mask) for seen, token in zip(row, text, strict=True))
        assert asked == [token if seen == mask else -100 for seen, token in zip(row, text, strict=True)]
        hidden += row.count(mask)
        spans += sum(seen == mask != before for before, seen in zip(row, row[1:], strict=False))
    assert 0.25 < hidden / (200 * 64) < 0.33
    assert 2.5 < hidden / spans < 4.5  # a mean span of 3, those of no token left out, neighbours run together


def test_blank_filling_asks_for_the_rest_of_the_block_behind_the_split():
    tokenizer = train_tokenizer(TEXTS, "chatglm", 500)
    opening = [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    collate = blank_filling_collator(tokenizer)
    torch.manual_seed(1)
    examples = blocks(first=100) + blocks(1, 10, first=100)
    batch = collate(examples)
    splits = []
    for row, labels, mask in zip(*(batch[name].tolist() for name in ("input_ids", "labels", "attention_mask")), strict=True):
        row = row[: sum(mask)]
        split = row.index(opening[0])
        assert row[split : split + 2] == opening and row[:split] + row[split + 2 :] == list(range(100, 98 + len(row)))
        assert labels[: sum(mask)] == [-100] * (split + 2) + row[split + 2 :] and set(labels[sum(mask) :]) <= {-100}
        splits.append(split / (len(row) - 2))
    assert max(splits) <= 0.5 and min(splits) < 0.05 and max(splits) > 0.45 and len(set(splits)) > 20
    again = collate(examples)
    assert not torch.equal(batch["input_ids"], again["input_ids"])  # another split in the next epoch
    torch.manual_seed(1)
    assert torch.equal(batch["input_ids"], collate(examples)["input_ids"])


def test_infilling_depends_on_torchs_seed_alone():
    assert torch.equal(infilled(seed=1)["input_ids"], infilled(seed=1)["input_ids"])
    assert not torch.equal(infilled(seed=1)["input_ids"], infilled(seed=2)["input_ids"])


def test_next_token_labels_are_the_text_and_skip_padding():
    batch = next_token_collator([{"input_ids": [7, 8, 9]}, {"input_ids": [6]}])
    assert batch["input_ids"][0].tolist() == [7, 8, 9] == batch["labels"][0].tolist()
    assert batch["labels"][1].tolist() == [6, -100, -100] and batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pretraining_learns_its_text(tmp_path, architecture):
    tokenizer = train_tokenizer(TEXTS, architecture, 200)
    model = new_backbone(architecture, tokenizer, hidden_size=32, layers=1, heads=2, max_positions=128, seed=1)
    epochs = 30 if architecture == "bert" else 6  # of a text BERT is asked a seventh at a time
    history = pretrain(
        model, tokenizer, TEXTS * 5, block_size=16, seed=1, output_dir=tmp_path, num_train_epochs=epochs,
        learning_rate=0.01, per_device_train_batch_size=8,
    )  # fmt: skip
    loss = history["train_loss" if architecture == "bert" else "valid_loss"]  # held out are too few words to hide some of them
    assert len(history) == epochs and loss.iloc[-1] < 0.7 * loss.iloc[0]


def test_the_encoder_of_a_small_cpt_keeps_its_tokens_apart(tmp_path):
    """If its states at all places of a text were equal, UniMIND(CPT) would give nearly the same answer to every sample."""
    tokenizer = train_tokenizer(tiny.texts(), "cpt", 800)
    model = new_backbone("cpt", tokenizer, hidden_size=128, layers=2, heads=4, max_positions=128, seed=1)
    pretrain(
        model, tokenizer, tiny.texts(), block_size=32, seed=1, output_dir=tmp_path, num_train_epochs=2, learning_rate=0.002,
        per_device_train_batch_size=8, warmup_steps=0.05,
    )  # fmt: skip
    ids = torch.tensor([tokenizer(tiny.texts()[0])["input_ids"][:32]])
    with torch.no_grad():
        states = torch.nn.functional.normalize(model.eval().model.encoder(ids, torch.ones_like(ids), token_type=1).last_hidden_state[0], dim=-1)
    assert (states @ states.T).mean() < 0.96  # 0.91; with a trained token type 0.996


def test_bert_names_a_seventh_of_the_words_and_reads_between_its_marks():
    tokenizer = train_tokenizer(TEXTS, "bert", 200)
    torch.manual_seed(1)
    batch = pretraining_collator("bert", tokenizer)([{"input_ids": [7] * 400}, {"input_ids": [8] * 100}])
    asked = batch["labels"] != -100
    assert batch["input_ids"][:, 0].tolist() == [tokenizer.cls_token_id] * 2 and not asked[:, 0].any() and not asked[1, 101:].any()
    assert batch["input_ids"][1, 101] == tokenizer.sep_token_id and 0.1 < asked.sum() / 500 < 0.2
    assert set(batch["labels"][asked].tolist()) == {7, 8} and (batch["input_ids"] == tokenizer.mask_token_id).sum() > 0.6 * asked.sum()


def test_pretraining_text_holds_all_of_training_and_nothing_of_validation_and_test():
    def marked(dialogue, mark):
        spoken = [u.model_copy(update={"send_content": f"{mark}{u.send_content}"}) for u in dialogue.dialogue]
        return dialogue.model_copy(update={"dialogue": spoken})

    corpus = tiny.corpus()
    dialogues = {split: [marked(d, f"〔{split}〕") for d in corpus.dialogues[split]] for split in SPLITS}
    corpus = Corpus(dialogues, corpus.knowledge, corpus.behaviour)
    facts = build_catalogue(corpus, CHINESE).items["facts"].tolist()
    texts = pretraining_texts(corpus.dialogues["train"], facts, CHINESE)
    joined = "\n".join(texts)
    utterances = [u.send_content for d in dialogues["train"] for u in d.dialogue if u.sender_type == "用户"]
    assert utterances and all(text in joined for text in utterances)
    assert all(fact in texts for fact in facts if fact) and any(facts)
    assert "〔valid〕" not in joined and "〔test〕" not in joined


def test_a_wrong_checkpoint_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="holds no config.json"):
        check_checkpoint(str(tmp_path))
    for missing in (str(tmp_path / "missing"), "./missing", "a/b/c", "bart"):
        with pytest.raises(CheckpointError, match="no such folder; give a checkpoint folder or a hub id"):
            check_checkpoint(missing)

    def unreachable(self, name, timeout):
        raise OSError(f"{name} is not a valid model identifier\nlong explanation")

    monkeypatch.setattr(checks.HfApi, "model_info", unreachable)
    with pytest.raises(CheckpointError, match=r"^nobody/nothing: .*not a valid model identifier\); check the name") as error:
        load_seq2seq("nobody/nothing")
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text("{}")
    check_checkpoint(str(tmp_path))
    monkeypatch.setattr(checks.HfApi, "model_info", lambda self, name, timeout: None)
    check_checkpoint("somebody/something")
