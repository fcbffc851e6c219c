"""CPT against what the original code computes, against a second writing of the model, and in use; BART beside it.

The second writing goes row by row and head by head over the weights' names, without padding, masks of tensors or a cache.
"""

import json
import math
from pathlib import Path

import bitsandbytes
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BitsAndBytesConfig

from llmcrs_utils.checkpoints.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.checkpoints.loading import load_seq2seq
from llmcrs_utils.crs.unimind import UniMind, new_unimind

MODELS = Path(__file__).parents[2] / "shared" / "models"
needs_fixtures = pytest.mark.skipif(not (MODELS / "cpt_tiny").exists(), reason=f"{MODELS} is not here")
PAD, CLS, SEP = 0, 5, 6


# --- what the original code computes


class Oracle:
    def __init__(self, name: str):
        folder = MODELS / name
        self.is_cpt = name == "cpt_tiny"
        self.unimind = new_unimind(str(folder), 300, torch.full((5, 8), torch.nan), 50, False, seed=1).eval()
        self.model = load_seq2seq(str(folder)).eval()
        self.inputs = {key: torch.from_numpy(array) for key, array in np.load(folder / "inputs.npz").items()}
        self.text = {key: self.inputs[key] for key in ("input_ids", "attention_mask")}
        self.expected = np.load(folder / "expected.npz")
        self.generated = json.loads((folder / "generated.json").read_text())

    def near(self, found, name, atol=5e-5, where=...):
        np.testing.assert_allclose(found.numpy()[where], self.expected[name][where], rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module", params=["cpt_tiny", "bart_tiny"])
def oracle(request):
    return Oracle(request.param)


@needs_fixtures
@torch.no_grad()
def test_logits_states_and_loss_are_those_of_the_original_code(oracle):
    output = oracle.model(**oracle.inputs, output_hidden_states=True)
    answered = oracle.inputs["labels"].numpy() != -100
    read = oracle.inputs["attention_mask"].numpy() == 1
    oracle.near(output.logits, "lm.logits", atol=2e-4, where=answered)
    np.testing.assert_allclose(output.loss.item(), oracle.expected["lm.loss"], rtol=1e-5)
    oracle.near(output.encoder_last_hidden_state, "lm.encoder_last_hidden_state", where=read)
    for states, side, where in ((output.encoder_hidden_states, "encoder", read), (output.decoder_hidden_states, "decoder", answered)):
        names = [name for name in oracle.expected if name.startswith(f"lm.{side}_hidden_states.")]
        assert len(states) == len(names) > 2
        for number, state in enumerate(states):
            oracle.near(state, f"lm.{side}_hidden_states.{number}", where=where)


@needs_fixtures
@torch.no_grad()
def test_user_representation_is_that_of_the_original_code(oracle):
    states = oracle.unimind.backbone_states(**oracle.text)
    assert oracle.unimind.fusion.in_features == 8 + states.shape[1]
    oracle.near(states, "rec.user_text_representation")
    output = oracle.model.model(**oracle.text)
    read = oracle.inputs["attention_mask"].numpy() == 1
    oracle.near(output.last_hidden_state, "rec.decoder_last_hidden_state", where=read)
    if oracle.is_cpt:
        oracle.near(output.encoder_last_hidden_state, "rec.encoder_last_hidden_state", where=read)


@needs_fixtures
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "name, settings",
    [
        ("greedy", {"num_beams": 1}),
        ("beam3_early", {"num_beams": 3, "early_stopping": True}),
        ("beam3_ngram3", {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 3}),
    ],
)
def test_generated_tokens_are_those_of_the_original_code(oracle, name, settings, use_cache):
    written = oracle.model.generate(**oracle.text, **settings, do_sample=False, max_new_tokens=11, use_cache=use_cache)
    assert written.tolist() == oracle.generated[name]


