"""Checks whether an LLM has the layers that a profile tunes, and the chat template that it uses. No weights are read."""

from llmcrs_utils.checkpoints.checks import CheckpointError, architecture, checkpoint_file, checkpoint_folder, read_json, resolved

# Layers that LoRA can be added to, by the last part of their names, for architectures that can be checked without torch.
ADAPTABLE = {
    "llama": ("embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    "chatglm": ("word_embeddings", "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head"),
}


def missing_layers(
    model_name_or_path: str | None, small: str | None, lora_target: list[str], modules_to_save: list[str]
) -> tuple[str, list[str], list[str]] | None:
    """The first parameter that names layers which the model lacks: (parameter, missing names, possible names).

    ``None`` if the model has all of them, and for a hub id whose config is not cached. Names are matched as in PEFT.

    Args:
        model_name_or_path: a checkpoint that has passed ``check_checkpoint``. Without one, a small model is checked.
        small: architecture of that small model.

    Raises:
        CheckpointError: if no model can be made from the config.
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
    """Full name of each layer of a causal LM -> whether LoRA can be added to it. Takes seconds, because it loads torch."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    import llmcrs_utils.checkpoints.chatglm  # noqa: F401  registers ChatGLM with the Auto classes

    try:
        if model_name_or_path:
            config = AutoConfig.from_pretrained(resolved(model_name_or_path), trust_remote_code=False, local_files_only=True)
        else:
            config = AutoConfig.for_model(model_type)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # of whatever kind: loading would fail for the same reason
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{model_name_or_path}: config.json makes no causal model ({reason}); get the file again") from None
    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    return {name: isinstance(module, kinds) for name, module in model.named_modules() if name}


def lacks_chat_template(model_name_or_path: str | None, adapters: list[str]) -> bool:
    """Whether none of these checkpoints has a chat template. Small models have none. Hub ids are assumed to have one."""
    folders = [checkpoint_folder(name) for name in (model_name_or_path, *adapters) if name]
    return all(
        folder is not None
        and not (folder / "chat_template.jinja").is_file()
        and not read_json(checkpoint_file(folder, "tokenizer_config.json")).get("chat_template")
        for folder in folders
    )
