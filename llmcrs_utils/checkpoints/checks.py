"""Whether a checkpoint is there, whole, and of use as what it is given for: told in seconds, before torch is loaded."""

import json
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open

from llmcrs_utils.files.paths import located

HUB_SECONDS = 5  # a hub that is out of reach shall not delay the answer
# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json")
# Of architectures that read some of these, or another file, alone.
OWN_TOKENIZERS = {
    "chatglm": ("ice_text.model",),
    "llama": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "bert": ("tokenizer.json", "vocab.txt"),
}
EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "shared.weight", "wte.weight")
LEAST_KNOWN = 0.9  # of the rows; published models have some to spare
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")  # what configs call their number
CRS_ARCHITECTURES = ("bart", "cpt")
Kind = Literal["crs", "llm", "encoder", "reply"]  # what a checkpoint is given for; "reply": a causal model to be tuned as a whole
# What each kind's inputs are made with: names of the token, any of which will do, and what it is called.
END = (("eos_token",), "end token to close an answer with")
CLOSING = (("eos_token", "sep_token"), "end token, nor [SEP], to close a text with")
PADDING = (("pad_token", "unk_token", "eos_token"), "token to pad with")
NEEDED = {
    "llm": (END, PADDING),
    "reply": (CLOSING, (("pad_token", "unk_token", "eos_token", "sep_token"), "token to pad with")),
    "crs": (CLOSING, PADDING),
    "encoder": ((("cls_token",), "[CLS]"), (("sep_token",), "[SEP]"), PADDING),
}
BERT_TOKENS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
CPT_WEIGHT = "model.encoder.embeddings.position_embeddings.weight"  # of BERT's encoder, where BART has embed_positions


class CheckpointError(FileNotFoundError):
    """A model that is neither a folder nor a reachable hub id, or one that cannot do what it is given for."""


def check_checkpoint(model_name_or_path: str, kind: Kind | None = None) -> None:
    """Raise ``CheckpointError`` unless a folder with a config, or a hub id that is cached or can be reached, is named.

    With ``kind`` a folder has to hold a model of that kind, whole weight files, and a tokenizer that fits the model. Of a
    hub id the config is looked at if it is cached; what a hub delivers is whole.
    """
    path = checkpoint_folder(model_name_or_path)
    if path is not None:
        if not (path / "config.json").exists():
            adapter = (path / "adapter_config.json").exists()
            raise CheckpointError(
                f"{model_name_or_path}: this folder holds no config.json; "
                + (
                    "it is an adapter: give the base model's folder, and the adapter where adapter_name_or_path asks for it"
                    if adapter
                    else "give a checkpoint folder or a hub id"
                )
            )
        if kind:
            check_model(model_name_or_path, kind)
            check_tokenizer(path, kind)
        return
    if isinstance(try_to_load_from_cache(model_name_or_path, "config.json"), str):
        if kind:
            check_model(model_name_or_path, kind, cached_only=True)
        return
    try:
        HfApi().model_info(model_name_or_path, timeout=HUB_SECONDS)
    except Exception as error:  # whatever the network does, the remedy is the same
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{model_name_or_path}: no such folder, and as a hub id it cannot be reached ({reason}); "
            "check the name, or download it and give the folder"
        ) from None


def checkpoint_folder(model_name_or_path: str | Path) -> Path | None:
    """The folder that is named, ``~`` resolved; ``None`` where a hub id is named.

    Raises:
        CheckpointError: where neither is.
    """
    path, name = located(model_name_or_path), str(model_name_or_path)
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name}: no such folder; give a checkpoint folder or a hub id (owner/name)")
    return None


def named(model_name_or_path: str | Path) -> str:
    """The folder or hub id as transformers and PEFT take it: they know no ``~``."""
    return str(checkpoint_folder(model_name_or_path) or model_name_or_path)


def check_adapter(adapter: str) -> None:
    """Raise ``CheckpointError`` unless a folder with a whole LoRA adapter, or a hub id as ``check_checkpoint`` takes it, is named."""
    folder = checkpoint_folder(adapter)
    if folder is None:
        check_checkpoint(adapter)
        return
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{adapter}: this is no adapter: adapter_config.json is not there")
    weights = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{adapter}: this adapter has no weights; looked for {', '.join(ADAPTER_WEIGHTS)}")
    check_whole(weights)