@needs_fixtures
@torch.no_grad()
def test_cpt_generates_from_the_token_type_of_the_original_code():
    oracle = Oracle("cpt_tiny")
    read = oracle.inputs["attention_mask"].numpy() == 1
    encoded = oracle.model.get_encoder()(**oracle.text, understand=True)
    oracle.near(encoded.last_hidden_state, "gen.cross_attn_source_type0", where=read)
    oracle.near(encoded.understanding_state, "gen.encoder_last_hidden_state_type0", where=read)
    encoded = oracle.model.get_encoder()(**oracle.text)
    decoder_input_ids = torch.tensor([[102, 31, 32], [102, 41, 42], [102, 51, 52]])
    mask = oracle.text["attention_mask"]
    output = oracle.model(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=decoder_input_ids)
    oracle.near(output.logits, "gen.logits_given_type0_encoder", atol=2e-4)
    assert encoded.understanding_state is None and output.encoder_last_hidden_state is None  # nobody asked for them


# --- a second writing of the model


def normal(x, weights, name, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attend(x, source, weights, names, heads, causal=False):
    """``names``: query, key, value, output."""
    query, key, value = linear(x, weights, names[0]), linear(source, weights, names[1]), linear(source, weights, names[2])
    width = x.shape[-1] // heads
    mixed = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for row in range(len(x)):
            seen = row + 1 if causal else len(source)
            scores = torch.stack([query[row, part] @ key[column, part] / math.sqrt(width) for column in range(seen)])
            shares = (scores - scores.max()).exp()
            mixed[row, part] = (shares / shares.sum()) @ value[:seen, part]
    return linear(mixed, weights, names[3])


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def encode(weights, config, ids, token_type):
    """(what G-Dec reads, what U-Dec gives) for one text without padding, each [length, d_model]."""
    stem = "model.encoder.embeddings"
    x = torch.stack([weights[f"{stem}.word_embeddings.weight"][token] for token in ids])
    x = x + weights[f"{stem}.position_embeddings.weight"][: len(ids)] + weights[f"{stem}.token_type_embeddings.weight"][token_type]
    x = normal(x, weights, f"{stem}.LayerNorm", 1e-12)
    states = [x]
    for number in range(config.encoder_layers):
        layer = f"model.encoder.encoder.layer.{number}"
        names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")] + [f"{layer}.attention.output.dense"]
        x = normal(x + attend(x, x, weights, names, config.encoder_attention_heads), weights, f"{layer}.attention.output.LayerNorm", 1e-12)
        fed = linear(gelu(linear(x, weights, f"{layer}.intermediate.dense")), weights, f"{layer}.output.dense")
        x = normal(x + fed, weights, f"{layer}.output.LayerNorm", 1e-12)
        states.append(x)
    return states[config.encoder_layers - config.decoder_layers], states[-1]


def decode(weights, config, ids, source):
    """G-Dec's states [length, d_model]."""
    x = torch.stack([weights["model.shared.weight"][token] for token in ids])
    x = x + weights["model.decoder.embed_positions.weight"][2 : 2 + len(ids)]
    x = normal(x, weights, "model.decoder.layernorm_embedding", 1e-5)
    for number in range(config.decoder_layers):
        layer = f"model.decoder.layers.{number}"
        for kind, read, causal in (("self_attn", None, True), ("encoder_attn", source, False)):
            names = [f"{layer}.{kind}.{part}_proj" for part in ("q", "k", "v", "out")]
            heads = config.decoder_attention_heads
            mixed = attend(x, x if read is None else read, weights, names, heads, causal)
            x = normal(x + mixed, weights, f"{layer}.{kind}_layer_norm", 1e-5)
        fed = linear(gelu(linear(x, weights, f"{layer}.fc1")), weights, f"{layer}.fc2")
        x = normal(x + fed, weights, f"{layer}.final_layer_norm", 1e-5)
    return x


def scores(weights, states):
    return states @ weights["lm_head.weight"].T + weights["final_logits_bias"][0]


def tiny_config(**changes) -> CPTConfig:
    return CPTConfig(**{
        "vocab_size": 40, "d_model": 64, "encoder_layers": 4, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 128, "max_position_embeddings": 32, "dropout": 0.1,
        "attention_dropout": 0.1, "activation_dropout": 0.1, "pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": SEP,
        "decoder_start_token_id": SEP, "forced_eos_token_id": None, **changes,
    })  # fmt: skip


def tiny_cpt(**changes) -> CPTForConditionalGeneration:
    """Every parameter is random and large enough to count, the biases too."""
    model = CPTForConditionalGeneration(tiny_config(**changes)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            base = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            spread = 0.07 if parameter.ndim == 1 else 0.5 if "embed" in name or "shared" in name else 0.15
            parameter.copy_(base + spread * torch.randn(parameter.shape, generator=generator))
        model.final_logits_bias.copy_(torch.randn(1, model.config.vocab_size, generator=generator))
    return model


@pytest.fixture(scope="module")
def model():
    return tiny_cpt()


TEXTS = [[CLS, 11, 12, 13, 14, 15, SEP], [CLS, 21, SEP], [CLS, 31, 32, 33, SEP]]
TARGETS = [[CLS, 17, 18, SEP], [CLS, 19, 20, 21, 22, SEP], [CLS, SEP]]


def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def batch():
    input_ids = padded(TEXTS, PAD)
    return {"input_ids": input_ids, "attention_mask": (input_ids != PAD).long()}


@torch.no_grad()
def test_logits_states_and_loss_are_those_of_the_second_writing(model):
    weights, config = model.state_dict(), model.config
    output = model(**batch(), labels=padded(TARGETS, -100))
    losses = []
    for row, (text, target) in enumerate(zip(TEXTS, TARGETS, strict=True)):
        source, understood = encode(weights, config, text, token_type=1)
        logits = scores(weights, decode(weights, config, [SEP, *target[:-1]], source))
        torch.testing.assert_close(output.logits[row, : len(target)], logits, rtol=0, atol=2e-4)
        torch.testing.assert_close(output.encoder_last_hidden_state[row, : len(text)], understood, rtol=0, atol=5e-5)
        losses += [-logits[place].log_softmax(-1)[token] for place, token in enumerate(target)]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean(), rtol=1e-5, atol=0)
    assert output.logits.std() > 0.5


@torch.no_grad()
def test_without_labels_the_decoder_reads_the_input_shifted_and_unimind_both_decoders(model, tmp_path):
    model.save_pretrained(tmp_path)
    unimind = new_unimind(str(tmp_path), 40, torch.full((5, 8), torch.nan), 50, False, seed=1).eval()
    weights, config = model.state_dict(), model.config
    states = unimind.backbone_states(**batch())
    for row, text in enumerate(TEXTS):
        source, understood = encode(weights, config, text, token_type=1)
        written = decode(weights, config, [SEP, *text[:-1]], source)
        torch.testing.assert_close(states[row], torch.cat([understood[0], written[-1]]), rtol=0, atol=5e-5)
    assert states.shape == (3, 128) and unimind.fusion.in_features == 8 + 128
    assert (states[:, :64] - states[:, 64:]).abs().mean() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("token_type", [0, 1])
def test_greedy_decoding_is_that_of_the_second_writing(token_type):
    model = tiny_cpt(generation_token_type=token_type)
    weights, config = model.state_dict(), model.config
    # No token twice: random weights would write one for ever, and so hide what the positions do.
    written = model.generate(**batch(), do_sample=False, num_beams=1, max_new_tokens=6, no_repeat_ngram_size=1)
    for row, text in enumerate(TEXTS):
        source, _ = encode(weights, config, text, token_type)
        ids = [SEP]
        for _ in range(6):
            logits = scores(weights, decode(weights, config, ids, source)[-1])
            logits[ids] = -torch.inf
            ids.append(int(logits.argmax()))
        assert written[row].tolist() == ids


@torch.no_grad()
def test_the_token_type_of_generation_counts_and_leaves_forward_alone():
    published, trained = tiny_cpt(), tiny_cpt(generation_token_type=1)
    states = [model.get_encoder()(**batch()).last_hidden_state for model in (published, trained)]
    assert (states[0] - states[1]).abs().max() > 0.1
    assert torch.equal(published(**batch()).logits, trained(**batch()).logits)


def test_beams_and_samples_do_not_depend_on_the_cache_and_samples_follow_the_seed(model):
    def written(use_cache, seed=1, **settings):
        torch.manual_seed(seed)
        return model.generate(**batch(), max_new_tokens=8, use_cache=use_cache, **settings).tolist()

    for settings in ({"num_beams": 3, "no_repeat_ngram_size": 1}, {"num_beams": 2, "no_repeat_ngram_size": 2}, {"do_sample": True}):
        assert written(True, **settings) == written(False, **settings)
    assert written(True, do_sample=True) != written(True, seed=2, do_sample=True)


# --- what it learns from


@torch.no_grad()
def test_understanding_labels_ask_the_understanding_decoder_at_their_places(model):
    places = torch.full((3, 7), -100)
    places[0, 2], places[0, 4], places[2, 1] = 12, 30, 31
    alone = model(**batch(), understanding_labels=places).loss
    weights, asked = model.state_dict(), []
    for row, text in enumerate(TEXTS):
        found = scores(weights, encode(weights, model.config, text, token_type=1)[1]).log_softmax(-1)
        asked += [-found[place, places[row, place]] for place in range(len(text)) if places[row, place] >= 0]
    torch.testing.assert_close(alone, torch.stack(asked).mean(), rtol=1e-5, atol=0)
    labels = padded(TARGETS, -100)
    both = model(**batch(), labels=labels, understanding_labels=places).loss
    torch.testing.assert_close(both, alone + model(**batch(), labels=labels).loss, rtol=1e-6, atol=0)
    nothing_asked = model(**batch(), labels=labels, understanding_labels=torch.full((3, 7), -100)).loss
    torch.testing.assert_close(nothing_asked, model(**batch(), labels=labels).loss, rtol=1e-6, atol=0)


def gradients(model):
    model.zero_grad()
    places = torch.where(batch()["attention_mask"] == 1, batch()["input_ids"], -100)
    model(**batch(), labels=padded(TARGETS, -100), understanding_labels=places).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_changes_no_gradient():
    model = tiny_cpt(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0).train()
    plain = gradients(model)
    model.gradient_checkpointing_enable()
    calls = []
    layer = model.model.encoder.encoder.layer[0]
    layer.intermediate.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = gradients(model)
    assert len(calls) == 2  # once forward, once more on the way back
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 0, name


def test_dropout_is_on_in_training_and_off_in_evaluation():
    model = tiny_cpt().train()
    assert not torch.equal(model(**batch()).logits, model(**batch()).logits)
    model.eval()
    assert torch.equal(model(**batch()).logits, model(**batch()).logits)
    bert = model.model.encoder.config
    changed = CPTForConditionalGeneration(tiny_config(activation_dropout=0.3, attention_dropout=0.2, dropout=0.4)).model.encoder.config
    assert (bert.layer_norm_eps, bert.hidden_act) == (1e-12, "gelu")
    assert (changed.hidden_dropout_prob, changed.attention_probs_dropout_prob) == (0.3, 0.2)  # as the published code maps them


# --- files, sizes, types


def matrices(model):
    inner = model.model
    return [inner.shared.weight, inner.encoder.embeddings.word_embeddings.weight, inner.decoder.embed_tokens.weight, model.lm_head.weight]


@torch.no_grad()
def test_resizing_grows_the_one_matrix_and_the_bias():
    model = tiny_cpt()
    before = model(**batch()).logits
    torch.manual_seed(1)
    model.resize_token_embeddings(1040, mean_resizing=False)
    assert all(matrix is model.lm_head.weight for matrix in matrices(model)) and model.lm_head.weight.shape == (1040, 64)
    assert model.final_logits_bias.shape == (1, 1040) and not model.final_logits_bias[0, 40:].any()
    assert 0.015 < model.lm_head.weight[40:].std() < 0.025
    torch.testing.assert_close(model(**batch()).logits[..., :40], before, rtol=0, atol=1e-5)
    tables = (model.model.shared, model.model.encoder.get_input_embeddings(), model.model.decoder.embed_tokens)
    assert [table.num_embeddings for table in tables] == [1040] * 3 and model.config.vocab_size == 1040


@torch.no_grad()
def test_a_saved_cpt_is_an_ordinary_folder(tmp_path):
    model = tiny_cpt(generation_token_type=1)
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == "cpt"
    for loaded in (AutoModelForSeq2SeqLM.from_pretrained(tmp_path), load_seq2seq(str(tmp_path))):
        assert isinstance(loaded, CPTForConditionalGeneration) and loaded.config.generation_token_type == 1
        assert all(matrix is loaded.lm_head.weight for matrix in matrices(loaded))
        assert torch.equal(loaded.eval()(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize(
    "kept", ["model.shared.weight", "lm_head.weight", "model.encoder.embeddings.word_embeddings.weight", "model.decoder.embed_tokens.weight"]
)
@torch.no_grad()
def test_a_file_may_hold_the_one_matrix_under_any_of_its_names(tmp_path, model, kept):
    names = {name for name, matrix in model.state_dict().items() if matrix.data_ptr() == model.lm_head.weight.data_ptr()}
    assert len(names) == 4
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in names - {kept}}
    torch.save({**weights, "model.encoder.embeddings.position_ids": torch.arange(32)[None]}, tmp_path / "pytorch_model.bin")
    config = {**model.config.to_dict(), "model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_seq2seq(str(tmp_path)).eval()
    assert all(matrix is loaded.lm_head.weight for matrix in matrices(loaded))
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


@torch.no_grad()
def test_unimind_on_cpt_scores_and_writes_the_same_after_saving(tmp_path, model):
    model.save_pretrained(tmp_path / "cpt")
    unimind = new_unimind(str(tmp_path / "cpt"), 46, torch.full((5, 8), torch.nan), 50, False, seed=1).eval()
    unimind.save_pretrained(tmp_path / "unimind")
    loaded = UniMind.from_pretrained(tmp_path / "unimind").eval()
    assert loaded.config.backbone["model_type"] == "cpt"
    assert torch.equal(loaded.backbone_states(**batch()), unimind.backbone_states(**batch()))
    written = [one.backbone.generate(**batch(), num_beams=2, max_new_tokens=6).tolist() for one in (unimind, loaded)]
    assert written[0] == written[1]


@pytest.mark.parametrize("dtype, share", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@torch.no_grad()
def test_half_precision_is_near_and_generates(tmp_path, model, dtype, share):
    model.save_pretrained(tmp_path)
    half = CPTForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype).eval()
    found, exact = half(**batch()).logits, model(**batch()).logits
    read = batch()["attention_mask"] == 1
    assert found.dtype == dtype and (found.float() - exact)[read].abs().max() < share * exact.std() * 3
    assert half.generate(**batch(), num_beams=2, max_new_tokens=4).shape[0] == 3


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_quantised_it_computes_with_its_dequantised_weights(tmp_path, model, bits):
    model.save_pretrained(tmp_path)
    settings = {4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 8: {"load_in_8bit": True}}[bits]
    loaded = CPTForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**settings), device_map={"": "cpu"}, dtype=torch.float32
    ).eval()
    plain = CPTForConditionalGeneration.from_pretrained(tmp_path).eval()
    changed = 0
    for name, module in loaded.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
            plain.get_submodule(name).weight.copy_(dequantize_4bit(module.weight.data, module.weight.quant_state))
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            plain.get_submodule(name).weight.copy_(module.weight.data.float() * module.weight.SCB[:, None] / 127)
        else:
            continue
        changed += 1
    assert changed == 4 * 6 + 1 * 10 and isinstance(loaded.lm_head, torch.nn.Linear)
    found, expected, exact = (one(**batch()).logits for one in (loaded, plain, model))
    read = batch()["attention_mask"] == 1
    # int8 products quantise what they read, too.
    assert (found - expected)[read].abs().max() < {4: 1e-4, 8: 0.2}[bits] * exact.std()
    assert (exact - expected)[read].abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"generation_token_type": 2}, "generation_token_type=2: give 0"),
        ({"decoder_layers": 4}, "encoder_layers=4 hold the 4 layers of the understanding decoder"),
    ],
)
def test_a_config_that_makes_no_cpt_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**wrong)


def test_without_anything_to_decode_the_call_is_refused(model):
    with pytest.raises(ValueError, match="decoder_input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 64))


def test_input_embeddings_stand_for_ids(model):
    embedded = model.get_input_embeddings()(batch()["input_ids"])
    decoder = torch.tensor([[SEP, 9]] * 3)
    by_ids = model(**batch(), decoder_input_ids=decoder).logits
    by_vectors = model(inputs_embeds=embedded, attention_mask=batch()["attention_mask"], decoder_input_ids=decoder).logits
    torch.testing.assert_close(by_vectors, by_ids, rtol=0, atol=1e-6)
    assert by_ids.std() > 0.5
