"""One way to train everything: ``transformers.Trainer`` with what this study fixes once."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from llmcrs_utils.files.atomic import first_process, read_json_or_none, write_atomically
from llmcrs_utils.study.provenance import FINISHED, git_state

# Parameters of a notebook that its model does not depend on.
NOT_OF_TRAINING = {"predict_splits", "predictions_file", "eval_batch_size", "num_beams", "merge_adapter", "report_to"}
NOT_CODE_OF_TRAINING = {"preflight.py", "params.py", "provenance.py", "systems.py", "validate.py"}


def training_key(settings: dict) -> dict:
    """What a model depends on: parameters and data (``settings``), the base checkpoint's files, and this package's code."""
    key = {name: value for name, value in settings.items() if name not in NOT_OF_TRAINING}
    base = Path(str(settings.get("model_name_or_path") or "none"))
    key["base files"] = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(base.glob("*.*")) if file.is_file()]
    package = Path(__file__).parent
    sources = [file for file in sorted(package.rglob("*.py")) if "evaluation" not in file.parts and file.name not in NOT_CODE_OF_TRAINING]
    key["code"] = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    return json.loads(json.dumps(key, default=str))


class ListDataset(torch.utils.data.Dataset):
    """Examples held in memory (the Trainer's length grouping reads ``input_ids`` of each)."""

    def __init__(self, examples: list[dict]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict:
        return self.examples[index]


class QuietTrainer(Trainer):
    """Nested batches have no single ``input_ids`` to count operations of."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0


def train(
    model: PreTrainedModel,
    examples: list[dict],
    valid_examples: list[dict],
    collate: Callable[[list[dict]], dict],
    *,
    output_dir: str | Path,
    settings: dict,
    num_train_epochs: float,
    learning_rate: float,
    per_device_train_batch_size: int,
    seed: int,
    gradient_accumulation_steps: int = 1,
    lr_scheduler_type: str = "linear",
    warmup_steps: float = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    label_names: list[str] | None = None,
    group_by_length: bool = True,
    report_to: str = "none",
    tokenizer: PreTrainedTokenizerBase | None = None,
    save_to: str | Path | None = None,
) -> pd.DataFrame:
    """Train ``model`` in place and leave it with the weights that did best on validation loss.

    A checkpoint is kept per epoch; called again after a kill, training goes on from the last one and ends with the
    same weights. ``settings`` names what the run depends on: checkpoints of other settings are removed, not resumed.
    ``warmup_steps`` below 1 is a share of all steps. bf16 where the GPU has it. With ``save_to``, model and tokenizer are
    saved there, put together first where several processes hold parts of them (FSDP); batch sizes are those of one process.

    Returns:
        One row per epoch: ``epoch, train_loss, valid_loss``.
    """
    output_dir = Path(output_dir)
    on_gpu = torch.cuda.is_available()
    set_seed(seed)
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=num_train_epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=per_device_train_batch_size,
        per_device_eval_batch_size=2 * per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        lr_scheduler_type=lr_scheduler_type,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        train_sampling_strategy="group_by_length" if group_by_length else "random",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=label_names,
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        report_to=report_to,
        seed=seed,
    )
    with arguments.main_process_first(local=False):
        resume = resumable_checkpoint(output_dir, settings)
    if getattr(model, "all_tied_weights_keys", None):
        # One of each set of tied tensors is saved; so told, the Trainer ties the others again instead of calling them missing.
        model._keys_to_ignore_on_save = list(model.all_tied_weights_keys)
    trainer = QuietTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=ListDataset(examples),
        eval_dataset=ListDataset(valid_examples),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=resume)
    model.config.use_cache = True  # the Trainer turned it off, for good; decoding without it is quadratic
    history = pd.DataFrame(trainer.state.log_history)
    if save_to is not None:
        trainer.save_model(str(save_to))
    if first_process():
        if save_to is not None:
            (Path(save_to) / "training_args.bin").unlink()  # a pickle that nobody reads
        # Without its record no checkpoint is resumed: a kill from here on must not leave half a checkpoint to resume.
        (output_dir / "settings.json").unlink()
        for checkpoint in output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    trainer.accelerator.wait_for_everyone()
    columns = {"epoch": "epoch", "loss": "train_loss", "eval_loss": "valid_loss"}
    kept = history.reindex(columns=list(columns)).rename(columns=columns)
    return kept.groupby("epoch", as_index=False).first()


def resumable_checkpoint(output_dir: Path, settings: dict) -> str | None:
    """The last whole checkpoint of a run with the same settings; checkpoints of other settings are removed first."""
    output_dir.mkdir(parents=True, exist_ok=True)
    record = output_dir / "settings.json"
    wanted = json.dumps(training_key(settings), sort_keys=True, ensure_ascii=False)
    same_run = record.exists() and record.read_text(encoding="utf-8") == wanted
    if not same_run:
        record.unlink(missing_ok=True)
    for checkpoint in output_dir.glob("checkpoint-*"):
        # The Trainer writes its state last: without it, a kill came while the checkpoint was being written.
        if not same_run or not read_json_or_none(checkpoint / "trainer_state.json"):
            shutil.rmtree(checkpoint)
    write_atomically(record, wanted)
    return get_last_checkpoint(str(output_dir))


def mark_finished(output_dir: str | Path, settings: dict, history: pd.DataFrame) -> None:
    """Note beside a saved model what made it; written last, after the model."""
    record = {"key": training_key(settings), "git": git_state(), "history": history.to_dict("records")}
    write_atomically(Path(output_dir) / FINISHED, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def finished(output_dir: str | Path, settings: dict) -> pd.DataFrame | None:
    """The training history where ``output_dir`` holds a model made of just this, else ``None``.

    The note of another model is removed: once training starts again, the folder is no longer what it says.
    """
    record = Path(output_dir) / FINISHED
    found = read_json_or_none(record)
    if found and found["key"] == training_key(settings):
        return pd.DataFrame(found["history"])
    record.unlink(missing_ok=True)
    return None