def checkpoint_file(model_name_or_path: str | Path, name: str, cached_only: bool = False) -> Path | None:
    """A file of a checkpoint folder, or of a hub id's (downloaded where it may be), ``None`` where there is none."""
    folder = checkpoint_folder(model_name_or_path)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(str(model_name_or_path), name, local_files_only=cached_only))
    except EntryNotFoundError:
        return None


def read_json(file: Path | None) -> dict:
    """The object in a JSON file, empty where there is no file."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: this is no JSON ({error}); get the file again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: a JSON object is expected here; get the file again")
    return found


def architecture(model_name_or_path: str | Path, cached_only: bool = False) -> str:
    """The config's model type, save that a "bart" with CPT's weights is "cpt": published CPTs call themselves BART."""
    model_type = read_json(checkpoint_file(model_name_or_path, "config.json", cached_only)).get("model_type", "")
    if model_type == "bart" and CPT_WEIGHT in weight_names(model_name_or_path, cached_only):
        return "cpt"
    return model_type


def positions(model_name_or_path: str | Path) -> int | None:
    """How many tokens the model was made for, by its config; ``None`` where that does not say, and for an adapter."""
    config = read_json(checkpoint_file(model_name_or_path, "config.json"))
    parts = [part for part in (config, config.get("text_config"), config.get("backbone")) if isinstance(part, dict)]
    said = [part[name] for part in parts for name in POSITIONS if isinstance(part.get(name), int) and part[name] > 0]
    return said[0] if said else None


def check_model(model_name_or_path: str | Path, kind: Kind, cached_only: bool = False) -> None:
    """Raise ``CheckpointError`` unless the model is of this kind and a folder's weight files are whole and what the config says."""
    folder = checkpoint_folder(model_name_or_path)
    if folder is not None:
        check_weights(folder)
    config = read_json(checkpoint_file(model_name_or_path, "config.json", cached_only))
    if folder is not None:
        check_rows(folder, config)
    found = architecture(model_name_or_path, cached_only)
    if not found:
        raise CheckpointError(f"{model_name_or_path}: config.json names no model_type; give a checkpoint of transformers")
    if kind == "crs" and found not in CRS_ARCHITECTURES:
        raise CheckpointError(
            f"{model_name_or_path}: this is a model of type {found}; a CRS needs BART or CPT"
        )
    if kind == "encoder" and found != "bert":
        raise CheckpointError(f"{model_name_or_path}: this is a model of type {found}; the typical systems read with a BERT")
    if kind in ("llm", "reply"):
        if found in CRS_ARCHITECTURES or config.get("is_encoder_decoder"):
            raise CheckpointError(
                f"{model_name_or_path}: this is an encoder-decoder of type {found}; an LLM has to be a causal model such as LLaMA "
                "or ChatGLM"
            )
        classes = config.get("architectures") or []
        causal = found == "chatglm" or not classes or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes)
        if not causal and not reads_as_causal(found):
            raise CheckpointError(f"{model_name_or_path}: {', '.join(classes)} is no causal language model; give one such as LLaMA or ChatGLM")
    if found == "chatglm":
        from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig  # what it takes is said there; it loads torch

        try:
            ChatGLMConfig(**config)
        except ValueError as error:
            raise CheckpointError(f"{model_name_or_path}: {error}") from None


def reads_as_causal(model_type: str) -> bool:
    """Whether transformers takes the language model alone out of such a checkpoint (Gemma 3, say, which also sees)."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known  # seconds; rarely asked

    return str(known.get(model_type, "")).endswith(("ForCausalLM", "ForConditionalGeneration"))


def check_weights(folder: Path) -> None:
    """Raise ``CheckpointError`` unless the folder's weights are there and every file of them is whole."""
    first = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if first is None:
        raise CheckpointError(f"{folder}: no weights here; looked for {', '.join(WEIGHTS)}")
    if first.suffix != ".json":
        check_whole(first)
        return
    shards = read_json(first).get("weight_map")
    if not shards:
        raise CheckpointError(f"{first}: its weight_map names no weights; get the file again")
    for shard in sorted(set(shards.values())):
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder}: {first.name} names {shard}, which is not here; get the file")
        check_whole(folder / shard)


