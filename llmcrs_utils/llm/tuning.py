"""LoRA tuning of a causal LM through PEFT (paper section 3.2): one adapter for all four tasks."""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from peft.utils.save_and_load import load_peft_weights
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, TrainerCallback, set_seed

from llmcrs_utils.checkpoints.checks import resolved
from llmcrs_utils.checkpoints.loading import device, load_causal, load_tokenizer, load_unrounded
from llmcrs_utils.files.atomic import first_process, writing_folder
from llmcrs_utils.llm.ranking import HEAD, add_candidate_head, candidate_scores, head_at
from llmcrs_utils.training.collators import ANSWER, ANY_DESCRIPTION, causal_collator, with_labels
from llmcrs_utils.training.token_batches import ROUNDED_TO
from llmcrs_utils.training.trainer import QuietTrainer, train

SAVED_EVERY = 600  # seconds between two checkpoints


def new_lora(
    model_name_or_path: str,
    *,
    quantization_bit: int,
    lora_rank: int,
    lora_alpha: int,
    lora_dropout: float,
    lora_target: list[str],
    modules_to_save: list[str],
    gradient_checkpointing: bool,
    seed: int,
    dtype: str = "float32",
    ranking: str = "letter",
) -> PeftModel:
    """A causal LM with trainable LoRA layers on ``lora_target`` and full copies of ``modules_to_save``.

    ``lora_target=["all-linear"]`` means every linear layer except the head, in any architecture. The frozen base has ``dtype``
    (see ``load_causal``); all trained weights are float32. With the ``ranking`` ``candidates`` it has a head for candidates.
    """
    model = load_causal(model_name_or_path, quantization_bit, dtype=dtype)
    if ranking == "candidates":
        add_candidate_head(model, model_name_or_path)
        modules_to_save = [*modules_to_save, HEAD]
    if quantization_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=gradient_checkpointing)
    elif gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    set_seed(seed)  # LoRA's first matrix is initialised at random
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules="all-linear" if lora_target == ["all-linear"] else lora_target,
            modules_to_save=modules_to_save or None,
        ),
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    join_dtypes(model)
    return model


def compile_layers(model: PeftModel) -> None:
    """Let PyTorch fuse the operations of each layer in training, in place; a real LLM is then tuned faster (docs/performance.md).

    This needs a C++ compiler. The first batches take a minute longer, unless the code of an earlier run is still in PyTorch's cache. Validation and answers are
    not compiled, as each would need code of its own.

    Raises:
        ValueError: if the model does not say which modules are its layers, or if the environment keeps PyTorch from compiling.
    """
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":  # PyTorch would leave the layers as they are, without a word
        raise ValueError("compile_layers: the environment variable TORCHDYNAMO_DISABLE is 1; take it away, or give compile_layers: false")
    base = model.get_base_model()
    layers = [module for module in base.modules() if type(module).__name__ in (base._no_split_modules or ())]
    if not layers:
        raise ValueError(f"compile_layers: {type(base).__name__} does not say which modules are its layers; give compile_layers: false")
    if device().type == "cpu":
        base.set_attn_implementation("eager")  # its products are bfloat16's, which a CPU computes fast, and the rest is fused
    for layer in layers:
        layer.compile(dynamic=True)


def not_compiled() -> torch.compiler.set_stance:
    """Within this block compiled layers work as before."""
    return torch.compiler.set_stance("force_eager")


def join_dtypes(model: PeftModel) -> None:
    """Let float32 copies of ``modules_to_save`` work inside a base of another dtype: their inputs and outputs are converted.

    The head's output stays float32, because it is the logits.
    """
    head = model.get_output_embeddings()
    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        base = next(module.original_module.parameters()).dtype
        if base == torch.float32:
            continue
        for copy in module.modules_to_save.values():
            copy.register_forward_pre_hook(lambda _, inputs: tuple(float_states(one, torch.float32) for one in inputs))
            if module is not head:
                copy.register_forward_hook(lambda _, inputs, output, base=base: float_states(output, base))


def float_states(value, dtype: torch.dtype):
    """A tensor of floats converted to this dtype. Anything else (ids, masks) is returned unchanged."""
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def kind_of_rows(batch: dict) -> torch.Tensor:
    """What each row of a batch learns to write (``collators.ANSWER`` and others), [batch]."""
    return batch.get("kind", torch.full_like(batch["labels"][:, 0], ANSWER))


