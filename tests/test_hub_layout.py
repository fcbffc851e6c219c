"""Folders laid out like the published checkpoints load offline, without a question and without code of theirs."""

import builtins
import json
import socket
import sys
from pathlib import Path

import hub
import pytest
import sentencepiece
import tiny
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, BartForConditionalGeneration, BertTokenizer, LlamaForCausalLM, dynamic_module_utils

from llmcrs_utils.checkpoints import merging
from llmcrs_utils.checkpoints.chatglm import ChatGLMForConditionalGeneration
from llmcrs_utils.checkpoints.chatglm_tokenizer import ChatGLMTokenizer
from llmcrs_utils.checkpoints.checks import CheckpointError, check_checkpoint
from llmcrs_utils.checkpoints.cpt import CPTForConditionalGeneration
from llmcrs_utils.checkpoints.llama_tokenizer import SentencePieceLlamaTokenizer
from llmcrs_utils.checkpoints.loading import SEGMENT_TOKENS, load_causal, load_seq2seq, load_tokenizer
from llmcrs_utils.checkpoints.merging import merge_adapters, with_adapters
from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.crs.predict import predict
from llmcrs_utils.crs.tuning import train_two_stages, with_states
from llmcrs_utils.crs.unimind import UniMind, new_unimind
from llmcrs_utils.llm.ranking import letter_tokens
from llmcrs_utils.text.prompts import CHINESE, LETTERS
from llmcrs_utils.training.collators import unimind_collator

