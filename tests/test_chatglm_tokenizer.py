"""ChatGLM's tokenizer against the published one's output, and small ones of its layout."""

import copy
import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig
from llmcrs_utils.checkpoints.chatglm_tokenizer import VOCAB_FILE, ChatGLMTokenizer, config_ids, train_chatglm_tokenizer
from llmcrs_utils.llm.ranking import letter_tokens
from llmcrs_utils.text.prompts import LETTERS

SHARED = Path(__file__).parents[2] / "shared" / "models" / "chatglm_tokenizer"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the published tokenizer file is not here")

TEXTS = [
    "用户：推荐一款防晒霜，油皮用 要便宜的\n价格区间是高；类目是防晒霜",
    "iPhone 13 内存128G多少钱？\n客服：2999元\t鞋子A、C",
    "Apples: waterproof running shoes for running, red or blue shoes",
] * 5  # fmt: skip
PUBLISHED_CONFIG = {
    "name_or_path": "THUDM/chatglm-6b", "bos_token": "<sop>", "eos_token": "<eop>", "end_token": "</s>", "gmask_token": "[gMASK]",
    "mask_token": "[MASK]", "pad_token": "<pad>", "unk_token": "<unk>", "remove_space": False, "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0,
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
}  # fmt: skip


@cache
def small() -> ChatGLMTokenizer:
    return train_chatglm_tokenizer(TEXTS, 600)


def test_a_text_ends_in_gmask_and_sop_and_an_answer_in_eop():
    tokens = small().convert_ids_to_tokens(small()("推荐")["input_ids"])
    assert tokens == ["▁", "推", "荐", "[gMASK]", "<sop>"]
    pair = small()("推荐", "鞋子 A")
    assert small().convert_ids_to_tokens(pair["input_ids"])[5:] == [*small().tokenize("鞋子 A"), "<eop>"]
    assert set(pair) == {"input_ids", "attention_mask"}
    assert small()("推荐", add_special_tokens=False)["input_ids"] == small()("推荐")["input_ids"][:-2]
    specials = small()("推荐", "鞋", return_special_tokens_mask=True)
    of_ids = small().get_special_tokens_mask(specials["input_ids"], already_has_special_tokens=True)
    assert specials["special_tokens_mask"] == [0, 0, 0, 1, 1, *[0] * (len(of_ids) - 6), 1] == of_ids


def test_chinese_digits_and_lone_capitals_are_one_token_each():
    assert small().tokenize("推荐128G") == ["▁", "推", "荐", "1", "2", "8", "G"]
    assert small().tokenize("A") == ["▁", "A"] and small().tokenize("款A、C B\nD")[2:] == ["A", "、", "C", "▁", "B", "<n>", "D"]
    assert len(small().tokenize("running running shoes")) < 10
    phrases = train_chatglm_tokenizer(["价格区间是高；材质 是棉", "用户：价格区间是低，材质 是麻", "价格区间是中"] * 20, 600)
    assert not [piece for piece in phrases.get_vocab() if len(piece) > 1 and re.search("[\u3400-\u9fff]", piece)]


@pytest.mark.parametrize("texts", [TEXTS, ["你好"], ["APPLE BANANA CHERRY A B C"] * 9], ids=["mixed", "tiny", "capitals"])
def test_candidates_letters_are_told_apart_by_one_token(texts):
    letters = letter_tokens(train_chatglm_tokenizer(texts, 500))
    assert len({first for first, _ in letters}) == 1 and len({second for _, second in letters}) == len(LETTERS)


