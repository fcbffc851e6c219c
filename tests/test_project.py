"""The project as a whole: its dependencies are pinned, its commands listed, and nothing ships that should not."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pins():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def committed_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_dependency_is_pinned_as_pyproject_asks():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    locked = pins()
    for requirement in map(Requirement, wanted):
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is in pyproject.toml but not in requirements.lock: compile the lock again"
        (version,) = [specifier.version for specifier in pin.specifier]
        assert requirement.specifier.contains(version), f"requirements.lock has {pin}, pyproject.toml asks for {requirement}"


def test_lock_holds_exact_public_versions_and_no_place():
    for requirement in pins().values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "+" not in specifier.version and "*" not in specifier.version, str(requirement)
        assert requirement.url is None, str(requirement)
    assert not re.search(r"^\s*-|://", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)


def test_conda_environment_takes_its_versions_from_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert {re.split(r"[<>=]", name)[0] for name in conda} == {"python", "pip", "make"}
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_help_lists_every_target():
    targets = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE).group(1).split()
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in targets if not re.search(rf"^  {target} ", shown, re.MULTILINE)] == []


def test_no_committed_file_names_a_place_on_one_machine():
    # put together from parts, or this file would find itself
    place = re.compile(rb"""(?<![\w.~/*-])/(?:""" + b"|".join([b"work", b"root", b"home"]) + rb""")/[\w.]""")
    assert [str(path.relative_to(ROOT)) for path in committed_files() if place.search(path.read_bytes())] == []


def test_nothing_committed_runs_code_on_loading():
    files = committed_files()
    assert [path.name for path in files if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy"}] == []
    trusting = re.compile(r"trust_remote_code\s*=\s*" + "True")
    sources = [path for path in files if path.suffix in {".py", ".ipynb"}]
    assert [path.name for path in sources if trusting.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_tells_and_shows_but_defines_nothing(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown", "prose first"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    for cell in code:
        ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE))
    defining = re.compile(r"^\s*(?:async\s+def|def|class)\s|^\s*\w+\s*=\s*lambda\b", re.MULTILINE)
    assert [cell.source for cell in code if defining.search(cell.source)] == []
    assert any(cell.outputs for cell in code), "run the notebook before committing it"
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
