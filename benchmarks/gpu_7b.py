"""LoRA training and decoding of a 7B LLaMA and a 6B ChatGLM with random weights on one GPU: speed, use of the card, memory.

    .venv/bin/python benchmarks/gpu_7b.py            # on a GPU of 80 GB or more, within 10 minutes
    .venv/bin/python benchmarks/gpu_7b.py --quick    # within 3 minutes: two batch sizes each, nothing in 4 bits or float32
    .venv/bin/python benchmarks/gpu_7b.py --tiny     # on any machine, that it runs: tiny models, figures mean nothing

Nothing is downloaded and no weights go through the CPU: models of the published sizes are built on the card. LoRA is that of
``params/paper.yaml``. Each point is one line of JSON, printed when it is known; where memory ends, the line says so and the next
series begins. After ``--minutes`` no new point is begun.

Model FLOPs of a step count what the mathematics needs: for each weight and token 2 forward and 2 for the gradient of its input,
and 2 more for its own gradient only where it is trained (4 N D for a frozen base, where full training has 6 N D); for attention
12 x layers x length x width a token, the whole square of positions. ``mfu`` is their share of the rate of a bfloat16 product of
8192 x 8192 matrices measured in the same run. Checkpointing computes the layers' forward pass once more, which counts in
``hardware_tflops`` (a rate, no share) alone.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterable

import material
import pandas as pd
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig
from llmcrs_utils.checkpoints.chatglm_tokenizer import config_ids
from llmcrs_utils.checkpoints.loading import device
from llmcrs_utils.llm.predict import predict
from llmcrs_utils.text.prompts import CHINESE

LENGTH, TINY_LENGTH = 512, 64
WARM_UP, STEPS = 2, 5
TRAINING_BATCHES, QUANTISED_BATCHES, DECODING_BATCHES = (1, 4, 8, 16, 32, 64), (4, 16, 32), (1, 16, 64, 128, 256)
QUICK_TRAINING, QUICK_DECODING = (16, 64), (1, 128)
ADAPTER_BATCHES = (1, 64)  # of decoding with the adapter beside the base
ALONE = 8  # samples of each task answered one at a time


class Emit:
    """Prints points as JSON lines, figures cut to four digits, and tells when no more shall begin."""

    def __init__(self, minutes: float):
        self.start, self.minutes = time.perf_counter(), minutes

    def __call__(self, point: dict) -> None:
        point = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in point.items()}
        print(json.dumps(point | {"at_s": round(time.perf_counter() - self.start)}), flush=True)

    def late(self) -> bool:
        return time.perf_counter() - self.start > 60 * self.minutes


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work, repeats: int) -> float:
    """Mean time of one of ``repeats`` calls, after the card has done everything before."""
    synchronise()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronise()
    return (time.perf_counter() - start) / repeats


def peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def matrix_rate(size: int) -> float:
    """FLOP/s of a bfloat16 product of two square matrices of random numbers."""
    one, other = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    seconds(lambda: one @ other, WARM_UP)
    return 2 * size**3 / seconds(lambda: one @ other, 20)


def config_of(architecture: str, tiny: bool):
    """The published sizes, and the special ids of the small tokenizer whose tokens the models will read."""
    tokenizer = material.tokenizer_of(architecture)
    if architecture == "chatglm":
        sizes = {"hidden_size": 64, "inner_hidden_size": 256, "num_layers": 2, "num_attention_heads": 4} if tiny else {}
        return ChatGLMConfig(**config_ids(tokenizer) | {"vocab_size": 2000 if tiny else 130528} | sizes)
    sizes = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4} if tiny else {}
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    published = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    return LlamaConfig(
        **published | sizes, vocab_size=2000 if tiny else 49954, max_position_embeddings=2048, tie_word_embeddings=False, **ids
    )


def build(architecture: str, base: str, tiny: bool) -> PreTrainedModel:
    """A model with random weights, made where it will run; ``base``: bfloat16, float32 (as ``load_causal`` has it), 4 bits."""
    dtype = torch.float32 if base == "float32" else torch.bfloat16
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config_of(architecture, tiny), dtype=dtype)
    return quantise(model) if base == "4 bits" else model


def quantise(model: PreTrainedModel) -> PreTrainedModel:
    """The layers' weights in NF4, one after the other, as ``load_causal`` has them; the head stays."""
    import bitsandbytes  # a bare machine may lack it

    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is nn.Linear and linear is not head:
                quantised = bitsandbytes.nn.Linear4bit(
                    linear.in_features, linear.out_features, linear.bias is not None, torch.bfloat16, compress_statistics=False,
                    quant_type="nf4", device="meta",
                )  # fmt: skip
                quantised.weight = bitsandbytes.nn.Params4bit(
                    linear.weight.data, requires_grad=False, compress_statistics=False, quant_type="nf4", module=quantised
                )
                quantised.bias = linear.bias
                quantised.support_avx512bf16_for_cpu = False  # as load_causal says
                setattr(parent, name, quantised.to(device()))
    model.is_loaded_in_4bit = True
    clear()
    return model


def step_flops(model: nn.Module, batch_size: int, length: int, recomputed: bool) -> int:
    """FLOPs of one training step; with ``recomputed`` those of checkpointing's second forward pass too.

    ``model`` is a PEFT model with gradients at its embeddings' output. Norms, activations and the optimiser are not counted.
    """
    per_token = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or "original_module" in name:  # of modules_to_save the copy works
            continue
        weights = module.in_features * module.out_features
        trained = module.weight.requires_grad
        # Recomputing a layer stops before its last product where nobody needs that: a frozen one without LoRA.
        again = recomputed and "lm_head" not in name and not name.endswith("mlp.dense_4h_to_h")
        per_token += weights * (4 + 2 * trained + 2 * again)
    config = model.config
    attention = 4 * config.num_hidden_layers * length * config.hidden_size  # forward: scores, and values by them
    per_token += attention * (3 + recomputed)
    return batch_size * length * per_token


