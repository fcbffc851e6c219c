"""Whether a checkpoint is there, told in seconds and without loading torch."""

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache

HUB_SECONDS = 5  # a hub that is out of reach shall not delay the answer


class CheckpointError(FileNotFoundError):
    """A model that is neither a folder nor a reachable hub id."""


def check_checkpoint(model_name_or_path: str) -> None:
    """Raise ``CheckpointError`` unless a folder with a config, or a hub id that is cached or can be reached, is named."""
    path = Path(model_name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise CheckpointError(f"{model_name_or_path}: this folder holds no config.json; give a checkpoint folder or a hub id")
        return
    if model_name_or_path.startswith((".", "/", "~")) or model_name_or_path.count("/") != 1:
        raise CheckpointError(f"{model_name_or_path}: no such folder; give a checkpoint folder or a hub id (owner/name)")
    if isinstance(try_to_load_from_cache(model_name_or_path, "config.json"), str):
        return
    try:
        HfApi().model_info(model_name_or_path, timeout=HUB_SECONDS)
    except Exception as error:  # whatever the network does, the remedy is the same
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{model_name_or_path}: no such folder, and as a hub id it cannot be reached ({reason}); "
            "check the name, or download it and give the folder"
        ) from None
