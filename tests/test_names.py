"""One meaning a name: no two modules of the package define the same public class, function or constant."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "llmcrs_utils"
# Names that several modules may define, and why. Whoever removes the second meaning removes the line.
STEP = "the same step, for each kind of system"
VOCABULARY = "special tokens of one tokenizer each"
SAME_MEANING = {
    "main": "the entry point of a command",
    "run": "what a command does, after its arguments were read",
    "answer": STEP,
    "asked_live": STEP,
    "predict": STEP,
    "prepare": STEP,
    "rank": STEP,
    "train": STEP,
    "worked_example": STEP,
    "Material": "what one kind of system is trained on",
    "RECORD": "what a finished system records in its folder",
    "TASK": "the one task of a module's systems",
    "made_in": STEP,
    "encode": STEP,
    "END": VOCABULARY,
    "MASK": VOCABULARY,
    "PAD": VOCABULARY,
    "START": VOCABULARY,
    "UNKNOWN": VOCABULARY,
}


def public_names(source: str) -> set[str]:
    """Classes, functions and constants that a module defines at its top level; names with an underscore are its own affair."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def modules_by_name(package: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for name in public_names(path.read_text("utf-8")):
            found[name].append(str(path.relative_to(package)))
    return found


def test_no_name_has_two_meanings():
    twice = {name: modules for name, modules in modules_by_name(PACKAGE).items() if len(modules) > 1}
    twice = {name: modules for name, modules in twice.items() if name not in SAME_MEANING}
    assert twice == {}, "rename one of each, or say in SAME_MEANING why they mean the same"


def test_a_second_meaning_is_found(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("from b import Other\nLEFT, RIGHT = 1, 2\nclass Turn: ...\ndef _own(): ...\n", "utf-8")
    (tmp_path / "b.py").write_text("Other = 1\nRIGHT: int = 3\ndef Turn(): LEFT = 1\ndef _own(): ...\n", "utf-8")
    twice = {name for name, modules in modules_by_name(tmp_path).items() if len(modules) > 1}
    assert twice == {"RIGHT", "Turn"}