def check_whole(file: Path) -> None:
    """Raise ``CheckpointError`` where a file of weights was cut short or is something else. The weights are not read."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if start == b"version ":
            raise CheckpointError(f"{file}: this is a Git LFS pointer, not the weights; run git lfs pull, or download the file")
        if file.suffix == ".safetensors":
            whole = bool(safetensors_shapes(file))
        elif start.startswith(b"PK"):
            whole = whole_zip(file)
        else:
            whole = start.startswith(b"\x80")  # torch's format before 1.6, a row of pickles; where it ends is not said
    if not whole:
        raise CheckpointError(f"{file}: this file of {size} bytes is damaged or was cut short; get it again")


def whole_zip(file: Path) -> bool:
    """Whether a file of torch's has the list at its end, a header where the list says for each tensor, and a whole pickle."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                archive.open(member).close()  # reads the header alone
            return any(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except (zipfile.BadZipFile, struct.error, zlib.error, ValueError, RuntimeError, EOFError):  # what a hole may look like
        return False


def safetensors_shapes(file: Path) -> dict[str, list[int]]:
    """Tensor names -> shapes; empty where the file is damaged or was cut short. No tensor is read."""
    try:
        with safe_open(file, "numpy") as opened:  # which loads neither numpy nor torch for this
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except (SafetensorError, OSError):
        return {}


def check_rows(folder: Path, config: dict) -> None:
    """Raise ``CheckpointError`` where embeddings in a folder's safetensors have not as many rows as the config says."""
    first = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    shards = read_json(first)["weight_map"] if first.suffix == ".json" else {name: first.name for name in weight_names(folder)}
    for name, shard in shards.items():
        if name.endswith(EMBEDDINGS) and shard.endswith(".safetensors"):
            (rows, *_) = safetensors_shapes(folder / shard).get(name) or [None]
            said = config.get("vocab_size", rows)
            if rows not in (None, said):
                raise CheckpointError(
                    f"{folder}: config.json says vocab_size {said}, {shard} has {rows} rows in {name}: they do not belong together; "
                    "take both from one checkpoint"
                )


def weight_names(model_name_or_path: str | Path, cached_only: bool = False) -> set[str]:
    """Names in the checkpoint's state dict, and for a single ``.bin`` whatever else its pickle holds as text."""
    file = next(filter(None, (checkpoint_file(model_name_or_path, name, cached_only) for name in WEIGHTS)), None)
    if file is None:
        return set()
    if file.suffix == ".json":
        return set(read_json(file).get("weight_map", {}))
    if file.suffix == ".safetensors":
        return set(safetensors_shapes(file))
    # A pickle's instructions are listed, not followed: nothing in the file is run, and no tensor is read.
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return pickled_texts(archive.read(member))
    with file.open("rb") as opened:  # before torch 1.6: three short pickles, then the state dict's
        return set().union(*(pickled_texts(opened) for _ in range(4)))


def pickled_texts(pickle) -> set[str]:
    return {argument for _, argument, _ in pickletools.genops(pickle) if isinstance(argument, str)}


def check_tokenizer(folder: Path, kind: Kind | None = None) -> None:
    """Raise ``CheckpointError`` unless the folder holds a tokenizer that goes with the model and has what ``kind`` needs of it.

    It may know no more tokens than the model has rows, nor far fewer.
    """
    config = read_json(folder / "config.json")
    names = OWN_TOKENIZERS.get(config.get("model_type"), TOKENIZERS)
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder}: no tokenizer here; looked for {', '.join(names)}")
    size, rows = vocabulary_size(file), config.get("vocab_size")
    if rows and not LEAST_KNOWN * rows <= size <= rows:
        adapter = "merge the adapter first" if size > rows else "take the adapter's tokenizer"
        raise CheckpointError(
            f"{file}: the tokenizer knows {size} tokens, the model has rows for {rows}: they do not belong together; take both from "
            f"one checkpoint (a base model whose vocabulary an adapter enlarged: {adapter})"
        )
    if kind and file.suffix in (".json", ".txt"):  # the sentencepiece tokenizers bring their own, and say what a file lacks
        check_special_tokens(file, kind)


