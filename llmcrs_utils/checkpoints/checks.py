"""Checks whether a checkpoint exists, is complete and fits its purpose. The checks take seconds and do not load torch."""

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

HUB_SECONDS = 5  # how long to wait for the hub
# Names of weight files, in the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json")
# Architectures that read only some of these files, or another one.
OWN_TOKENIZERS = {
    "chatglm": ("ice_text.model",),
    "llama": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "bert": ("tokenizer.json", "vocab.txt"),
}
EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "shared.weight", "wte.weight")
LEAST_KNOWN = 0.9  # least share of the model's rows that have a token; published models have a few more rows than tokens
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")  # names in configs for the number of positions
CRS_ARCHITECTURES = ("bart", "cpt")
Kind = Literal["crs", "llm", "encoder", "reply"]  # the purpose of a checkpoint; "reply": a causal model that is tuned as a whole
# The special tokens that each kind needs: (names in the settings, one of which is enough; description for messages).
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
CPT_WEIGHT = "model.encoder.embeddings.position_embeddings.weight"  # only CPT has it, from BERT; BART has embed_positions


class CheckpointError(FileNotFoundError):
    """A checkpoint that is neither a folder nor a reachable hub id, or that is unfit for its purpose."""


def check_checkpoint(model_name_or_path: str, kind: Kind | None = None) -> None:
    """Check that ``model_name_or_path`` is a folder with a config, or a hub id that is cached or reachable.

    With ``kind`` a folder must hold a model of that kind, complete weight files, and a tokenizer that fits the model. For a
    hub id only the config is checked, and only if it is cached, because a hub delivers complete files.

    Raises:
        CheckpointError: if a check fails; names the folder or hub id and the remedy.
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
    except Exception as error:  # the remedy is the same for every network error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{model_name_or_path}: no such folder, and as a hub id it cannot be reached ({reason}); "
            "check the name, or download it and give the folder"
        ) from None


def checkpoint_folder(model_name_or_path: str | Path) -> Path | None:
    """The folder with ``~`` resolved; ``None`` for a hub id. For a GGUF file it is the folder that the file is converted to.

    Raises:
        CheckpointError: for a name that is neither a folder, a sound GGUF file nor a possible hub id.
    """
    from llmcrs_utils.checkpoints.gguf import converted, gguf_file  # these modules import this one
    from llmcrs_utils.checkpoints.weights import CONVERTED, PUBLISHED

    path, name = located(model_name_or_path), str(model_name_or_path)
    file = gguf_file(path)
    if file:
        return converted(file)
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or name.endswith(".gguf"):
        published = Path(name).parent == CONVERTED and path.name in PUBLISHED
        remedy = f"make weights MODEL={path.name} fetches it" if published else "give a checkpoint folder or a hub id (owner/name)"
        raise CheckpointError(f"{name}: no such folder; {remedy}")
    return None


def resolved(model_name_or_path: str | Path) -> str:
    """The folder with ``~`` resolved, which transformers and PEFT do not do, or the hub id as it is."""
    return str(checkpoint_folder(model_name_or_path) or model_name_or_path)


def check_adapter(adapter: str) -> None:
    """Check that ``adapter`` is a folder with a complete LoRA adapter, or a hub id that passes ``check_checkpoint``.

    Raises:
        CheckpointError: if it is not.
    """
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
    """The file ``name`` of a checkpoint folder or hub id; ``None`` if there is none.

    A hub's file is downloaded, except with ``cached_only``.
    """
    folder = checkpoint_folder(model_name_or_path)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(str(model_name_or_path), name, local_files_only=cached_only))
    except EntryNotFoundError:
        return None


def read_json(file: Path | None) -> dict:
    """The object in a JSON file; ``{}`` for ``None``.

    Raises:
        CheckpointError: if the file does not hold a JSON object.
    """
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: this is no JSON ({error}); get the file again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: a JSON object is expected here; get the file again")
    return content


def architecture(model_name_or_path: str | Path, cached_only: bool = False) -> str:
    """The config's model type, ``""`` without one. A "bart" with CPT's weights is "cpt", as published CPTs are marked as BART."""
    model_type = read_json(checkpoint_file(model_name_or_path, "config.json", cached_only)).get("model_type", "")
    if model_type == "bart" and CPT_WEIGHT in weight_names(model_name_or_path, cached_only):
        return "cpt"
    return model_type


def positions(model_name_or_path: str | Path) -> int | None:
    """The model's number of positions (tokens) in its config; ``None`` if the config has none, and for an adapter."""
    config = read_json(checkpoint_file(model_name_or_path, "config.json"))
    parts = [part for part in (config, config.get("text_config"), config.get("backbone")) if isinstance(part, dict)]
    numbers = [part[name] for part in parts for name in POSITIONS if isinstance(part.get(name), int) and part[name] > 0]
    return numbers[0] if numbers else None


