"""Trains every model in the same way: ``transformers.Trainer`` with this study's fixed settings."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils.save_and_load import load_peft_weights
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

from llmcrs_utils.files.atomic import first_process, read_json_or_none, write_json
from llmcrs_utils.training.folders import HISTORY
from llmcrs_utils.training.token_batches import TokenBatchSampler


class ListDataset(torch.utils.data.Dataset):
    """Examples held in memory. To group by length, the Trainer reads the ``input_ids`` of each."""

    def __init__(self, examples: list[dict]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict:
        return self.examples[index]


class QuietTrainer(Trainer):
    """A Trainer that stops if the loss is lost and can batch by tokens.

    It does not count operations, because nested batches have no single ``input_ids`` for that.

    Attributes:
        tokens_per_batch: most tokens of a batch, padding included; 0: batches have as many examples as the arguments say.
    """

    tokens_per_batch = 0

    def training_step(self, *arguments, **options) -> torch.Tensor:
        loss = super().training_step(*arguments, **options)
        self.check_finite(loss.item())
        return loss

    def evaluation_loop(self, *arguments, metric_key_prefix: str = "eval", **options) -> EvalLoopOutput:
        found = super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **options)
        self.check_finite(found.metrics.get(f"{metric_key_prefix}_loss", 0.0))
        return found

    def check_finite(self, loss: float) -> None:
        """Stop a training whose weights are lost. Without this, it would go on, and be saved as if it had learned.

        Raises:
            FloatingPointError: if the loss is infinite or not a number.
        """
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{self.args.output_dir}: the loss is {loss} after {self.state.global_step} updates; give a lower learning_rate, dtype: float32 if the "
                "base is in bfloat16, or larger batches if a batch had nothing to learn"
            )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def get_train_dataloader(self) -> DataLoader:
        return self.by_tokens(self.train_dataset, shuffled=True) if self.tokens_per_batch else super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        return self.by_tokens(self.eval_dataset, shuffled=False) if self.tokens_per_batch else super().get_eval_dataloader(eval_dataset)

    def by_tokens(self, dataset: ListDataset, shuffled: bool) -> DataLoader:
        lengths = [len(example["input_ids"]) for example in dataset.examples]
        processes = self.args.world_size, self.args.process_index
        sampler = TokenBatchSampler(lengths, self.tokens_per_batch, self.args.seed, shuffled, *processes)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=self.data_collator, pin_memory=self.args.dataloader_pin_memory)
        loader.set_epoch = sampler.set_epoch  # the Trainer calls it before each epoch
        return loader


def train(
    model: PreTrainedModel,
    examples: list[dict],
    valid_examples: list[dict],
    collate: Callable[[list[dict]], dict],
    *,
    output_dir: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    label_names: list[str] | None = None,
    group_by_length: bool = True,
    kind: Callable[..., QuietTrainer] = QuietTrainer,
    tokens_per_batch: int = 0,
    **arguments,
) -> pd.DataFrame:
    """Train ``model`` in place. It ends with the weights of its best validation loss, which are saved in ``output_dir``.

    One call is one stage of a training and has its own folder. Each epoch writes a checkpoint (``kind`` may write more). If a call was killed, the next
    call continues from the last checkpoint and ends with the same weights. A finished stage is loaded, not trained again. The
    folder must belong to this stage, which ``study.run.opened`` ensures.

    Args:
        examples, valid_examples: examples from which ``collate`` makes batches.
        tokenizer: saved beside the model.
        label_names: the entries of a batch that are labels, for the Trainer.
        group_by_length: whether batches hold examples of similar length.
        kind: makes the Trainer; another one computes the loss in another way.
        tokens_per_batch: see ``QuietTrainer``.
        arguments: arguments of ``training_arguments``.

    Returns:
        One row per epoch: ``epoch, train_loss, valid_loss``.
    """
    output_dir = Path(output_dir)
    history = read_json_or_none(output_dir / HISTORY)
    if history is not None:
        if first_process():
            remove_checkpoints(output_dir)  # a kill may have come before it was done
        load_weights(model, output_dir)
        return pd.DataFrame(history)
    arguments = training_arguments(output_dir, label_names, group_by_length, **arguments)
    # cuDNN's attention can return gradients that are no numbers for padded batches (a mask, and a length of 64 more than a multiple of 128;
    # github.com/pytorch/pytorch/issues/196678; torch 2.11 to 2.13 on H100 and H200). Torch's other kernels do not.
    torch.backends.cuda.enable_cudnn_sdp(False)
    set_seed(arguments.seed)
    with arguments.main_process_first(local=False):
        resume = last_whole_checkpoint(output_dir)
    if getattr(model, "all_tied_weights_keys", None):
        # Only one of each set of tied tensors is saved. With this setting the Trainer ties the others again; otherwise it would
        # report them as missing.
        model._keys_to_ignore_on_save = list(model.all_tied_weights_keys)
    trainer = kind(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=ListDataset(examples),
        eval_dataset=ListDataset(valid_examples),
        processing_class=tokenizer,
    )
    trainer.tokens_per_batch = tokens_per_batch
    trainer.train(resume_from_checkpoint=resume)
    model.config.use_cache = True  # the Trainer turned it off; decoding without a cache takes quadratic time
    trainer.save_model(str(output_dir))  # also joins weights that are spread over processes (FSDP)
    history = epochs_of(trainer.state.log_history)
    if first_process():
        (output_dir / "training_args.bin").unlink()  # an unused pickle
        write_json(output_dir / HISTORY, history.to_dict("records"))
        remove_checkpoints(output_dir)  # last: after a kill before the history was written, training continues from them
    trainer.accelerator.wait_for_everyone()
    return history


def remove_checkpoints(output_dir: Path) -> None:
    for checkpoint in output_dir.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def training_arguments(
    output_dir: Path,
    label_names: list[str] | None,
    group_by_length: bool,
    *,
    num_train_epochs: float,
    learning_rate: float,
    per_device_train_batch_size: int,
    seed: int,
    gradient_accumulation_steps: int = 1,
    lr_scheduler_type: str = "linear",
    warmup_steps: float = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    report_to: str = "none",
    bf16: bool | None = None,
    ddp_find_unused_parameters: bool | None = None,
) -> TrainingArguments:
    """The Trainer's settings: those that differ between models, and those that are the same for all of them.

    ``warmup_steps`` below 1 is a share of all steps. Batch sizes are per process. ``bf16`` says whether products are computed in
    bfloat16 (autocast); ``None``: if there is a GPU that supports it. ``ddp_find_unused_parameters`` is the Trainer's.
    """
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
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
        bf16=on_gpu and torch.cuda.is_bf16_supported() if bf16 is None else bf16,
        ddp_find_unused_parameters=ddp_find_unused_parameters,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        report_to=report_to,
        seed=seed,
    )


def epochs_of(log_history: list[dict]) -> pd.DataFrame:
    """The Trainer's log as one row per epoch: ``epoch, train_loss, valid_loss``.

    A checkpoint in the middle of an epoch logs the mean loss of the updates before it. The epoch's is the mean over all its updates.
    """
    log = pd.DataFrame(log_history).reindex(columns=["epoch", "step", "loss", "eval_loss"])
    number = np.ceil(log["epoch"])
    trained = log[log["loss"].notna()]
    updates = trained["step"].diff().fillna(trained["step"])
    return pd.DataFrame(
        {
            "epoch": log.groupby(number)["epoch"].max(),
            "train_loss": {epoch: weighted_mean(part, updates[part.index]) for epoch, part in trained["loss"].groupby(number)},
            "valid_loss": log.groupby(number)["eval_loss"].last(),
        }
    ).reset_index(drop=True)


def weighted_mean(values: pd.Series, weights: pd.Series) -> float:
    return values.iloc[0] if len(values) == 1 else float(np.average(values, weights=weights))


def last_whole_checkpoint(output_dir: Path) -> str | None:
    """The last checkpoint in ``output_dir``. Incomplete checkpoints are removed first."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for checkpoint in output_dir.glob("checkpoint-*"):
        # The Trainer writes its state last: a checkpoint without it was interrupted by a kill.
        if not read_json_or_none(checkpoint / "trainer_state.json"):
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(output_dir))


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the weights that ``train`` saved in ``folder`` into ``model``.

    Raises:
        ValueError: if they are not the weights of this model.
    """
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    index = read_json_or_none(folder / "model.safetensors.index.json")
    files = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
    weights = {name: tensor for file in files for name, tensor in load_file(folder / file).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = set(missing) - set(getattr(model, "all_tied_weights_keys", None) or ())
    if lacking or unexpected:
        raise ValueError(f"{folder}: these are not the weights of this model ({', '.join(sorted([*lacking, *unexpected])[:3])})")