@pytest.mark.parametrize(
    "text",
    [*TEXTS[1:3], "第一行\n\n第四行", "\t制表", "x" + " " * 85 + "y", "  两格", "龘靐 Zürich 👋", "a b  c   d", "<n>", "[gMASK] </s>", ""],
)
def test_text_survives_encoding_and_decoding(text):
    half_width = text.replace("：", ":").replace("？", "?").replace("<n>", "\n")
    tokenizer = small()
    for special in (True, False):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=special)["input_ids"], skip_special_tokens=True) == half_width
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text)) == half_width
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_typed_special_tokens_are_what_they_were_when_chatglm_was_trained():
    tokenizer = small()
    assert tokenizer("鞋  <eop>\n鞋")["input_ids"][:5] == tokenizer.convert_tokens_to_ids(["▁", "鞋", "<eop>", "▁", "鞋"])
    assert tokenizer.gmask_token_id not in tokenizer("[gMASK]", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("</s>") not in tokenizer("</s>")["input_ids"]
    assert tokenizer.convert_tokens_to_ids("no such piece") == tokenizer.unk_token_id


def test_ids_of_no_piece_and_pads_decode_to_nothing():
    ids = small()("推荐")["input_ids"]
    assert small().decode([small().pad_token_id, *ids, len(small()) + 7]) == "推荐"
    assert small().decode(ids[1]) == "推" and small().batch_decode([ids, ids[:2]]) == ["推荐", "推"]


def test_a_batch_is_padded_on_the_left_or_where_asked():
    texts = ["推荐一款鞋", "鞋"]
    rows = [small()(text)["input_ids"] for text in texts]
    gap = len(rows[0]) - len(rows[1])
    left = small()(texts, padding=True)
    assert left["input_ids"][1] == [small().pad_token_id] * gap + rows[1]
    assert left["attention_mask"][1] == [0] * gap + [1] * len(rows[1])
    right = small()(texts, padding=True, padding_side="right", return_tensors="pt")
    assert right["input_ids"][1].tolist() == rows[1] + [small().pad_token_id] * gap
    assert right["attention_mask"].sum(1).tolist() == [len(row) for row in rows]


def test_equal_texts_give_equal_tokenizers_and_very_long_lines_are_read():
    assert train_chatglm_tokenizer(TEXTS, 600).sp.serialized_model_proto() == small().sp.serialized_model_proto()
    long = train_chatglm_tokenizer(["你好waterproof" * 3000 + "龘"], 600)
    assert "龘" in long.get_vocab() and len(long.tokenize("waterproof")) < 9


def test_vocab_size_counts_all_pieces_and_yields_only_to_the_texts_characters():
    assert len(train_chatglm_tokenizer(TEXTS, 480)) <= 600 and "霜" in train_chatglm_tokenizer(TEXTS, 1).get_vocab()
    syllables = ["ra", "ne", "ti", "so", "lu", "mak", "pel", "vig", "dor", "fus"]
    english = [f"{a}{b}{c} {c}{a}" for a in syllables for b in syllables for c in syllables]
    assert len(train_chatglm_tokenizer(english, 480)) <= 480 < len(train_chatglm_tokenizer(english, 600)) <= 600
    with pytest.raises(ValueError, match="no text"):
        train_chatglm_tokenizer(["", "\n"], 500)


def test_a_config_takes_its_ids_from_the_tokenizer():
    config = ChatGLMConfig(hidden_size=32, num_attention_heads=2, num_layers=1, inner_hidden_size=64, **config_ids(small()))
    shoe = small()("鞋", add_special_tokens=False)["input_ids"]
    assert small()("鞋", "鞋")["input_ids"] == [*shoe, config.gmask_token_id, config.bos_token_id, *shoe, config.eos_token_id]
    assert config.vocab_size == len(small()) == len(small().get_vocab())
    assert small().convert_ids_to_tokens(config.mask_token_id) == "[MASK]" and config.pad_token_id == small().pad_token_id


def assert_same(one: ChatGLMTokenizer, other: ChatGLMTokenizer) -> None:
    texts = [*TEXTS[:3], "鞋  <eop> [gMASK]"]
    assert one(texts, padding=True).data == other(texts, padding=True).data
    assert one.get_vocab() == other.get_vocab() and one.all_special_ids == other.all_special_ids


def test_a_saved_tokenizer_loads_the_same_and_names_no_code(tmp_path):
    ChatGLMConfig(**config_ids(small())).save_pretrained(tmp_path)
    small().save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", VOCAB_FILE, "tokenizer_config.json"}
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "ChatGLMTokenizer" and "auto_map" not in settings
    assert_same(ChatGLMTokenizer.from_pretrained(tmp_path), small())
    assert_same(AutoTokenizer.from_pretrained(tmp_path), small())
    ChatGLMTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert_same(AutoTokenizer.from_pretrained(tmp_path / "again", config=ChatGLMConfig()), small())
    assert_same(copy.deepcopy(small()), small())


def published_folder(path: Path, vocabulary: bytes) -> Path:
    (path / VOCAB_FILE).write_bytes(vocabulary)
    (path / "tokenizer_config.json").write_text(json.dumps(PUBLISHED_CONFIG))
    code = {"auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig"}}
    (path / "config.json").write_text(json.dumps(code | {"model_type": "chatglm"} | config_ids(small())))
    return path


@pytest.mark.parametrize("load", [ChatGLMTokenizer.from_pretrained, AutoTokenizer.from_pretrained], ids=["class", "auto"])
def test_a_folder_of_published_files_loads_without_a_question(tmp_path, monkeypatch, load):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to trust code"))
    loaded = load(published_folder(tmp_path, small().sp.serialized_model_proto()))
    assert type(loaded) is ChatGLMTokenizer and loaded.padding_side == "left"
    assert_same(loaded, small())
    loaded.save_pretrained(tmp_path / "again")
    assert "auto_map" not in json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())