def check_model(model_name_or_path: str | Path, kind: Kind, cached_only: bool = False) -> None:
    """Check that the model is of this kind, and that a folder's weight files are complete and agree with the config.

    Raises:
        CheckpointError: if a check fails.
    """
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
        from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig  # checks its own fields; imported late, as it loads torch

        try:
            ChatGLMConfig(**config)
        except ValueError as error:
            raise CheckpointError(f"{model_name_or_path}: {error}") from None


def reads_as_causal(model_type: str) -> bool:
    """Whether transformers can load only the language model of such a checkpoint (as of Gemma 3, which also sees images)."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known  # takes seconds; rarely needed

    return str(known.get(model_type, "")).endswith(("ForCausalLM", "ForConditionalGeneration"))


def check_weights(folder: Path) -> None:
    """Check that the folder has weights and that every weight file is complete.

    Raises:
        CheckpointError: if weights are missing or a file is incomplete.
    """
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
    """Check that a weight file is complete. The weights are not read.

    Raises:
        CheckpointError: if the file was cut short or is something else.
    """
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
            whole = start.startswith(b"\x80")  # torch's format before 1.6, a series of pickles; its length is not recorded
    if not whole:
        raise CheckpointError(f"{file}: this file of {size} bytes is damaged or was cut short; get it again")


def whole_zip(file: Path) -> bool:
    """Whether a torch file has its index, a header for each tensor where the index says, and a complete pickle."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                archive.open(member).close()  # reads only the header
            return any(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except (zipfile.BadZipFile, struct.error, zlib.error, ValueError, RuntimeError, EOFError):  # errors of damaged files
        return False


def safetensors_shapes(file: Path) -> dict[str, list[int]]:
    """Tensor names -> shapes; empty if the file is damaged or was cut short. No tensor is read."""
    try:
        with safe_open(file, "numpy") as opened:  # needs neither numpy nor torch for shapes
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except (SafetensorError, OSError):
        return {}


def check_rows(folder: Path, config: dict) -> None:
    """Check that embeddings in a folder's safetensors have as many rows as the config's ``vocab_size``.

    Raises:
        CheckpointError: if they have not.
    """
    first = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    shards = read_json(first)["weight_map"] if first.suffix == ".json" else {name: first.name for name in weight_names(folder)}
    for name, shard in shards.items():
        if name.endswith(EMBEDDINGS) and shard.endswith(".safetensors"):
            (rows, *_) = safetensors_shapes(folder / shard).get(name) or [None]
            vocab_size = config.get("vocab_size", rows)
            if rows not in (None, vocab_size):
                raise CheckpointError(
                    f"{folder}: config.json says vocab_size {vocab_size}, {shard} has {rows} rows in {name}: they do not belong "
                    "together; take both from one checkpoint"
                )


def weight_names(model_name_or_path: str | Path, cached_only: bool = False) -> set[str]:
    """Names of the weights in a checkpoint. For a single ``.bin`` also all other texts in its pickle."""
    file = next(filter(None, (checkpoint_file(model_name_or_path, name, cached_only) for name in WEIGHTS)), None)
    if file is None:
        return set()
    if file.suffix == ".json":
        return set(read_json(file).get("weight_map", {}))
    if file.suffix == ".safetensors":
        return set(safetensors_shapes(file))
    # The pickle's instructions are listed, not executed: no code of the file runs, and no tensor is read.
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return pickled_texts(archive.read(member))
    with file.open("rb") as opened:  # before torch 1.6: three short pickles, then the state dict's
        return set().union(*(pickled_texts(opened) for _ in range(4)))


def pickled_texts(pickle) -> set[str]:
    return {argument for _, argument, _ in pickletools.genops(pickle) if isinstance(argument, str)}


def check_tokenizer(folder: Path, kind: Kind | None = None) -> None:
    """Check that the folder holds a tokenizer that fits the model and has the special tokens that ``kind`` needs.

    It may not have more tokens than the model has rows, nor less than ``LEAST_KNOWN`` of them.

    Raises:
        CheckpointError: if a check fails.
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
    if kind and file.suffix in (".json", ".txt"):  # the sentencepiece tokenizers define their own and check them when loaded
        check_special_tokens(file, kind)


def check_special_tokens(file: Path, kind: Kind) -> None:
    """Check that a tokenizer names, and has, the special tokens that ``kind`` needs.

    An LLM's answers end with the end token. The texts of a reply model and of a CRS end with the end token or ``[SEP]``. An
    encoder reads ``[CLS] text [SEP]``. Without a pad token, the unknown token or the end token may pad.

    Raises:
        CheckpointError: for a token that is not named, or is not in the vocabulary.
    """
    tokens = special_tokens(file)
    if tokens is None:
        return
    for wanted, description in NEEDED[kind]:
        if not any(tokens.get(name) for name in wanted):
            raise CheckpointError(
                f"{file.parent}: its tokenizer has no {description}; name it as {wanted[0]} in tokenizer_config.json"
            )
    known = vocabulary(file)
    for name in dict.fromkeys(name for wanted, _ in NEEDED[kind] for name in wanted):
        token = tokens.get(name)
        if token and token not in known:
            raise CheckpointError(
                f"{file.parent}: its tokenizer names {token} as {name}, which {file.name} does not hold: the model has no row for it; "
                "take both from one checkpoint"
            )


def special_tokens(file: Path) -> dict[str, str] | None:
    """Name (such as ``eos_token``) -> text of a tokenizer's special tokens.

    ``None`` if they cannot be known, because the tokenizer's class may define its own.
    """
    folder, tokens = file.parent, {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings = read_json(folder / name if (folder / name).is_file() else None)
        for key, value in settings.items():
            text = value.get("content") if isinstance(value, dict) else value
            if (key.endswith("_token") or key == "tokenizer_class") and (text or key not in tokens):
                tokens[key] = text
    kind = tokens.pop("tokenizer_class", None)
    if file.name == "vocab.txt" or kind in ("BertTokenizer", "BertTokenizerFast"):
        return BERT_TOKENS | tokens
    # These general classes define no special tokens, so the settings name all of them.
    return tokens if kind in ("PreTrainedTokenizerFast", "TokenizersBackend") else None


def vocabulary(file: Path) -> set[str]:
    """The tokens in a tokenizer's text file (JSON or ``vocab.txt``), and those added in the files beside it."""
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
    """Number of tokens of the tokenizer with this main file, added tokens included.

    Raises:
        CheckpointError: for a damaged sentencepiece file.
    """
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


# What decides how a folder is loaded, besides its weights.
LOADED_WITH = {
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "merges.txt", "chat_template.jinja", *TOKENIZERS, *(name for names in OWN_TOKENIZERS.values() for name in names),
}  # fmt: skip


def checkpoint_files(model_name_or_path: str | Path) -> list[Path]:
    """The files of a checkpoint or adapter that decide what is loaded, by name. A hub id has none."""
    from llmcrs_utils.checkpoints.gguf import gguf_file  # that module imports this one

    if not str(model_name_or_path):
        return []
    file, folder = gguf_file(model_name_or_path), located(model_name_or_path)
    if file:
        return [file]
    if not folder.is_dir():
        return []
    weights = [next((folder / name for name in names if (folder / name).is_file()), None) for names in (WEIGHTS, ADAPTER_WEIGHTS)]
    shards = {shard for file in weights if file and file.suffix == ".json" for shard in read_json(file).get("weight_map", {}).values()}
    wanted = LOADED_WITH | shards | {file.name for file in weights if file}
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name in wanted)


def hub_revision(model_name_or_path: str | Path) -> list[str] | None:
    """A hub id and its commit in use, for which its config may be downloaded. ``None`` for a folder or a file."""
    if located(model_name_or_path).exists():
        return None
    names = ("config.json", "adapter_config.json")
    config = next(filter(None, (checkpoint_file(model_name_or_path, name) for name in names)), None)
    return [str(model_name_or_path), config.parent.name if config else ""]
