"""Training: a kill changes nothing, the best weights are kept, the same seed gives the same model."""

from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
from conftest import slow

from llmcrs_utils.checkpoints.loading import load_seq2seq, load_tokenizer
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.tuning import new_lora
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.training.collators import causal_collator, infilling_collator, pad, unimind_collator, with_labels
from llmcrs_utils.training.folders import HISTORY
from llmcrs_utils.training.trainer import epochs_of, train

EPOCHS, BATCH = 3, 4


def crs_setup(architecture="bart"):
    """UniMIND on all tasks, dropout active in its behaviour encoder."""
    model = tiny.unimind(recommend_loss_reaches_backbone=True, architecture=architecture)
    assert model.sasrec.dropout.p > 0
    examples = tiny.crs_examples(tiny.some_samples(5))
    return model, examples, unimind_collator(0, len(tiny.dataset().items)), {"label_names": []}


def llm_setup(architecture="llama", lora_target=("q_proj", "v_proj"), modules_to_save=("lm_head",)):
    """LoRA with dropout, accumulated gradients."""
    tokenizer = load_tokenizer(tiny.backbone(architecture))
    model = new_lora(
        tiny.backbone(architecture), quantization_bit=0, lora_rank=4, lora_alpha=8, lora_dropout=0.2, lora_target=list(lora_target),
        modules_to_save=list(modules_to_save), gradient_checkpointing=False, seed=1,
    )  # fmt: skip
    rows = build_instructions(tiny.some_samples(5), tiny.dataset().facts, CHINESE)
    examples = with_labels(encode_instructions(rows, tokenizer, CHINESE, "plain", 1024, 16)[0])
    options = {"label_names": ["labels"], "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 0.1}
    return model, examples, causal_collator(tokenizer.pad_token_id), options


def backbone_setup():
    """Text infilling: the collator itself draws random numbers, and blocks come in random order."""
    tokenizer = load_tokenizer(tiny.backbone("bart"))
    ids = tokenizer("".join(tiny.texts()), add_special_tokens=False)["input_ids"]
    examples = [{"input_ids": ids[start : start + 32]} for start in range(0, 640, 32)]
    options = {"label_names": ["labels"], "group_by_length": False}
    return load_seq2seq(tiny.backbone("bart")), examples, infilling_collator(tokenizer), options


SETUPS = {
    "crs": crs_setup,
    "cpt": lambda: crs_setup("cpt"),
    "llm": llm_setup,
    "chatglm": lambda: llm_setup("chatglm", ["query_key_value"], []),
    "backbone": backbone_setup,
}
BATCHES = 20 // BATCH  # per epoch
# `make test-slow` is often enough for those that train as the others do.
KINDS = [pytest.param(kind, marks=slow) if kind in ("cpt", "chatglm", "backbone") else kind for kind in SETUPS]


class Killed(Exception):
    pass


def run(kind, output_dir, kill_at=None, seed=1, valid_examples=None, poison_at=None):
    """Train a new model; ``kill_at`` ends it in the middle of that training batch, ``poison_at`` loses the weights there.

    Returns:
        the model, its history, how many batches it trained on.
    """
    model, examples, collate, options = SETUPS[kind]()
    assert len(examples) == 20
    trained = 0

    def count(*_):
        nonlocal trained
        if model.training:
            trained += 1
            if trained == kill_at:
                raise Killed
        after_all = not model.training and trained == EPOCHS * BATCHES
        if poison_at == trained + after_all:
            for parameter in model.parameters():
                parameter.data.fill_(float("nan"))

    model.register_forward_pre_hook(count)
    history = train(
        model, examples, valid_examples or examples[::3], collate, output_dir=output_dir,
        num_train_epochs=EPOCHS, learning_rate=0.01, per_device_train_batch_size=BATCH, seed=seed, **options,
    )  # fmt: skip
    return model, history, trained


def same_weights(one, other):
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Kind -> model and history of a run from start to end."""
    made = {}

    def get(kind):
        if kind not in made:
            model, history, trained = run(kind, tmp_path_factory.mktemp(kind))
            assert trained == EPOCHS * BATCHES
            made[kind] = model, history
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_and_a_second_call_end_with_the_same_weights(tmp_path, undisturbed, kind):
    with pytest.raises(Killed):
        run(kind, tmp_path, kill_at=BATCHES + 3)
    half_written = tmp_path / f"checkpoint-{10 * BATCHES}"
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"half")
    resumed, history, trained = run(kind, tmp_path)
    assert trained == (EPOCHS - 1) * BATCHES, "it did not go on from the end of the first epoch"
    model, expected = undisturbed(kind)
    assert same_weights(resumed, model)
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_whose_state_is_cut_short_is_not_resumed(tmp_path, undisturbed):
    with pytest.raises(Killed):
        run("crs", tmp_path, kill_at=2 * BATCHES + 1)
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = (last / "trainer_state.json").read_text()
    (last / "trainer_state.json").write_text(state[: len(state) // 2])
    resumed, _, trained = run("crs", tmp_path)
    assert trained > BATCHES and same_weights(resumed, undisturbed("crs")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_that_has_ended_is_loaded_and_not_trained_again(tmp_path, undisturbed, kind):
    run(kind, tmp_path)
    model, history, trained = run(kind, tmp_path)
    assert trained == 0 and same_weights(model, undisturbed(kind)[0])
    pd.testing.assert_frame_equal(history, undisturbed(kind)[1], check_exact=True)


def test_a_stage_s_weights_do_not_go_into_another_model(tmp_path):
    run("crs", tmp_path)
    with pytest.raises(ValueError, match="not the weights of this model"):
        run("backbone", tmp_path)


def test_a_history_cut_short_counts_for_nothing(tmp_path, undisturbed):
    run("crs", tmp_path)
    (tmp_path / HISTORY).write_text((tmp_path / HISTORY).read_text()[:-20])
    model, _, trained = run("crs", tmp_path)
    assert trained == EPOCHS * BATCHES and same_weights(model, undisturbed("crs")[0])


def test_a_kill_while_the_last_checkpoints_are_removed_spoils_nothing(tmp_path, undisturbed, monkeypatch):
    def killed_halfway(checkpoint):
        (checkpoint / "model.safetensors").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("llmcrs_utils.training.trainer.shutil", SimpleNamespace(rmtree=killed_halfway))
        with pytest.raises(Killed):
            run("crs", tmp_path)
    assert same_weights(run("crs", tmp_path)[0], undisturbed("crs")[0])


def test_the_best_epoch_on_validation_is_kept(tmp_path):
    """Validation asks for items that training never names, so that it gets worse with every epoch."""
    examples = tiny.crs_examples(tiny.some_samples(5))
    known = {example["gold"] for example in examples if "gold" in example}
    other = min(set(tiny.dataset().index.values()) - known)
    wrong = [{**example, "gold": other} for example in examples if "gold" in example]
    model, history, _ = run("crs", tmp_path, valid_examples=wrong)
    best = history["valid_loss"].idxmin()
    assert best < EPOCHS - 1 and history["valid_loss"].iloc[-1] > 1.01 * history["valid_loss"].iloc[best]
    with torch.no_grad():
        loss = model.eval()(**unimind_collator(0, len(tiny.dataset().items))(wrong))["loss"].item()
    assert loss == pytest.approx(history["valid_loss"].iloc[best], rel=1e-4)


@pytest.mark.parametrize(("poison_at", "updates"), [(BATCHES + 2, BATCHES + 1), (EPOCHS * BATCHES + 1, EPOCHS * BATCHES)])
def test_a_training_whose_weights_are_lost_stops_and_is_not_taken_for_a_finished_one(tmp_path, poison_at, updates):
    """In the middle, and by the last update, after which there is only validation."""
    with pytest.raises(FloatingPointError, match=f"{tmp_path}: the loss is nan after {updates} updates; give a lower learning_rate"):
        run("crs", tmp_path, poison_at=poison_at)
    assert not (tmp_path / HISTORY).exists()


def test_attention_in_training_does_not_use_cudnn(tmp_path):
    """Its gradients are not numbers for padded batches of some lengths on H100 and H200."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    with pytest.raises(Killed):
        run("crs", tmp_path, kill_at=1)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_the_loss_of_an_epoch_is_the_mean_over_its_updates_however_often_it_was_logged():
    log = [
        {"epoch": 0.75, "step": 3, "loss": 4.0}, {"epoch": 1.0, "step": 4, "loss": 8.0}, {"epoch": 1.0, "step": 4, "eval_loss": 3.0},
        {"epoch": 1.5, "step": 6, "loss": 2.0}, {"epoch": 1.5, "step": 6, "eval_loss": 1.0},
    ]  # fmt: skip
    assert epochs_of(log).to_dict("list") == {"epoch": [1.0, 1.5], "train_loss": [5.0, 2.0], "valid_loss": [3.0, 1.0]}


def test_decoding_may_use_its_cache_after_training(undisturbed):
    assert undisturbed("llm")[0].config.use_cache is True


def test_training_learns_and_tells_how(undisturbed):
    _, history = undisturbed("crs")
    assert history.columns.tolist() == ["epoch", "train_loss", "valid_loss"] and history["epoch"].tolist() == [1, 2, 3]
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]
    assert history["valid_loss"].iloc[-1] < history["valid_loss"].iloc[0]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path, undisturbed):
    model, _ = undisturbed("crs")
    assert same_weights(run("crs", tmp_path / "again")[0], model)
    assert not same_weights(run("crs", tmp_path / "other", seed=2)[0], model)


def test_padding_is_on_the_right_to_the_longest_row():
    assert pad([[1, 2], [3], []], -100).tolist() == [[1, 2], [3, -100], [-100, -100]]