def check_special_tokens(file: Path, kind: Kind) -> None:
    """Raise ``CheckpointError`` where a tokenizer names no token, or one that it does not know, of those that ``kind`` needs.

    An LLM closes its answers with the end token, a reply model with that or ``[SEP]``; a CRS's texts end in the end token or ``[SEP]``, and an
    encoder reads ``[CLS] text [SEP]``. What pads may be the unknown or the end token instead of one of its own.
    """
    tokens = special_tokens(file)
    if tokens is None:
        return
    for wanted, said in NEEDED[kind]:
        if not any(tokens.get(name) for name in wanted):
            raise CheckpointError(f"{file.parent}: its tokenizer has no {said}; name it as {wanted[0]} in tokenizer_config.json")
    known = vocabulary(file)
    for name in dict.fromkeys(name for wanted, _ in NEEDED[kind] for name in wanted):
        token = tokens.get(name)
        if token and token not in known:
            raise CheckpointError(
                f"{file.parent}: its tokenizer names {token} as {name}, which {file.name} does not hold: the model has no row for it; "
                "take both from one checkpoint"
            )


def special_tokens(file: Path) -> dict[str, str] | None:
    """Names (``eos_token``) and texts of a tokenizer's special tokens; ``None`` where its class, unknown here, may bring its own."""
    folder, said = file.parent, {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        found = read_json(folder / name if (folder / name).is_file() else None)
        for key, value in found.items():
            text = value.get("content") if isinstance(value, dict) else value
            if (key.endswith("_token") or key == "tokenizer_class") and (text or key not in said):
                said[key] = text
    kind = said.pop("tokenizer_class", None)
    if file.name == "vocab.txt" or kind in ("BertTokenizer", "BertTokenizerFast"):
        return BERT_TOKENS | said
    # Without a name, or with one that stands for any tokenizer, the settings say all there is.
    return said if kind in ("PreTrainedTokenizerFast", "TokenizersBackend") else None


def vocabulary(file: Path) -> set[str]:
    """The tokens of a tokenizer's file of text, and those added beside it."""
    beside = [file.parent / name for name in ("added_tokens.json", "tokenizer_config.json")]
    tokens, settings = (read_json(path if path.is_file() else None) for path in beside)
    added = {*tokens, *(token["content"] for token in settings.get("added_tokens_decoder", {}).values())}
    if file.name == "vocab.txt":
        return added | set(file.read_text(encoding="utf-8").splitlines())
    found = read_json(file)
    if file.name == "vocab.json":
        return added | set(found)
    entries = found.get("model", {}).get("vocab", {})
    known = {entry[0] for entry in entries} if isinstance(entries, list) else set(entries)
    return added | known | {token["content"] for token in found.get("added_tokens", [])}


def vocabulary_size(file: Path) -> int:
    """Number of tokens, the added ones included, of the tokenizer whose main file this is."""
    folder = file.parent
    if file.name == "tokenizer.json":
        found = read_json(file)
        entries = found.get("model", {}).get("vocab", {})
        known = len(entries) if isinstance(entries, list) else max(entries.values(), default=-1) + 1
        return max([known, *(token["id"] + 1 for token in found.get("added_tokens", []))])
    if file.name == "vocab.txt":
        known = len(file.read_text(encoding="utf-8").splitlines())
    elif file.name == "vocab.json":
        known = max(read_json(file).values(), default=-1) + 1
    else:
        from sentencepiece import SentencePieceProcessor

        try:
            known = SentencePieceProcessor(model_file=str(file)).vocab_size()
        except (OSError, RuntimeError):
            raise CheckpointError(f"{file}: this is no sentencepiece model, or it was cut short; get it again") from None
    added = read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    return max([known, *(token + 1 for token in added.values())])


PARTS_OF_CHECKPOINTS = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf"}
RECORDS = {"key.json", "finished.json", "history.json", "provenance.json", "merged_from.json"}  # of ours, beside a model


def checkpoint_files(model_name_or_path: str | Path) -> list[Path]:
    """The files of a checkpoint or adapter folder that decide what is loaded, by name; none of a hub id."""
    folder = located(model_name_or_path)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in PARTS_OF_CHECKPOINTS and path.name not in RECORDS and path.is_file())


def hub_revision(model_name_or_path: str | Path) -> list[str] | None:
    """A hub id and the commit that is used of it (fetching its config, if need be); ``None`` of a folder."""
    if located(model_name_or_path).is_dir():
        return None
    names = ("config.json", "adapter_config.json")
    found = next(filter(None, (checkpoint_file(model_name_or_path, name) for name in names)), None)
    return [str(model_name_or_path), found.parent.name if found else ""]
