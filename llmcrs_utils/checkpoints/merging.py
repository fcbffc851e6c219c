"""LoRA adapters folded into their base: published ones before tuning, a tuned one on request."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import load_peft_weights

from llmcrs_utils.checkpoints.checks import (
    CheckpointError,
    check_checkpoint,
    check_model,
    check_tokenizer,
    checkpoint_file,
    checkpoint_folder,
    named,
)
from llmcrs_utils.checkpoints.loading import load_unrounded, tokenizer_as_published
from llmcrs_utils.files.atomic import current_umask, file_hash

MERGED_FROM = "merged_from.json"


def merge_adapters(base: str, adapters: list[str], output_dir: str | Path) -> None:
    """Fold published LoRA adapters into their base, one after the other, and save one plain checkpoint with tokenizer.

    Chinese-Alpaca-Plus is made so of LLaMA, the Chinese-LLaMA-Plus LoRA and the Chinese-Alpaca-Plus LoRA (Cui et al. 2023),
    each of which brings a larger vocabulary and its own embeddings. The tokenizer saved is the last that was brought. The
    weights keep the base's dtype. A folder that was made of the same files is left as it is, also one that another job made
    meanwhile.

    Raises:
        CheckpointError: for a base that is no causal LM, an adapter that is none or brings new tokens without their
            embeddings, and an ``output_dir`` that holds something else.
    """
    check_checkpoint(base)
    check_model(base, "llm")
    output_dir = Path(output_dir)
    sources = json.dumps({"base": files_of(base), "adapters": [files_of(adapter) for adapter in adapters]}, indent=1) + "\n"
    record = output_dir / MERGED_FROM

    def made() -> bool:
        return record.exists() and record.read_text(encoding="utf-8") == sources

    if made():
        return
    if output_dir.exists() and not record.exists() and any(output_dir.iterdir()):
        raise CheckpointError(f"{output_dir}: this folder holds something that was not merged here; give another output_dir")
    model = load_unrounded(base)
    tokenizer = tokenizer_as_published(base)
    for adapter in adapters:
        if checkpoint_file(adapter, "adapter_config.json") is None:
            raise CheckpointError(f"{adapter}: this is no adapter: adapter_config.json is not there")
        if any(checkpoint_file(adapter, name) for name in ("tokenizer.json", "tokenizer.model")):
            tokenizer = tokenizer_as_published(adapter)
        brought = load_peft_weights(named(adapter), device="cpu")
        heads = [weights for name, weights in brought.items() if name.endswith((".embed_tokens.weight", ".lm_head.weight"))]
        rows = max([model.get_input_embeddings().num_embeddings, *map(len, heads)])
        if len(tokenizer) > rows or 0 < len(heads) < 2:
            raise CheckpointError(f"{adapter}: its tokenizer knows {len(tokenizer)} tokens, and embeddings for all of them are not here")
        model.resize_token_embeddings(rows, mean_resizing=False)  # the adapter's own rows replace them all
        config = PeftConfig.from_pretrained(named(adapter))
        model = PeftModel.from_pretrained(model, named(adapter), config=config).merge_and_unload(safe_merge=True)
    with writing_folder(output_dir, unless=made) as folder:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        check_tokenizer(folder)
        (folder / MERGED_FROM).write_text(sources, encoding="utf-8")


def with_adapters(model_name_or_path: str, adapters: list[str], folder: str | Path) -> str:
    """The checkpoint to go on from: the model itself or, with adapters, all merged in a folder of its own under ``folder``.

    Its name tells what it was made of, so that other adapters, or newer files of theirs, never take its place.
    """
    if not adapters:
        return model_name_or_path
    sources = json.dumps([files_of(name) for name in (model_name_or_path, *adapters)])
    output_dir = Path(folder) / f"merged-{hashlib.sha256(sources.encode()).hexdigest()[:12]}"
    with PartialState().main_process_first():
        merge_adapters(model_name_or_path, adapters, output_dir)
    return str(output_dir)


@contextmanager
def writing_folder(output_dir: str | Path, unless: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A folder to write in, which takes the name ``output_dir`` when all is there.

    What stands there by then is replaced, or kept if ``unless`` says so.
    """
    output_dir = Path(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{output_dir.name}.", dir=output_dir.parent))
    folder.chmod(0o777 & ~current_umask())  # mkdtemp makes folders that only their owner can read
    try:
        yield folder
        try:
            folder.rename(output_dir)  # one step, so that of several jobs one comes first
        except OSError:  # something is there
            if not unless():
                shutil.rmtree(output_dir, ignore_errors=True)
                folder.rename(output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_of(model_name_or_path: str) -> list:
    """What tells whether a checkpoint has changed: names and hashes of a folder's files, or the hub id."""
    folder = checkpoint_folder(model_name_or_path)
    if folder is None:
        return [model_name_or_path]
    return [[file.name, file_hash(file)] for file in sorted(folder.iterdir()) if file.is_file()]