def training_series(
    architecture: str, base: str, checkpointing: bool, batches: Iterable[int], tiny: bool, rate: float, emit: Emit
) -> None:
    """Growing batches of full rows, until memory ends."""
    clear()
    length = TINY_LENGTH if tiny else LENGTH
    what = {"point": "training", "model": architecture, "base": base, "checkpointing": checkpointing, "length": length}
    model = material.new_lora_on(build(architecture, base, tiny), checkpointing, **material.paper_lora(architecture)).train()
    optimizer = torch.optim.AdamW(material.trained(model), lr=1e-4, fused=torch.cuda.is_available())
    clear()
    held = torch.cuda.memory_allocated() / 2**30 if torch.cuda.is_available() else None
    for batch_size in batches:
        if emit.late():
            return
        what |= {"batch_size": batch_size, "held_gib": held}
        try:
            batch = material.full_rows(material.tokenizer_of(architecture), batch_size, length)
            seconds(lambda: material.train_step(model, optimizer, batch, in_bfloat16=True), WARM_UP)
            taken = seconds(lambda: material.train_step(model, optimizer, batch, in_bfloat16=True), STEPS)
        except torch.OutOfMemoryError:
            emit({**what, "out_of_memory": True})
            break
        emit(
            {
                **what,
                "tokens_per_s": batch_size * length / taken,
                "seconds_per_step": taken,
                "mfu": step_flops(model, batch_size, length, recomputed=False) / taken / rate,
                "hardware_tflops": step_flops(model, batch_size, length, recomputed=checkpointing) / taken / 1e12,
                "peak_gib": peak_gib(),
            }
        )
        clear()


def decoding_series(architecture: str, adapter: bool, batches: Iterable[int], tiny: bool, emit: Emit) -> None:
    """The four-task mix answered by ``predict``: as many samples of each task as fit one batch, alone some of them."""
    clear()
    model, tokenizer = build(architecture, "bfloat16", tiny), material.tokenizer_of(architecture)
    if adapter:  # as load_tuned has it: LoRA in float32 beside the base
        model = material.new_lora_on(model, False, **material.paper_lora(architecture) | {"modules_to_save": []})
    largest = max(batches)
    per_task = material.dataset().samples["task"].value_counts().min()
    drawn = material.sample_mix(min(per_task, largest))
    while len(drawn) < 4 * largest:  # a batch larger than the world has samples of a task meets some twice
        drawn = pd.concat([drawn, drawn], ignore_index=True)
    encoded = material.llm_examples(drawn, tokenizer, architecture)
    material.end_as_true_answers(model, [e["prompt"] for e in encoded], [len(e["answer"]) for e in encoded])
    alone = None
    for batch_size in batches:
        if emit.late():
            return
        count = max(batch_size, 2 if tiny else ALONE)
        samples = drawn.groupby("task").head(count)
        examples = [encoded[i] for i in samples.index]
        samples = samples.reset_index(drop=True)

        def answer(samples=samples, examples=examples, batch_size=batch_size) -> None:
            predict(model, tokenizer, samples, examples, CHINESE, max_new_tokens=material.MAX_NEW_TOKENS, batch_size=batch_size)

        what = {"point": "decoding", "model": architecture, "adapter": adapter, "batch_size": batch_size, "samples": len(samples)}
        try:
            if batch_size == 1:
                seconds(lambda: predict(model, tokenizer, samples[:4], examples[:4], CHINESE, max_new_tokens=4, batch_size=1), 1)
            found = len(samples) / seconds(answer, 1)
        except torch.OutOfMemoryError:
            emit({**what, "out_of_memory": True})
            break
        alone = alone or (found if batch_size == 1 else None)
        prompts = sum(len(example["prompt"]) for example in examples) / len(examples)
        gain = found / alone if alone else None
        emit({**what, "prompt_tokens": prompts, "samples_per_s": found, "times_batch_1": gain, "peak_gib": peak_gib()})
        clear()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU where there is no GPU: that it runs")
    parser.add_argument("--quick", action="store_true", help="the larger batches only, and bfloat16 only")
    parser.add_argument("--minutes", type=float, default=9.0, help="no point is begun after so many")
    options = parser.parse_args(arguments)
    tiny = options.tiny
    if not (tiny or torch.cuda.is_available()):
        parser.error("no GPU here; give --tiny to see the script run on the CPU")
    emit = Emit(options.minutes)
    rate = matrix_rate(256 if tiny else 8192)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    emit({"point": "matrix rate", "device": card, "torch": torch.__version__, "tflops": rate / 1e12})
    batches = (lambda _: (1, 2)) if tiny else (lambda found: found)
    learned, decoded = (QUICK_TRAINING, QUICK_DECODING) if options.quick else (TRAINING_BATCHES, DECODING_BATCHES)
    for architecture in material.LLM_SECTIONS:  # what is aimed at, first
        for checkpointing in (True, False):
            training_series(architecture, "bfloat16", checkpointing, batches(learned), tiny, rate, emit)
        decoding_series(architecture, False, batches(decoded), tiny, emit)
    if options.quick:
        return
    for architecture in material.LLM_SECTIONS:
        training_series(architecture, "4 bits", True, batches(QUANTISED_BATCHES), tiny, rate, emit)
        training_series(architecture, "float32", True, batches(QUANTISED_BATCHES), tiny, rate, emit)  # as load_causal has it
        decoding_series(architecture, True, batches(ADAPTER_BATCHES), tiny, emit)


if __name__ == "__main__":
    main()
