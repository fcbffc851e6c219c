"""GGUF files (llama.cpp's format) as checkpoints: each is checked, and converted once to an ordinary folder."""

import logging
from functools import lru_cache
from pathlib import Path

from llmcrs_utils.checkpoints.checks import CheckpointError
from llmcrs_utils.files.atomic import file_hash
from llmcrs_utils.files.paths import located

CONVERTED = Path("runs/weights")  # folder of the converted files
ENDING = ".gguf"


def gguf_file(model_name_or_path: str | Path) -> Path | None:
    """The GGUF file at this path: the file itself, or the only one in a folder without ``config.json``. ``None`` if there is none.

    Raises:
        CheckpointError: for a folder with several of them.
    """
    path = located(model_name_or_path)
    if path.suffix == ENDING and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob(f"*{ENDING}"))
    if len(files) > 1:
        raise CheckpointError(f"{path}: holds {len(files)} GGUF files ({', '.join(file.name for file in files[:3])}); name one of them")
    return files[0] if files else None


def check_gguf(file: Path) -> None:
    """Check that a GGUF file is complete. No tensor is read.

    Raises:
        CheckpointError: if it is something else, or was cut short.
    """
    from gguf import GGUFReader  # takes a second and is needed only here

    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
    if start == b"version ":
        raise CheckpointError(f"{file}: this is a Git LFS pointer, not the weights; run git lfs pull, or download the file")
    if not start.startswith(b"GGUF"):
        raise CheckpointError(f"{file}: this is no GGUF file; get it again")
    try:
        tensors = GGUFReader(file).tensors
        whole = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors) <= size
    except Exception:  # the reader has no errors of its own: a cut file ends in whatever comes first
        whole = False
    if not whole:
        raise CheckpointError(f"{file}: this file of {size} bytes is damaged or was cut short; get it again")


def converted(file: Path) -> Path:
    """The folder with the model and tokenizer of a GGUF file, which is converted at the first call.

    The weights are those of the file, dequantised to float32. The folder's name holds a hash of the file, so another file of that
    name gets another folder.

    Raises:
        CheckpointError: as ``convert``.
    """
    state = file.stat()
    return _converted(file.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache
def _converted(file: Path, size: int, time: int) -> Path:
    from llmcrs_utils.checkpoints.merging import writing_folder  # loads torch

    folder = CONVERTED / f"{file.stem}-{file_hash(file)[:12]}"

    def is_there() -> bool:
        return (folder / "config.json").is_file()

    if not is_there():
        with writing_folder(folder, unless=is_there) as written:
            convert(file, written)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to ``folder``, in the form of transformers and with float32 weights.

    Raises:
        CheckpointError: for a damaged file, and if transformers does not read its architecture or tokenizer.
    """
    check_gguf(file)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    logging.getLogger("transformers.modeling_gguf_pytorch_utils").setLevel(logging.ERROR)  # says that it dequantises
    for what, kind in (("architecture", AutoConfig), ("tokenizer", AutoTokenizer)):
        try:
            tokenizer = kind.from_pretrained(**place)
        except Exception as error:  # of many kinds, for what a file lacks
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{file}: transformers does not read its {what} ({reason}); give the model as a folder of transformers") from None
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    # The model takes itself for a quantised one, which save_pretrained refuses.
    model.hf_quantizer = None
    for flag in ("is_quantized", "_is_quantized"):
        if hasattr(model, flag):
            setattr(model, flag, False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