CRS = {"bart_base_chinese": BartForConditionalGeneration, "cpt_base": CPTForConditionalGeneration}
LLM = {"chatglm_6b": ChatGLMForConditionalGeneration, "chinese_alpaca_plus_7b": LlamaForCausalLM}
LINES = ["推荐一款防晒霜，油皮用的", "iPhone 13 内存128G多少钱？", "第一行\n\n第二行", "A、B、C", "未见过的字：鑫😀"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No terminal, no network, and nobody asks whether code of the checkpoint may run."""

    def never(*args, **kwargs):
        raise AssertionError("a question was asked, or the network used")

    monkeypatch.setattr(builtins, "input", never)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(socket.socket, "connect", never)
    # With this little time to answer, transformers raises where it would ask.
    monkeypatch.setattr(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0)
    monkeypatch.setattr(dynamic_module_utils, "get_class_in_module", never)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    return {name: getattr(hub, name)(root / name, tiny.texts()) for name in [*CRS, *LLM]}


def stored(folder) -> dict[str, torch.Tensor]:
    weights = {}
    for file in folder.glob("*.bin"):
        weights |= torch.load(file, weights_only=True)
    return weights


@pytest.mark.parametrize("name", [*CRS, *LLM])
def test_each_folder_loads_with_its_own_weights(folders, tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "hub0" / name
    assert str(folder) == folders[name] and not list(folder.glob("*.safetensors"))
    check_checkpoint(folders[name], "crs" if name in CRS else "llm")
    model = load_seq2seq(folders[name]) if name in CRS else load_causal(folders[name])
    assert type(model) is (CRS | LLM)[name]
    loaded = model.state_dict()
    ignored = ("position_ids", "inv_freq")
    weights = {key: tensor for key, tensor in stored(folder).items() if not key.endswith(ignored)}
    assert len(weights) == len(loaded) > 20
    assert all(torch.equal(loaded[key], tensor.float()) for key, tensor in weights.items())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    ids = load_tokenizer(folders[name])("推荐一款防晒霜")["input_ids"]
    written = model.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False)
    assert written.shape[1] > 1


@pytest.mark.parametrize("name", CRS)
def test_chinese_bart_reads_with_the_ids_of_its_model(folders, name):
    plain, tokenizer = load_tokenizer(folders[name]), load_tokenizer(folders[name], segments=True)
    assert type(tokenizer) is BertTokenizer and not tokenizer.do_lower_case
    assert list(tokenizer("iPhone")) == ["input_ids", "attention_mask"]  # BART takes no token types
    assert tokenizer.convert_ids_to_tokens([0, 100, 101, 102, 103, 104]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EOS]"]
    assert tokenizer.tokenize("油皮iPhone用：") == ["油", "皮", "i", "##P", "##h", "##o", "##n", "##e", "用", "："]
    assert tokenizer.pad_token_id == 0 and len(tokenizer) == len(plain) + len(SEGMENT_TOKENS)
    assert tokenizer.convert_tokens_to_ids(SEGMENT_TOKENS) == list(range(len(plain), len(tokenizer)))
    config = load_seq2seq(folders[name]).generation_config
    assert (config.decoder_start_token_id, config.eos_token_id, config.forced_eos_token_id) == (102, 102, 102)
    assert (config.num_beams, config.no_repeat_ngram_size) == (4, 3)


@pytest.mark.parametrize("name", CRS)
def test_unimind_reads_one_end_token_a_text_and_learns_and_predicts(folders, name, tmp_path):
    tokenizer = load_tokenizer(folders[name], segments=True)
    samples = tiny.some_samples(4)
    turns = [[["[user]贵吗[SEP]要[EOS]便宜的"]], *samples["context"].tolist()[1:]]  # a shopper may type special tokens
    samples = samples.assign(context=turns)
    examples, _ = encode_samples(samples, tokenizer, CHINESE, tiny.dataset().index, 128, 12)
    for example in examples:
        ids = example["input_ids"]
        assert ids[0] == 101 and ids[-1] == 102 and ids.count(102) == 1 and 104 not in ids
    vectors = torch.full((len(tiny.dataset().items), 16), torch.nan)
    model = new_unimind(folders[name], len(tokenizer), vectors, 50, False, seed=1)
    width = 32 * (2 if name == "cpt_base" else 1)
    assert model.backbone.get_input_embeddings().num_embeddings == len(tokenizer) == model.backbone.final_logits_bias.shape[1]
    recommend = [example for example in examples if "gold" in example]
    collate = unimind_collator(tokenizer.pad_token_id, len(vectors))
    cached = with_states(model, recommend, collate, batch_size=3)
    for example, kept in zip(recommend, cached, strict=True):
        ids = torch.tensor([example["input_ids"]])
        with torch.no_grad():
            alone = model.backbone_states(ids, torch.ones_like(ids))[0]
        assert alone.shape == (width,) and alone.std() > 0.1
        torch.testing.assert_close(kept["states"], alone, rtol=0, atol=1e-5)
    history = train_two_stages(
        model, examples, examples, tokenizer, output_dir=tmp_path, stage_one_epochs=1,
        stage_one_learning_rate=0.001, stage_two_epochs=2, stage_two_learning_rate=0.003, per_device_train_batch_size=4, seed=1,
    )  # fmt: skip
    losses = history[history["stage"] == "all tasks"]["valid_loss"].tolist()
    assert losses[1] < losses[0] - 0.2
    model.save_pretrained(tmp_path / "saved")
    loaded = UniMind.from_pretrained(tmp_path / "saved")
    answers = [
        predict(one, tokenizer, samples, examples, tiny.dataset().index, CHINESE, num_beams=2, max_target_len=6, batch_size=4)
        for one in (model, loaded)
    ]
    tiny.assert_same_answers(*answers)
    assert answers[0]["scores"].map(len).tolist() == [20 if task == "recommend" else 0 for task in samples["task"]]


def test_chatglm_reads_with_its_own_tokenizer(folders):
    tokenizer = load_tokenizer(folders["chatglm_6b"])
    assert type(tokenizer) is ChatGLMTokenizer
    config = load_causal(folders["chatglm_6b"]).config
    ids = tokenizer("推荐一款防晒霜")["input_ids"]
    assert ids[-2:] == [config.gmask_token_id, config.bos_token_id] and tokenizer.pad_token_id == config.pad_token_id
    assert tokenizer.eos_token_id == config.eos_token_id and len(tokenizer) < config.vocab_size


def test_alpaca_reads_as_sentencepiece_does_behind_the_start_token(folders):
    folder = folders["chinese_alpaca_plus_7b"]
    tokenizer = load_tokenizer(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    lines = LINES + [line for text in tiny.texts() for line in text.split("\n")]
    assert tokenizer(lines)["input_ids"] == [[1, *processor.encode(line)] for line in lines]
    assert tokenizer(lines, add_special_tokens=False)["input_ids"] == [processor.encode(line) for line in lines]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert tokenizer.pad_token_id == tokenizer.unk_token_id and len(tokenizer) == processor.vocab_size()
    for line in lines:
        assert tokenizer.decode(tokenizer(line)["input_ids"], skip_special_tokens=True) == line


def test_what_transformers_rebuilds_from_chinese_llama_reads_otherwise(tmp_path):
    """Why the tokenizer is run by sentencepiece; should this fail one day, transformers' own will do."""
    texts = ["想要低帮的，男款的哈。" * 3, "低帮的好，帮的上"] * 4 + tiny.texts()
    folder = tmp_path / "llama"
    hub.llama(folder, hub.with_chinese(hub.llama_tokenizer(), texts))
    rebuilt = AutoTokenizer.from_pretrained(folder)
    lines = [line for text in texts for line in text.split("\n")]
    assert rebuilt(lines)["input_ids"] != load_tokenizer(str(folder))(lines)["input_ids"]


@pytest.mark.parametrize("name", LLM)
def test_a_saved_tokenizer_reads_as_before(folders, name, tmp_path):
    tokenizer = load_tokenizer(folders[name])
    tokenizer.save_pretrained(tmp_path)  # as beside an adapter: no config.json
    again = load_tokenizer(str(tmp_path))
    assert type(again) is type(tokenizer) and again(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    assert (len(again), again.pad_token_id, again.eos_token_id) == (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)


@pytest.mark.parametrize("name", LLM)
def test_letters_are_told_apart_by_one_token(folders, name):
    letters = letter_tokens(load_tokenizer(folders[name]))
    assert len({letter[-1] for letter in letters}) == len(LETTERS) and len({tuple(letter[:-1]) for letter in letters}) == 1
    assert len(letters[0]) <= 2


def test_other_adapters_and_newer_files_of_theirs_are_merged_in_folders_of_their_own(tmp_path, plus):
    base, adapters, _ = plus
    assert with_adapters(base, [], tmp_path) == base
    one, both = (with_adapters(base, some, tmp_path) for some in (adapters[:1], adapters))
    assert one != both and with_adapters(base, adapters[:1], tmp_path) == one
    config = Path(adapters[0]) / "adapter_config.json"
    config.touch()  # the time of a file means nothing, its content does
    assert with_adapters(base, adapters[:1], tmp_path) == one
    config.write_text(config.read_text() + " ")
    assert with_adapters(base, adapters[:1], tmp_path) not in (one, both)


def test_a_llama_of_another_maker_keeps_its_own_tokens(tmp_path, folders):
    """Special tokens and whether a text is opened are the settings'; a file without them is refused."""
    for name in ("tokenizer.model", "config.json"):
        (tmp_path / name).write_bytes((Path(folders["chinese_alpaca_plus_7b"]) / name).read_bytes())
    said = {"add_bos_token": False, "eos_token": "<unk>", "bos_token": ""}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "<unk>")
    assert tokenizer("推荐")["input_ids"][0] != tokenizer.bos_token_id
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|startoftext|>"}))
    with pytest.raises(ValueError, match=r"holds no <\|startoftext\|>: it is not LLaMA's"):
        load_tokenizer(str(tmp_path))


def test_a_llama_may_end_texts_with_a_token_added_beside_its_file(tmp_path, folders):
    for name in ("tokenizer.model", "config.json"):
        (tmp_path / name).write_bytes((Path(folders["chinese_alpaca_plus_7b"]) / name).read_bytes())
    pieces = json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    hub.save_json(tmp_path / "added_tokens.json", {"<|im_start|>": pieces, "<|im_end|>": pieces + 1})
    hub.save_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    tokenizer = load_tokenizer(str(tmp_path))
    assert type(tokenizer) is SentencePieceLlamaTokenizer and len(tokenizer) == pieces + 2
    ids = tokenizer("推荐一款<|im_end|>")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id == pieces + 1 and ids[:-1] == tokenizer("推荐一款")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "推荐一款"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(str(tmp_path / "saved"))("推荐一款<|im_end|>")["input_ids"] == ids


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_both_llms_can_be_held_in_few_bits(folders, bits):
    for name in LLM:
        tokenizer, exact = load_tokenizer(folders[name]), load_causal(folders[name]).eval()
        model = load_causal(folders[name], bits).eval()
        batch = torch.tensor([tokenizer("推荐一款防晒霜，油皮用的")["input_ids"]])
        found, expected = model(batch).logits[0, -1], exact(batch).logits[0, -1]
        kinds = {type(module).__name__ for module in model.modules()}
        assert {4: "Linear4bit", 8: "Linear8bitLt"}[bits] in kinds
        assert not torch.equal(found, expected) and torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.9


def test_other_numbers_of_bits_are_refused(folders):
    with pytest.raises(ValueError, match="quantization_bit=5: give 4 or 8, or 0"):
        load_causal(folders["chinese_alpaca_plus_7b"], 5)


# --- a base and its published adapters


@pytest.fixture(scope="module")
def plus(tmp_path_factory):
    """LLaMA, the LoRA of Chinese-LLaMA-Plus, and that of Chinese-Alpaca-Plus, which adds [PAD]."""
    root = tmp_path_factory.mktemp("plus")
    base = hub.llama_tokenizer()
    chinese = hub.with_chinese(base, tiny.texts())
    adapters = [hub.lora(root / "llama-plus", chinese, False, seed=2), hub.lora(root / "alpaca-plus", chinese, True, seed=3)]
    return hub.llama(root / "llama", base), adapters, len(chinese.pieces)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_are_folded_in_one_after_the_other(plus, tmp_path):
    base, adapters, pieces = plus
    merge_adapters(base, adapters, tmp_path / "merged")
    check_checkpoint(str(tmp_path / "merged"), "llm")
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        merged = {name: file.get_tensor(name) for name in file.keys()}
    expected = {name: tensor.float() for name, tensor in stored(hub.Path(base)).items()}
    for adapter in adapters:
        weights = {name.removeprefix("base_model.model."): tensor.float() for name, tensor in stored(hub.Path(adapter)).items()}
        for name in expected:
            stem = name.removesuffix(".weight")
            if f"{stem}.lora_A.weight" in weights:
                expected[name] = expected[name] + 4 * weights[f"{stem}.lora_B.weight"] @ weights[f"{stem}.lora_A.weight"]
            elif name in weights:
                expected[name] = weights[name]
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2e-3, atol=2e-3, msg=name)
    assert merged["lm_head.weight"].shape[0] == pieces + 1
    tokenizer = load_tokenizer(str(tmp_path / "merged"))
    assert type(tokenizer) is SentencePieceLlamaTokenizer and tokenizer.pad_token_id == pieces == len(tokenizer) - 1
    assert tokenizer(LINES)["input_ids"] == load_tokenizer(adapters[1])(LINES)["input_ids"]
    assert load_causal(str(tmp_path / "merged")).config.vocab_size == pieces + 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_merge_is_made_once_anew_for_other_sources_and_over_nothing_else(plus, tmp_path, monkeypatch):
    base, adapters, _ = plus
    output = tmp_path / "merged"

    def made():
        return (output / "model.safetensors").stat().st_mtime_ns

    merge_adapters(base, adapters[:1], output)
    first = made()
    merge_adapters(base, adapters[:1], output)
    assert made() == first and [path.name for path in tmp_path.iterdir()] == ["merged"]
    merge_adapters(base, adapters, output)
    assert made() != first
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds something that was not merged here"):
        merge_adapters(base, adapters, kept)
    assert (kept / "thesis.txt").exists()
    monkeypatch.setattr(merging.PeftModel, "from_pretrained", lambda *args, **kwargs: 1 / 0)
    second = made()
    with pytest.raises(ZeroDivisionError):
        merge_adapters(base, adapters[1:], output)
    assert made() == second


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_another_job_merged_meanwhile_is_kept(plus, tmp_path, monkeypatch):
    base, adapters, _ = plus
    output, check = tmp_path / "merged", merging.check_tokenizer

    def late(folder):
        monkeypatch.setattr(merging, "check_tokenizer", check)
        merge_adapters(base, adapters[:1], output)
        (output / "in use").touch()

    monkeypatch.setattr(merging, "check_tokenizer", late)
    merge_adapters(base, adapters[:1], output)
    assert (output / "in use").exists() and [path.name for path in tmp_path.iterdir()] == ["merged"]
    monkeypatch.setattr(merging, "check_tokenizer", late)
    merge_adapters(base, adapters, output)  # of other sources: replaced
    assert not (output / "in use").exists() and [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_that_do_not_fit_are_refused(plus, tmp_path):
    base, adapters, _ = plus
    with pytest.raises(CheckpointError, match="llama: this is no adapter: adapter_config.json is not there"):
        merge_adapters(base, [base], tmp_path / "merged")
    with pytest.raises(CheckpointError, match="alpaca-plus: this folder holds no config.json; it is an adapter"):
        merge_adapters(adapters[1], adapters[:1], tmp_path / "merged")
    poor = tmp_path / "poor"
    hub.lora(poor, hub.with_chinese(hub.llama_tokenizer(), tiny.texts()), False, seed=2)
    weights = {name: tensor for name, tensor in stored(poor).items() if "lora_" in name}
    torch.save(weights, poor / "adapter_model.bin")
    config = json.loads((poor / "adapter_config.json").read_text()) | {"modules_to_save": None}
    (poor / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"poor: its tokenizer knows \d+ tokens, and embeddings for all of them are not here"):
        merge_adapters(base, [str(poor)], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
