"""GGUF files (llama.cpp's format) as checkpoints: each is checked, and converted once to an ordinary folder."""

import logging
from functools import lru_cache, partial
from pathlib import Path

from llmcrs_utils.checkpoints.checks import CheckpointError
from llmcrs_utils.files.atomic import file_hash, writing_folder
from llmcrs_utils.files.locks import held
from llmcrs_utils.files.paths import located

CONVERTED = Path("runs/weights")  # folder of the converted files
ENDING = ".gguf"
CONVERSION_SECONDS = 1800  # how long to wait for another process that converts the same file


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
        CheckpointError: if it is something else, was cut short, or is a part of a model.
    """
    from gguf import GGUFReader  # takes a second and is needed only here

    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
    if start == b"version ":
        raise CheckpointError(f"{file}: this is a Git LFS pointer, not the weights; run git lfs pull, or download the file")
    if not start.startswith(b"GGUF"):
        raise CheckpointError(f"{file}: this is no GGUF file; get it again")
    parts = 1
    try:
        reader = GGUFReader(file)
        whole = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors) <= size
        if "split.count" in reader.fields:
            parts = int(reader.fields["split.count"].contents())
    except Exception:  # the reader has no errors of its own: a cut file ends in whatever comes first
        whole = False
    if not whole:
        raise CheckpointError(f"{file}: this file of {size} bytes is damaged or was cut short; get it again")
    if parts > 1:
        raise CheckpointError(f"{file}: is one of {parts} files of a model; join them (llama-gguf-split --merge)")


def converted(file: Path) -> Path:
    """The folder with the model and tokenizer of a GGUF file, which is converted at the first call.

    The weights are those of the file, dequantised to float32. The folder's name holds a hash of the file, so another file of that
    name gets another folder.

    Raises:
        CheckpointError: as ``convert``.
    """
    state = file.stat()
    folder = CONVERTED / f"{file.stem}-{content_hash(file.resolve(), state.st_size, state.st_mtime_ns)[:12]}"
    if not (folder / "config.json").is_file():
        with held(folder.parent / f".{folder.name}.lock", f"{folder}: is being converted", CONVERSION_SECONDS):
            if not (folder / "config.json").is_file():  # another process may have made it meanwhile
                with writing_folder(folder) as written:
                    convert(file, written)
    return folder


@lru_cache
def content_hash(file: Path, size: int, time: int) -> str:
    """SHA-256 of the file, computed again only if its size or time has changed."""
    return file_hash(file)


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to ``folder``, in the form of transformers and with float32 weights.

    Raises:
        CheckpointError: for a damaged or incomplete file, and if transformers does not read its architecture, tokenizer or weights.
    """
    check_gguf(file)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from llmcrs_utils.checkpoints.loading import missing_weights

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    logging.getLogger("transformers.modeling_gguf_pytorch_utils").setLevel(logging.ERROR)  # says that it dequantises
    read = {}
    load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32, output_loading_info=True)
    for what, kind in (("architecture", AutoConfig.from_pretrained), ("tokenizer", AutoTokenizer.from_pretrained), ("weights", load)):
        try:
            read[what] = kind(**place)
        except Exception as error:  # of many kinds, for what a file lacks
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{file}: transformers does not read its {what} ({reason}); give the model as a folder of transformers") from None
    model, loading = read["weights"]
    missing = missing_weights(model, loading)
    if missing:
        raise CheckpointError(f"{file}: lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}); get the whole model")
    # The model takes itself for a quantised one, which save_pretrained refuses.
    model.hf_quantizer = None
    for flag in ("is_quantized", "_is_quantized"):
        if hasattr(model, flag):
            setattr(model, flag, False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    read["tokenizer"].save_pretrained(folder)