def test_added_tokens_follow_the_pieces_and_survive(tmp_path):
    tokenizer = copy.deepcopy(small())
    assert tokenizer.add_tokens(["[user]", "推"]) == 1 and len(tokenizer) == len(small()) + 1
    ids = tokenizer("鞋[user]鞋", add_special_tokens=False)["input_ids"]
    assert ids.count(len(small())) == 1 and tokenizer.decode(ids) == "鞋[user]鞋"
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["[LLM]"]}) == 1
    both = tokenizer("[user]鞋[LLM]", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(both, skip_special_tokens=True) == "[user]鞋" and tokenizer.decode(both) == "[user]鞋[LLM]"
    tokenizer.save_pretrained(tmp_path)
    assert ChatGLMTokenizer.from_pretrained(tmp_path)("鞋[user]鞋", add_special_tokens=False)["input_ids"] == ids


def test_files_of_other_models_are_refused(tmp_path):
    file = tmp_path / "first.model"
    with file.open("wb") as opened:  # pieces like the first release's: <n> and <pad>, no [gMASK]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), model_writer=opened, vocab_size=80, hard_vocab_limit=False, pad_id=3,
            user_defined_symbols=["<n>"], minloglevel=2,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"first\.model has \d+ pieces and no \[MASK\], \[gMASK\].*first release.*a8ede82"):
        ChatGLMTokenizer(str(file))
    file.write_bytes(small().sp.serialized_model_proto()[:-50])
    with pytest.raises(ValueError, match=r"first\.model is no whole sentencepiece file"):
        ChatGLMTokenizer(str(file))
    with pytest.raises(ValueError, match="ice_text.model"):
        ChatGLMTokenizer()


# What the published tokenizer gave.


@cache
def published() -> ChatGLMTokenizer:
    return ChatGLMTokenizer.from_pretrained(SHARED)


@cache
def expected() -> dict:
    return json.loads((SHARED / "expected_chatglm_a8ede82.json").read_text(encoding="utf-8"))


@needs_shared
def test_published_texts():
    assert len(expected()["texts"]) > 20
    for case in expected()["texts"]:
        text, ids = case["text"], case["ids_special"]
        assert published().tokenize(text) == case["tokens"], text
        assert published()(text)["input_ids"] == ids, text
        assert published()(text, add_special_tokens=False)["input_ids"] == case["ids_plain"], text
        assert published().decode(case["ids_plain"]) == case["decode_plain"], text
        assert published().decode(ids, skip_special_tokens=True) == case["decode_special_skip"], text
        assert published().decode(ids) == case["decode_special_noskip"], text


@needs_shared
def test_published_ids_pairs_and_batches():
    case = expected()
    assert {piece: published().convert_tokens_to_ids(piece) for piece in case["ids_of"]} == case["ids_of"]
    assert len(published()) == case["len"] == published().vocab_size
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "mask_token_id", "gmask_token_id"):
        assert getattr(published(), name) == case["special"][name]
    assert published().all_special_tokens == case["special"]["all_special_tokens"]
    assert published()("你好")["input_ids"] == case["build_single"]
    first = published()("你好", add_special_tokens=False)["input_ids"]
    second = case["build_pair"][len(first) + 2 : -1]
    assert published().build_inputs_with_special_tokens(first, second) == case["build_pair"] == case["pair_call"]
    assert published()("你好", published().decode(second))["input_ids"] == case["pair_call"]
    rows = [[index for index in row if index != 3] for row in case["batch"]["input_ids"]]
    batch = published()([published().decode(row[:-2]) for row in rows], padding=True)
    assert batch["input_ids"] == case["batch"]["input_ids"]
    # Where the published mask lets the last column, <sop>, look.
    looks = [[1 - blocked for blocked in matrix[0][-1]] for matrix in case["batch"]["attention_mask"]]
    assert batch["attention_mask"] == looks


@needs_shared
def test_published_training_example():
    ids, labels = expected()["sft_example"]["input_ids"], expected()["sft_example"]["labels"]
    start = ids.index(published().bos_token_id)
    prompt, answer = published().decode(ids[: start - 1]), published().decode(ids[start + 1 : -1])
    assert published()(prompt, answer)["input_ids"] == ids
    assert labels == [-100] * start + ids[start:]


@needs_shared
def test_the_published_files_load_through_auto_classes_and_tell_letters_apart(tmp_path):
    for file in (VOCAB_FILE, "tokenizer_config.json"):
        shutil.copy(SHARED / file, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is ChatGLMTokenizer and loaded("你好")["input_ids"] == [5, 74874, 130001, 130004]
    assert config_ids(loaded) == {
        "vocab_size": 130344, "bos_token_id": 130004, "eos_token_id": 130005, "pad_token_id": 3, "mask_token_id": 130000,
        "gmask_token_id": 130001,
    }  # fmt: skip
    assert len({token for (token,) in letter_tokens(loaded)}) == 20
