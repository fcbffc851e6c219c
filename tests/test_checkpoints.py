"""Wrong checks are told before anything is loaded: one clear error each."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hub
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from llmcrs_utils.checkpoints import checks
from llmcrs_utils.checkpoints.checks import CheckpointError, architecture, check_checkpoint, weight_names
from llmcrs_utils.checkpoints.layers import missing_layers
from llmcrs_utils.checkpoints.loading import load_causal, load_encoder, load_seq2seq, load_tokenizer
from llmcrs_utils.checkpoints.merging import merge_adapters
from llmcrs_utils.llm.tuning import load_tuned, new_lora

KIND = {"bart_base_chinese": "crs", "cpt_base": "crs", "chatglm_6b": "llm", "chinese_alpaca_plus_7b": "llm"}
SHARD = "pytorch_model-00002-of-00002.bin"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return {name: Path(getattr(hub, name)(root / name, tiny.texts())) for name in KIND}


@pytest.fixture
def copy(originals, tmp_path):
    return lambda name: Path(shutil.copytree(originals[name], tmp_path / name))


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    hub.save_json(folder / "config.json", config | changes)


def refusal(folder: Path, kind: str | None) -> str:
    with pytest.raises(CheckpointError) as error:
        check_checkpoint(str(folder), kind)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", KIND)
def test_whole_folders_pass_as_what_they_are_and_as_nothing_else(originals, name):
    folder = str(originals[name])
    check_checkpoint(folder)
    check_checkpoint(folder, KIND[name])
    other = {"crs": "llm", "llm": "crs"}[KIND[name]]
    message = {
        "bart_base_chinese": "encoder-decoder of type bart; an LLM has to be",
        "cpt_base": "encoder-decoder of type cpt; an LLM has to be",
        "chatglm_6b": "model of type chatglm; a CRS needs BART or CPT",
        "chinese_alpaca_plus_7b": "model of type llama; a CRS needs BART or CPT",
    }[name]
    assert message in refusal(originals[name], other)
    with pytest.raises(CheckpointError, match=message):
        (load_causal if other == "llm" else load_seq2seq)(folder)


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_small_backbones_of_this_project_pass(name):
    check_checkpoint(tiny.backbone(name), "crs" if name == "bart" else "llm")


@pytest.mark.parametrize("name, kind", [("t5", "crs"), ("gpt2", "crs"), ("bert", "crs"), ("t5", "llm"), ("bert", "llm")])
def test_other_models_are_refused_for_what_they_are(originals, copy, name, kind):
    folder = copy("bart_base_chinese")
    classes = {"t5": "T5ForConditionalGeneration", "gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM"}
    change_config(folder, model_type=name, architectures=[classes[name]], is_encoder_decoder=name == "t5")
    message = refusal(folder, kind)
    assert ("a CRS needs BART or CPT" if kind == "crs" else "causal") in message and (name in message or classes[name] in message)


def test_a_folder_without_config_and_an_adapter_are_told_apart(tmp_path):
    assert "holds no config.json; give a checkpoint folder or a hub id" in refusal(tmp_path, "llm")
    (tmp_path / "adapter_config.json").write_text("{}")
    message = refusal(tmp_path, None)
    assert "it is an adapter: give the base model's folder" in message and "adapter_name_or_path" in message


def test_weights_that_were_not_fetched_are_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("runs/weights/smollm2", "llm") == "runs/weights/smollm2: no such folder; make weights MODEL=smollm2 fetches it"
    assert "make weights" not in refusal("runs/weights/smolm2", "llm")


@pytest.mark.parametrize("content, message", [("{", "this is no JSON"), ("[]", "a JSON object is expected"), ("{}", "names no model_type")])
def test_a_damaged_config_is_told(copy, content, message):
    folder = copy("bart_base_chinese")
    (folder / "config.json").write_text(content)
    assert message in refusal(folder, "crs") and "config.json" in refusal(folder, "crs")


@pytest.mark.parametrize(
    "name, file, looked_for",
    [
        ("bart_base_chinese", "vocab.txt", "tokenizer.json, tokenizer.model, vocab.txt, vocab.json"),
        ("cpt_base", "vocab.txt", "vocab.txt"),
        ("chinese_alpaca_plus_7b", "tokenizer.model", "tokenizer.model"),
        ("chatglm_6b", "ice_text.model", "ice_text.model"),
    ],
)
def test_a_missing_tokenizer_is_told_with_the_files_looked_for(copy, name, file, looked_for):
    folder = copy(name)
    (folder / file).unlink()
    message = refusal(folder, KIND[name])
    assert "no tokenizer here; looked for" in message and looked_for in message


def test_another_architecture_s_tokenizer_is_none(originals, copy):
    folder = copy("chinese_alpaca_plus_7b")
    (folder / "tokenizer.model").unlink()
    shutil.copy(originals["bart_base_chinese"] / "vocab.txt", folder)
    assert "no tokenizer here; looked for tokenizer.json, tokenizer.model" in refusal(folder, "llm")


def test_a_tokenizer_that_is_none_is_told(copy):
    folder = copy("chinese_alpaca_plus_7b")
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e")
    assert "tokenizer.model: this is no sentencepiece model" in refusal(folder, "llm")


@pytest.mark.parametrize("name", KIND)
def test_a_tokenizer_with_more_tokens_than_rows_is_told(copy, name):
    folder = copy(name)
    tokens = len(load_tokenizer(str(folder)))
    change_config(folder, vocab_size=tokens)
    if name != "chatglm_6b":
        check_checkpoint(str(folder), KIND[name])
    change_config(folder, vocab_size=tokens - 1)
    message = refusal(folder, KIND[name])
    # ChatGLM's own config looks after its ids first: they stand at the end.
    assert f"knows {tokens} tokens, the model has rows for {tokens - 1}" in message or name == "chatglm_6b" and "vocab" in message


def settings_of(folder: Path, **changes) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) if file.exists() else {}
    hub.save_json(file, {key: value for key, value in (settings | changes).items() if value != "gone"})


@pytest.mark.parametrize("null", [None, "gone", ""])
@pytest.mark.parametrize(
    ("name", "kind", "gone", "message"),
    [
        ("llama", "llm", ["eos_token"], "its tokenizer has no end token to close an answer with; name it as eos_token"),
        ("llama", "llm", ["pad_token", "unk_token", "eos_token"], "its tokenizer has no end token"),
        ("gpt2", "reply", ["eos_token", "sep_token"], "its tokenizer has no end token, nor \\[SEP\\], to close a text with"),
        ("bart", "crs", ["eos_token", "sep_token"], "its tokenizer has no end token, nor \\[SEP\\], to close a text with"),
        ("bert", "encoder", ["cls_token"], "its tokenizer has no \\[CLS\\]; name it as cls_token in tokenizer_config.json"),
        ("bert", "encoder", ["sep_token"], "its tokenizer has no \\[SEP\\]"),
        ("bert", "encoder", ["pad_token", "unk_token", "eos_token"], "its tokenizer has no token to pad with"),
    ],
)
def test_what_a_consumer_needs_of_a_tokenizer_is_asked_for(tmp_path, name, kind, gone, null, message):
    folder = Path(shutil.copytree(tiny.backbone(name), tmp_path / "copy"))
    check_checkpoint(str(folder), kind)
    settings_of(folder, **dict.fromkeys(gone, null))
    assert re.search(message, refusal(folder, kind)) and str(folder) in refusal(folder, kind)


def test_one_of_several_tokens_that_will_do_is_enough(tmp_path):
    folder = Path(shutil.copytree(tiny.backbone("gpt2"), tmp_path / "copy"))
    settings_of(folder, eos_token=None, pad_token=None)
    check_checkpoint(str(folder), "reply")
    settings_of(folder, eos_token="[SEP]", unk_token=None)
    check_checkpoint(str(folder), "llm")


def test_a_named_token_that_the_tokenizer_does_not_hold_is_told(tmp_path):
    folder = Path(shutil.copytree(tiny.backbone("llama"), tmp_path / "copy"))
    settings_of(folder, eos_token="<|endoftext|>")
    assert "names <|endoftext|> as eos_token, which tokenizer.json does not hold" in refusal(folder, "llm")


def test_a_bert_vocabulary_ends_replies_and_no_llm_s_answers(copy, tmp_path):
    folder = Path(shutil.copytree(tiny.backbone("gpt2"), tmp_path / "gpt2"))
    vocabulary = hub.chinese_vocabulary(tiny.texts())
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    vocabulary += [f"[unused{number}]" for number in range(1000, 1000 + rows - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary[:rows]) + "\n", encoding="utf-8")
    check_checkpoint(str(folder), "reply")
    assert "no end token to close an answer with" in refusal(folder, "llm")


@pytest.mark.parametrize("name, kind", [("llama", "llm"), ("bart", "crs"), ("bert", "encoder"), ("gpt2", "reply"), ("chatglm", "llm")])
def test_a_folder_below_the_user_s_own_is_checked_and_loaded_alike(tmp_path, monkeypatch, name, kind):
    shutil.copytree(tiny.backbone(name), tmp_path / "models" / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = f"~/models/{name}"
    check_checkpoint(path, kind)
    load = {"crs": load_seq2seq, "encoder": load_encoder}.get(kind, load_causal)
    assert load(path).config.model_type == name and len(load_tokenizer(path)) == len(load_tokenizer(tiny.backbone(name)))


def test_adapters_below_the_user_s_own_folder_are_checked_merged_and_loaded(tmp_path, monkeypatch):
    shutil.copytree(tiny.backbone("llama"), tmp_path / "llama")
    monkeypatch.setenv("HOME", str(tmp_path))
    model = new_lora(
        "~/llama", quantization_bit=0, lora_rank=2, lora_alpha=2, lora_dropout=0.0, lora_target=["q_proj"], modules_to_save=[],
        gradient_checkpointing=False, seed=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "adapter")
    checks.check_adapter("~/adapter")
    merge_adapters("~/llama", ["~/adapter"], tmp_path / "merged")
    load_causal(str(tmp_path / "merged"))
    assert load_tuned("~/adapter").config.model_type == "llama"
    assert missing_layers("~/llama", None, ["no_such"], [])[1] == ["no_such"]


@pytest.mark.parametrize("architecture_", ["bart", "llama"])
def test_tokens_of_a_small_backbone_are_counted(tmp_path, architecture_):
    folder = Path(shutil.copytree(tiny.backbone(architecture_), tmp_path / "copy"))
    tokens = len(load_tokenizer(str(folder)))
    assert checks.vocabulary_size(folder / "tokenizer.json") == tokens
    change_config(folder, vocab_size=tokens - 1)
    with pytest.raises(CheckpointError, match=f"tokenizer.json: the tokenizer knows {tokens} tokens"):
        checks.check_tokenizer(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_config_with_another_number_of_rows_than_the_weights_is_told(tmp_path, sharded):
    folder = Path(shutil.copytree(tiny.backbone("llama"), tmp_path / "copy"))
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    file = "model.safetensors"
    if sharded:
        file = "model-00001-of-00001.safetensors"
        names = weight_names(folder)
        (folder / "model.safetensors").rename(folder / file)
        hub.save_json(folder / "model.safetensors.index.json", {"weight_map": dict.fromkeys(names, file)})
    check_checkpoint(str(folder), "llm")
    change_config(folder, vocab_size=rows + 1)
    message = f"config.json says vocab_size {rows + 1}, {file} has {rows} rows in model.embed_tokens.weight"
    assert message in refusal(folder, "llm")
    with pytest.raises(CheckpointError, match=message):
        load_causal(str(folder))


def test_a_tokenizer_with_far_fewer_tokens_than_rows_is_told(copy, tmp_path):
    folder = copy("chinese_alpaca_plus_7b")
    hub.llama(tmp_path / "base", hub.llama_tokenizer())
    shutil.copy(tmp_path / "base" / "tokenizer.model", folder)
    assert "knows 360 tokens, the model has rows for" in refusal(folder, "llm")
    assert "take the adapter's tokenizer" in refusal(folder, "llm")


def test_added_tokens_count(copy):
    folder = copy("chinese_alpaca_plus_7b")
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": rows}))
    assert f"knows {rows + 1} tokens, the model has rows for {rows}" in refusal(folder, "llm")


def test_a_shard_that_is_not_there_is_told(copy):
    folder = copy("chinese_alpaca_plus_7b")
    (folder / SHARD).unlink()
    assert f"pytorch_model.bin.index.json names {SHARD}, which is not here" in refusal(folder, "llm")
    with pytest.raises(CheckpointError, match="which is not here"):
        load_causal(str(folder))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_shard_that_was_cut_short_is_told(copy, share):
    folder = copy("chinese_alpaca_plus_7b")
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[: int(share * len(content))])
    message = refusal(folder, "llm")
    assert f"{SHARD}: this file of {int(share * len(content))} bytes is damaged or was cut short; get it again" in message


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
def test_a_hole_in_a_file_that_has_both_of_its_ends_is_told(copy, share):
    folder = copy("bart_base_chinese")
    content = bytearray((folder / "pytorch_model.bin").read_bytes())
    start, length = int(share * len(content)), len(content) // 5
    content[start : start + length] = bytes(length)
    (folder / "pytorch_model.bin").write_bytes(content)
    assert f"pytorch_model.bin: this file of {len(content)} bytes is damaged" in refusal(folder, "crs")


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}])
def test_an_index_that_names_nothing_is_told(copy, content):
    folder = copy("chinese_alpaca_plus_7b")
    hub.save_json(folder / "pytorch_model.bin.index.json", content)
    assert "pytorch_model.bin.index.json: its weight_map names no weights" in refusal(folder, "llm")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.9999])
def test_a_safetensors_file_that_was_cut_short_is_told(copy, share):
    folder = copy("bart_base_chinese")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    check_checkpoint(str(folder), "crs")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    assert "model.safetensors: this file of" in refusal(folder, "crs") and "cut short" in refusal(folder, "crs")
    (folder / "model.safetensors").write_bytes(content[:8] + b"x" * (len(content) - 8))
    assert "damaged" in refusal(folder, "crs")


def test_a_pointer_in_place_of_weights_and_no_weights_at_all_are_told(copy):
    folder = copy("bart_base_chinese")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 561000000\n"
    (folder / "pytorch_model.bin").write_text(pointer)
    assert "this is a Git LFS pointer, not the weights; run git lfs pull" in refusal(folder, "crs")
    (folder / "pytorch_model.bin").write_text("<html>Not found</html>")
    assert "is damaged" in refusal(folder, "crs")
    (folder / "pytorch_model.bin").unlink()
    message = refusal(folder, "crs")
    assert "no weights here; looked for model.safetensors, " in message and "pytorch_model.bin.index.json" in message


@pytest.mark.parametrize("name", ["bart_base_chinese", "cpt_base"])
def test_weights_of_something_else_are_never_filled_up_at_random(copy, name):
    folder = copy(name)
    names = {"x.weight"} | ({checks.CPT_WEIGHT} if name == "cpt_base" else set())
    torch.save({key: torch.ones(1024, 32) for key in names}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"{name}: its weights lack \d+ parameters .*, \.\.\.\); take config.json and all files"):
        load_seq2seq(str(folder))


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_a_config_of_more_layers_than_the_weights_is_told(copy, bits):
    for name, layers in {"chatglm_6b": "num_layers", "chinese_alpaca_plus_7b": "num_hidden_layers"}.items():
        folder = copy(name)
        change_config(folder, **{layers: 3})
        with pytest.raises(CheckpointError, match=r"its weights lack \d+ parameters of the model .*layers\.2\."):
            load_causal(str(folder), bits)
        with pytest.raises(CheckpointError, match="its weights lack"):
            merge_adapters(str(folder), [], folder / "merged")


def test_an_encoder_without_a_weight_is_told_and_one_without_its_pooler_is_not(tmp_path):
    folder = Path(shutil.copytree(tiny.backbone("bert"), tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    assert not any("pooler" in name for name in weights)
    load_encoder(str(folder))
    lost = next(name for name in weights if name.endswith("LayerNorm.bias"))
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its weights lack 1 parameters .*LayerNorm\.bias\)"):
        load_encoder(str(folder))


@pytest.mark.parametrize("architecture_", ["llama", "chatglm"])
def test_a_head_tied_to_the_embeddings_need_not_be_stored(tmp_path, architecture_):
    folder = Path(shutil.copytree(tiny.backbone(architecture_), tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, tie_word_embeddings=True)
    model = load_causal(str(folder))
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_chatglms_other_releases_are_told(copy):
    folder = copy("chatglm_6b")
    kept = (folder / "config.json").read_text()
    first = {"vocab_size": 150528, "bos_token_id": 150004, "eos_token_id": 150005, "pad_token_id": 20003}
    change_config(folder, **first)
    message = refusal(folder, "llm")
    assert str(folder) in message and "first release" in message and "130528" in message
    (folder / "config.json").write_text(kept)
    change_config(folder, padded_vocab_size=65024, multi_query_attention=True)
    assert "second generation" in refusal(folder, "llm")


def test_the_weights_tell_cpt_from_bart_in_every_kind_of_file(originals, copy):
    assert architecture(originals["bart_base_chinese"]) == "bart" and architecture(originals["cpt_base"]) == "cpt"
    folder = copy("cpt_base")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    names = set(weights)
    assert names <= weight_names(folder)
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as torch before 1.6 wrote it
    check_checkpoint(str(folder), "crs")
    assert names <= weight_names(folder) and architecture(folder) == "cpt"
    (folder / "pytorch_model.bin").unlink()
    hub.save_shards(folder, weights, 2)
    assert names == weight_names(folder) and architecture(folder) == "cpt"
    save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors")
    assert names == weight_names(folder) and architecture(folder) == "cpt"
    check_checkpoint(str(folder), "crs")
    assert type(load_seq2seq(str(folder))).__name__ == "CPTForConditionalGeneration"


def test_a_pickle_is_listed_and_never_run(copy):
    folder, mark = copy("bart_base_chinese"), copy("cpt_base") / "mark"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"model.shared.weight": Trap()}, folder / "pytorch_model.bin")
    assert "model.shared.weight" in weight_names(folder)
    assert not mark.exists()


def test_of_a_hub_id_the_cached_config_is_looked_at(originals, monkeypatch):
    config = str(originals["chatglm_6b"] / "config.json")
    monkeypatch.setattr(checks, "try_to_load_from_cache", lambda name, file: config)
    asked = []

    def download(name, file, local_files_only):
        asked.append((name, file, local_files_only))
        return config

    monkeypatch.setattr(checks, "hf_hub_download", download)
    check_checkpoint("owner/chatglm", "llm")
    with pytest.raises(CheckpointError, match="^owner/chatglm: this is a model of type chatglm; a CRS needs"):
        check_checkpoint("owner/chatglm", "crs")
    assert set(asked) == {("owner/chatglm", "config.json", True)}


def test_the_answer_comes_in_seconds_and_before_torch(copy):
    folder = copy("chinese_alpaca_plus_7b")
    program = (
        "import sys\nfrom llmcrs_utils.checkpoints.checks import check_checkpoint\n"
        f"check_checkpoint({str(folder)!r}, 'llm')\n"
        f"check_checkpoint({str(copy('cpt_base'))!r}, 'crs')\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1], timeout=60)
    assert time.monotonic() - started < 10
