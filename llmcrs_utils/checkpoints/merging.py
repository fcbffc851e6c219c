"""Merges LoRA adapters into their base model: published adapters before tuning, a tuned one on request."""

import hashlib
import json
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
    resolved,
)
from llmcrs_utils.checkpoints.loading import load_unrounded, tokenizer_as_published
from llmcrs_utils.files.atomic import file_hash, writing_folder

MERGED_FROM = "merged_from.json"


def merge_adapters(base: str, adapters: list[str], output_dir: str | Path) -> None:
    """Merge published LoRA adapters into their base, one after the other, and save a plain checkpoint with tokenizer.

    Chinese-Alpaca-Plus is made in this way from LLaMA, the Chinese-LLaMA-Plus LoRA and the Chinese-Alpaca-Plus LoRA (Cui et
    al. 2023). Each of these adapters has a larger vocabulary and its own embeddings. The last tokenizer among them is saved.
    The weights keep the base's dtype. A folder that was already made from the same files stays as it is, even if another job
    made it in the meantime.

    Raises:
        CheckpointError: for a base that is not a causal LM, for an adapter that is not an adapter, has new tokens without
            embeddings or ranks by scores of candidates, and for an ``output_dir`` that holds something else.
    """
    check_checkpoint(base)
    check_model(base, "llm")
    output_dir = Path(output_dir)
    sources = json.dumps({"base": file_hashes(base), "adapters": [file_hashes(adapter) for adapter in adapters]}, indent=1) + "\n"
    record = output_dir / MERGED_FROM

    def is_merged() -> bool:
        return record.exists() and record.read_text(encoding="utf-8") == sources

    if is_merged():
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
        tensors = load_peft_weights(resolved(adapter), device="cpu")
        heads = [weights for name, weights in tensors.items() if name.endswith((".embed_tokens.weight", ".lm_head.weight"))]
        rows = max([model.get_input_embeddings().num_embeddings, *map(len, heads)])
        if len(tokenizer) > rows or 0 < len(heads) < 2:
            raise CheckpointError(f"{adapter}: its tokenizer knows {len(tokenizer)} tokens, and embeddings for all of them are not here")
        model.resize_token_embeddings(rows, mean_resizing=False)  # the adapter's own rows replace them all
        config = PeftConfig.from_pretrained(resolved(adapter))
        if "candidate_head" in (config.modules_to_save or ()):
            raise CheckpointError(f"{adapter}: ranks by scores of candidates, which this merging would lose; make the merged model by merge_adapter: true")
        model = PeftModel.from_pretrained(model, resolved(adapter), config=config).merge_and_unload(safe_merge=True)
    with writing_folder(output_dir, unless=is_merged) as folder:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        check_tokenizer(folder)
        (folder / MERGED_FROM).write_text(sources, encoding="utf-8")


def with_adapters(model_name_or_path: str, adapters: list[str], folder: str | Path) -> str:
    """The checkpoint with its adapters merged, in a folder of its own under ``folder``. Without adapters, the model itself.

    The folder's name is a hash of the merged files, so other adapters, or newer versions of their files, get another folder.
    """
    if not adapters:
        return model_name_or_path
    sources = json.dumps([file_hashes(name) for name in (model_name_or_path, *adapters)])
    output_dir = Path(folder) / f"merged-{hashlib.sha256(sources.encode()).hexdigest()[:12]}"
    with PartialState().main_process_first():
        merge_adapters(model_name_or_path, adapters, output_dir)
    return str(output_dir)


def file_hashes(model_name_or_path: str) -> list:
    """Names and hashes of the files in a checkpoint's folder, or the hub id. They show whether a checkpoint has changed."""
    folder = checkpoint_folder(model_name_or_path)
    if folder is None:
        return [model_name_or_path]
    return [[file.name, file_hash(file)] for file in sorted(folder.iterdir()) if file.is_file()]
