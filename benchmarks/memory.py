"""Peak memory of one step of LoRA tuning, the base model in float32, bfloat16, 8 bits and 4 bits, with and without checkpointing.

    .venv/bin/python benchmarks/memory.py            # about 10 minutes of one core
    .venv/bin/python benchmarks/memory.py --quick    # that it runs, in under a minute

A LLaMA and a ChatGLM with random weights are saved to a temporary folder, loaded and made ready as notebook 04 does it, and take
one step on a batch without padding. Each is measured in a process of its own: on the CPU the resident set's peak less what it was
before loading (Linux tells it), on a GPU ``torch.cuda.max_memory_allocated``. bfloat16 is what the project does not offer: on the
CPU it trains in float32, on a GPU it holds the base in float32 and computes in bfloat16.
"""

import argparse
import gc
import multiprocessing
import re
import tempfile
import time
from pathlib import Path

import material
import torch
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.checkpoints.loading import device, load_causal
from llmcrs_utils.small.models import new_backbone, save_backbone

BATCH_SIZE, LENGTH = 4, 512
SIZE = {"hidden_size": 768, "layers": 12, "heads": 12}
QUICK = {"hidden_size": 64, "layers": 1, "heads": 2}
BASES, CHECKPOINTED = ("float32", "bfloat16", "8 bits", "4 bits"), ("float32", "4 bits")


def resident(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def peak_bytes() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident("VmHWM")


def bytes_now() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else resident("VmRSS")


def forget_peak() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def measure(folder: str, architecture: str, base: str, checkpointing: bool, rows: dict[str, list]) -> dict:
    """Bytes and seconds of loading and one step on ``rows`` in this process, which has done nothing else."""
    torch.set_num_threads(1)
    disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    batch = {name: torch.tensor(values, device=device()) for name, values in rows.items()}
    if on_gpu:
        torch.zeros(1, device="cuda")  # the context is nobody's
    forget_peak()
    before, start = bytes_now(), time.perf_counter()
    bits = {"8 bits": 8, "4 bits": 4}.get(base, 0)
    model = load_causal(folder, bits, for_training=True)
    if base == "bfloat16":
        model = model.to(torch.bfloat16)
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    model = material.new_lora_on(model, checkpointing, **material.paper_lora(architecture)).train()
    optimizer = torch.optim.AdamW(material.trained(model))
    loading, loaded = peak_bytes() - before, time.perf_counter()
    forget_peak()
    material.train_step(model, optimizer, batch, in_bfloat16=on_gpu or base == "bfloat16")
    return {
        "base held": held,
        "trained": sum(4 * parameter.numel() for parameter in material.trained(model)),
        "peak of loading": loading,
        "peak of the step": peak_bytes() - before,
        "seconds to load": loaded - start,
        "seconds of the step": time.perf_counter() - loaded,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, a short batch, one of four bases: that it runs")
    parser.add_argument("--models", choices=list(material.LLM_SECTIONS), nargs="+", default=list(material.LLM_SECTIONS))
    options = parser.parse_args(arguments)
    quick = options.quick
    disable_progress_bar()
    size, length = (QUICK, 64) if quick else (SIZE, LENGTH)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, one thread"
    print(f"one step of {BATCH_SIZE} x {length} tokens; {where}; MiB", flush=True)
    header = False
    for architecture in options.models:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = material.tokenizer_of(architecture)
            model = new_backbone(architecture, tokenizer, **size, max_positions=2048, seed=1)
            model.resize_token_embeddings(1500 if quick else 20000, mean_resizing=False)
            parameters = model.num_parameters()
            batch = material.full_rows(tokenizer, BATCH_SIZE, length)
            rows = {name: tensor.tolist() for name, tensor in batch.items()}  # tensors would be shared, and counted
            save_backbone(model, tokenizer, folder)
            del model
            for base in ("4 bits",) if quick else BASES:
                for checkpointing in (False, True) if base in CHECKPOINTED else (False,):
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        found = pool.apply(measure, (folder, architecture, base, checkpointing, rows))
                    row = {
                        "model": f"{architecture}, {parameters / 1e6:.0f} M",
                        "base": base,
                        "checkpointing": "yes" if checkpointing else "no",
                        **{k: f"{v:.1f}" if k.startswith("seconds") else f"{v / 2**20:.0f}" for k, v in found.items()},
                    }
                    if not header:
                        print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
                        header = True
                    print("| " + " | ".join(row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