class AnswerTrainer(QuietTrainer):
    """Computes logits only where an answer is learned, and the loss of ranking by scores of candidates.

    The loss is the sum of three means: over the tokens of answers, over the tokens of products' descriptions, and over the rankings. Descriptions
    are so long that in one mean with the answers the other tasks would hardly count. In training the means are over all batches of an update and over all
    processes; in validation they are over all samples.

    Raises:
        ValueError: if it would spread a batch over several GPUs within one process.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        if self.args.n_gpu > 1:
            raise ValueError(f"{self.args.n_gpu} GPUs in one process; name one in CUDA_VISIBLE_DEVICES, or use accelerate (docs/clusters.md)")
        self.seen = 0  # training samples, of all processes; written to the log, from which a resumed training has it
        self.sums = torch.zeros(2, 3, dtype=torch.float64)  # in validation: losses and numbers of answers' tokens, descriptions' tokens, and rankings

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of an update, and [3]: the tokens of answers, the tokens of descriptions and the rankings in them, each a mean over processes.

        A loss summed in each process and divided by this has, as its mean over the processes, the mean over all that was summed.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = []
        for batch in batches:
            kind, learned = kind_of_rows(batch), (batch["labels"][:, 1:] != -100).sum(dim=1)
            samples = (kind != ANY_DESCRIPTION).sum()
            counts.append([learned[kind == ANSWER].sum(), learned[kind != ANSWER].sum(), len(batch.get("gold", ())), samples])
        mean = self.accelerator.reduce(torch.tensor(counts, dtype=torch.float32, device=device).sum(dim=0), "mean")
        self.seen += round(mean[3].item() * self.args.world_size)
        return batches, mean[:3]

    def log(self, logs, *arguments):
        super().log({**logs, "seen": self.seen}, *arguments)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        bare = self.accelerator.unwrap_model(model)
        given = {name: value for name, value in inputs.items() if name not in ("labels", "kind", "candidate_rows", "candidates", "gold")}
        targets = inputs["labels"][:, 1:]
        rows, columns = (targets != -100).nonzero(as_tuple=True)
        with head_at(bare, *((rows, columns) if len(rows) else ())) as states:
            outputs = model(**given, use_cache=False)
        logits = outputs.logits[0].float()
        # A part of which there is nothing, an empty one too, still reaches every trained parameter, as DDP needs it.
        losses = cross_entropy(logits[: len(rows)], targets[rows, columns], reduction="none")
        described = kind_of_rows(inputs)[rows] != ANSWER
        if "gold" in inputs:
            scores = candidate_scores(bare, states[0], inputs["candidate_rows"], inputs["candidates"])
            of_rankings = cross_entropy(scores, inputs["gold"], reduction="sum")
        else:
            head = getattr(bare.get_base_model(), HEAD, None)
            of_rankings = logits.sum() * 0 if head is None else sum(parameter.sum() for parameter in head.parameters()) * 0
        sums = torch.stack([losses[~described].sum(), losses[described].sum(), of_rankings])
        numbers = torch.tensor([len(rows) - described.sum(), described.sum(), len(inputs.get("gold", ()))], device=sums.device)
        if not model.training:
            self.sums += torch.stack([sums.detach(), numbers]).double().cpu()
        # What nobody has is divided by 1; a mean over several processes may lie between 0 and 1.
        numbers = num_items_in_batch if model.training else numbers
        loss = (sums / numbers.where(numbers > 0, 1)).sum()
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *arguments, metric_key_prefix="eval", **options):
        """The Trainer's, with the mean over all samples as the loss. The mean of the batches' means would depend on the batches."""
        self.sums.zero_()
        with not_compiled():
            found = super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **options)
        sums, numbers = self.accelerator.reduce(self.sums.to(self.args.device), "sum")
        found.metrics[f"{metric_key_prefix}_loss"] = (sums / numbers.clamp(min=1)).sum().item()
        return found


class SaveNowAndThen(TrainerCallback):
    """Asks for a checkpoint after ``SAVED_EVERY`` seconds, as an epoch of a real LLM can take hours; its losses so far are logged with it.

    Several processes, whose clocks differ, write one checkpoint an epoch.
    """

    def on_train_begin(self, args, state, control, **_):
        self.since = time.monotonic()

    def on_step_end(self, args, state, control, **_):
        if args.world_size == 1 and time.monotonic() - self.since >= SAVED_EVERY:
            control.should_save = control.should_log = True

    def on_save(self, args, state, control, **_):
        self.since = time.monotonic()


class Curve(TrainerCallback):
    """Calls ``measure(number)`` in training, when the model has seen this number of samples, for each of ``points``."""

    def __init__(self, trainer: AnswerTrainer, points: Iterable[int], measure: Callable[[int], None]):
        self.trainer, self.points, self.measure = trainer, sorted(points), measure

    def on_train_begin(self, args, state, control, **_):
        of_epochs = round((state.epoch or 0) * len(self.trainer.train_dataset))  # of a checkpoint that does not tell: it ends an epoch
        self.trainer.seen = state.log_history[-1].get("seen", of_epochs) if state.log_history else 0
        self.points = [point for point in self.points if point >= self.trainer.seen]
        self.look()

    def on_step_end(self, args, state, control, **_):
        self.look()

    def look(self) -> None:
        while self.points and self.trainer.seen >= self.points[0]:
            with not_compiled():
                self.measure(self.points.pop(0))
            self.trainer.model.train()


def new_trainer(points: Iterable[int], measure: Callable[[int], None] | None, **options) -> AnswerTrainer:
    trainer = AnswerTrainer(**options)
    trainer.add_callback(SaveNowAndThen())
    if points:
        trainer.add_callback(Curve(trainer, points, measure))
    return trainer


def tune(
    model: PeftModel,
    examples: list[dict],
    valid_examples: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    tokens_per_batch: int = 0,
    points: Iterable[int] = (),
    measure: Callable[[int], None] | None = None,
    **options,
) -> pd.DataFrame:
    """Tune in place with ``trainer.train`` and return its history. If the frozen base is in bfloat16, products are computed in it.

    Args:
        examples, valid_examples: as ``encode_instructions`` returns them.
        tokens_per_batch: most tokens of a batch, padding included; 0: batches of ``per_device_train_batch_size`` examples.
        points, measure: as for ``Curve``.
        options: passed to ``trainer.train``.
    """
    collate = causal_collator(tokenizer.pad_token_id, ROUNDED_TO if tokens_per_batch else 1)
    in_bfloat16 = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    return train(
        model, with_labels(examples), with_labels(valid_examples), collate, label_names=["labels"], tokenizer=tokenizer,
        kind=partial(new_trainer, points, measure), tokens_per_batch=tokens_per_batch, bf16=in_bfloat16 or None,
        ddp_find_unused_parameters=False, **options,
    )  # fmt: skip


def keep_untuned(model: PeftModel, tokenizer: PreTrainedTokenizerBase, output_dir: str | Path) -> pd.DataFrame:
    """Save the new adapter, which changes nothing yet, as ``tune`` saves a tuned one. Returns a history without epochs."""
    if first_process():
        model.save_pretrained(str(output_dir))
        tokenizer.save_pretrained(str(output_dir))
    PartialState().wait_for_everyone()
    return pd.DataFrame(columns=["epoch", "train_loss", "valid_loss"])


def load_tuned(adapter: str | Path, quantization_bit: int = 0, base: str | None = None, dtype: str = "float32") -> PeftModel:
    """Load a saved adapter with its base model, to answer. Layers that are saved completely keep the dtype that they were tuned in.

    LoRA's matrices get the base's dtype. Autocast computes in it anyway, but would convert frozen matrices anew at every product.

    Args:
        base: where the base model is now; without it, where it was when the adapter was tuned.
        dtype: of the base (see ``load_causal``).
    """
    folder, base = resolved(adapter), base or base_of(adapter)
    model = load_causal(base, quantization_bit, dtype=dtype)
    if has_candidate_head(adapter):
        add_candidate_head(model, base)
    model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)
    copies = [copy for module in model.modules() if isinstance(module, ModulesToSaveWrapper) for copy in module.modules_to_save.values()]
    if any(parameter.dtype != torch.float32 for copy in copies for parameter in copy.parameters()):
        for copy in copies:
            copy.float()
        set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))  # again, and now without rounding
        join_dtypes(model)
    return model.to(device())


def merge(adapter: str | Path, output_dir: str | Path, base: str | None = None) -> None:
    """Merge an adapter into its base model and save a plain checkpoint with tokenizer. Only the first process does so.

    ``base`` says where the base model is now; without it, where it was when the adapter was tuned.

    The base is loaded unquantised and keeps its dtype. If it was quantised to 4 or 8 bits for tuning, its logits differ from
    those during tuning, so the merged model's answers can differ from those of the adapter on the quantised base.
    """
    if not first_process():
        return
    with writing_folder(output_dir) as folder:
        base = base or base_of(adapter)
        model = load_unrounded(base)
        if has_candidate_head(adapter):
            add_candidate_head(model, base)
        tuned = PeftModel.from_pretrained(model, resolved(adapter))
        tuned.merge_and_unload().save_pretrained(str(folder))
        load_tokenizer(str(adapter)).save_pretrained(str(folder))


def has_candidate_head(adapter: str | Path) -> bool:
    """Whether an adapter ranks by scores of candidates."""
    return HEAD in (LoraConfig.from_pretrained(resolved(adapter)).modules_to_save or ())


def base_of(adapter: str | Path) -> str:
    """The base model an adapter was tuned on."""
    return LoraConfig.from_pretrained(resolved(adapter)).base_model_name_or_path
