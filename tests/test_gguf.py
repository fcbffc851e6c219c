"""GGUF files as checkpoints: equal to their twins in transformers' own form, through tuning and answering; and damaged ones."""

import shutil
from pathlib import Path

import gguf
import gguf_files
import pytest
import tiny
import torch

from llmcrs_utils.checkpoints.checks import CheckpointError, check_checkpoint, checkpoint_files, checkpoint_folder, hub_revision
from llmcrs_utils.checkpoints.layers import lacks_chat_template
from llmcrs_utils.checkpoints.loading import load_causal, load_tokenizer
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.llm.tuning import load_tuned, new_lora, tune
from llmcrs_utils.study.run import run_of
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE

LORA = {
    "quantization_bit": 0, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target": ["all-linear"], "modules_to_save": [],
    "gradient_checkpointing": False, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module", params=gguf_files.ARCHITECTURES)
def pair(request, tmp_path_factory):
    """A GGUF file, its twin and their vocabulary; conversions go to the same folder."""
    folder = tmp_path_factory.mktemp(request.param)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    yield gguf_files.write(folder, request.param, tiny.texts())
    patch.undo()


def test_a_gguf_file_is_its_twin(pair):
    file, twin, vocabulary = pair
    check_checkpoint(str(file), "llm")
    tokenizer = load_tokenizer(str(file))
    for text in [*tiny.texts()[:50], "A red shoe, size 42!", "两种  颜色"]:
        assert tokenizer(text)["input_ids"] == vocabulary.encode(text)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "有面霜吗"}], tokenize=False)
    assert chat == "<|im_start|>user\n有面霜吗<|im_end|>\n"
    assert (tokenizer.eos_token_id, tokenizer.model_max_length) == (vocabulary.ids["eos"], gguf_files.POSITIONS)
    ids = torch.tensor([tokenizer(" ".join(tiny.texts()[:20]))["input_ids"][:700]])
    with torch.no_grad():
        expected, logits = load_causal(str(twin)).eval()(ids).logits, load_causal(str(file)).eval()(ids).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_with_a_gguf_file_is_tuned_saved_reloaded_and_answers_as_its_twin(pair, tmp_path):
    file, twin, _ = pair
    (tmp_path / "downloaded").mkdir()
    shutil.copy(file, tmp_path / "downloaded")
    tokenizer = load_tokenizer(str(file))
    tokenizer.save_pretrained(twin)
    samples = tiny.some_samples(3)
    instructions = build_instructions(samples, tiny.dataset().facts, CHINESE)
    examples = encode_instructions(instructions, tokenizer, CHINESE, "chat", 1600, 8)[0]
    answers = []
    for name in (str(tmp_path / "downloaded"), str(twin)):
        output = tmp_path / f"saved-{len(answers)}"
        tune(new_lora(name, **LORA), examples, examples, tokenizer, output_dir=output, num_train_epochs=1, learning_rate=0.01,
             per_device_train_batch_size=4, seed=1)  # fmt: skip
        answers.append(predict(load_tuned(output), tokenizer, samples, examples, CHINESE, max_new_tokens=8, batch_size=4))
    assert answers[0]["raw"].nunique() >= 3
    tiny.assert_same_answers(*answers)


def test_a_run_depends_on_the_content_of_the_file(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])  # where the notebooks are
    given = {"system": "allm", "model_name_or_path": str(pair[0]), "dataset_dir": str(tmp_path)}
    run = run_of("04_tune_llm", given)
    assert run.inputs[f"base/{pair[0].name}"] == str(pair[0]) and hub_revision(str(pair[0])) is None
    shutil.copy(pair[0], tmp_path)
    assert [path.name for path in checkpoint_files(str(tmp_path))] == [pair[0].name]


def test_what_is_wrong_with_a_file_is_one_line(pair, tmp_path):
    file = pair[0]
    content = file.read_bytes()
    for number, share in enumerate((0.0001, 0.01, 0.5, 0.999)):
        (tmp_path / f"{number}.gguf").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(CheckpointError, match=r"\.gguf: this (file of \d+ bytes is damaged or was cut short|is no GGUF file); get it again"):
            check_checkpoint(str(tmp_path / f"{number}.gguf"), "llm")
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        checkpoint_folder(str(tmp_path / "pointer.gguf"))
    with pytest.raises(CheckpointError, match="holds 5 GGUF files"):
        checkpoint_folder(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint_folder("missing.gguf")


def test_a_file_that_lacks_weights_or_is_a_part_is_refused(tmp_path, monkeypatch):
    """transformers would fill the gaps with random numbers."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as without:
        add = gguf.GGUFWriter.add_tensor
        without.setattr(gguf.GGUFWriter, "add_tensor", lambda self, name, *rest, **more: None if "blk.1.ffn" in name else add(self, name, *rest, **more))
        (tmp_path / "less").mkdir()
        file = gguf_files.write(tmp_path / "less", "llama", tiny.texts())[0]
    with pytest.raises(CheckpointError, match="lacks 4 of the model's weights"):
        checkpoint_folder(str(file))
    with monkeypatch.context() as split:
        close = gguf.GGUFWriter.write_header_to_file
        split.setattr(gguf.GGUFWriter, "write_header_to_file", lambda self: (self.add_uint16("split.count", 3), close(self)))
        (tmp_path / "split").mkdir()
        file = gguf_files.write(tmp_path / "split", "llama", tiny.texts())[0]
    with pytest.raises(CheckpointError, match="is one of 3 files of a model"):
        checkpoint_folder(str(file))


def test_its_chat_template_is_seen_before_anything_runs(pair, tmp_path, monkeypatch):
    (tmp_path / "downloaded").mkdir()
    shutil.copy(pair[0], tmp_path / "downloaded")
    assert not lacks_chat_template(str(tmp_path / "downloaded"), []) and not lacks_chat_template(str(pair[0]), [])
    monkeypatch.setattr(gguf.GGUFWriter, "add_chat_template", lambda self, template: None)
    (tmp_path / "bare").mkdir()
    assert lacks_chat_template(str(gguf_files.write(tmp_path / "bare", "llama", tiny.texts())[0]), [])


@pytest.mark.parametrize(("architecture", "message"), [("clip", "does not read its architecture"), ("llama", "does not read its tokenizer")])
def test_a_file_of_another_architecture_or_without_tokenizer_is_refused(tmp_path, monkeypatch, architecture, message):
    monkeypatch.chdir(tmp_path)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", architecture)
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=message) as error:
        check_checkpoint("model.gguf", "llm")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("runs/weights/*/config.json"))
