"""Whether an LLM has the layers that a profile would tune, and the chat template that it would use; no weights are read."""

from llmcrs_utils.checkpoints.checks import CheckpointError, architecture, checkpoint_file, named, read_json
from llmcrs_utils.files.paths import located

# Layers that LoRA can be added to, by the last part of their names, where that is known without loading torch.
ADAPTABLE = {
    "llama": ("embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    "chatglm": ("word_embeddings", "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head"),
}


def missing_layers(
    model_name_or_path: str | None, small: str | None, lora_target: list[str], modules_to_save: list[str]
) -> tuple[str, list[str], list[str]] | None:
    """The first parameter that names layers which the model has not: (parameter, those names, names it may give).

    ``None`` where all are there, and for a hub id whose config is not cached. Names are matched as PEFT matches them.

    Args:
        model_name_or_path: a checkpoint that ``check_checkpoint`` has passed; without one, a small model is looked at.
        small: architecture of that small model.

    Raises:
        CheckpointError: where the config makes no model.
    """
    model_type = architecture(model_name_or_path, cached_only=True) if model_name_or_path else small
    lora_target = [] if lora_target == ["all-linear"] else lora_target
    if not model_type or {*lora_target, *modules_to_save} <= set(ADAPTABLE.get(model_type, ())):
        return None
    layers = layers_of(model_name_or_path, model_type)
    adaptable = [name for name, can_adapt in layers.items() if can_adapt]
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in adaptable))
    no_target = [t for t in lora_target if not any(name == t or name.endswith(f".{t}") for name in adaptable)]
    not_saved = [t for t in modules_to_save if not any(name.endswith(t) for name in layers)]
    missing = {"lora_target": no_target, "modules_to_save": not_saved}
    return next(((parameter, names, known) for parameter, names in missing.items() if names), None)


def layers_of(model_name_or_path: str | None, model_type: str) -> dict[str, bool]:
    """Full names of a causal LM's layers, and whether LoRA can be added to each; takes seconds, since it loads torch."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    import llmcrs_utils.checkpoints.chatglm  # noqa: F401  makes ChatGLM known to the Auto classes

    try:
        if model_name_or_path:
            config = AutoConfig.from_pretrained(named(model_name_or_path), trust_remote_code=False, local_files_only=True)
        else:
            config = AutoConfig.for_model(model_type)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever is wrong with it, loading would meet it too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_name_or_path}: config.json makes no causal model ({reason}); get the file again") from None
    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    return {name: isinstance(module, kinds) for name, module in model.named_modules() if name}


def lacks_chat_template(model_name_or_path: str | None, adapters: list[str]) -> bool:
    """Whether no tokenizer of these folders, or that of a small model, has a chat template; what a hub has is not asked."""
    folders = [located(name) for name in (model_name_or_path, *adapters) if name]
    return all(
        folder.is_dir()
        and not (folder / "chat_template.jinja").is_file()
        and not read_json(checkpoint_file(folder, "tokenizer_config.json")).get("chat_template")
        for folder in folders
    )
