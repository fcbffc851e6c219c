"""The package is laid out in rooms, one on top of the other: a module imports from its own room and from rooms below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llmcrs_utils"
# From bottom to top. Rooms of one floor stand side by side: none imports another.
FLOORS = (
    ("files",),
    ("systems",),
    ("corpus",),
    ("text",),
    ("tasks",),
    ("evaluation",),
    ("world",),
    ("checkpoints",),
    ("training",),
    ("behaviour",),
    ("small",),
    ("crs", "llm", "typical"),
    ("study",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports from, other than its own; imports inside functions count too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} line {node.lineno}: imports within the package name the room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("llmcrs_utils.")}
    return rooms - {room_of(path)}


def test_every_room_has_a_floor():
    assert {room_of(path) for path in MODULES} == set(FLOOR_OF)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"], "a module belongs in a room"


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_every_room_says_what_belongs_there(folder):
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    assert said and len(said) > 40


@pytest.mark.parametrize("room", FLOOR_OF)
def test_no_import_runs_against_the_floors(room):
    against = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in MODULES
        if room_of(path) == room
        for other in imported_rooms(path)
        if FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[room]
    }
    assert against == set()


def test_no_rooms_import_each_other():
    below = {room: {other for path in MODULES if room_of(path) == room for other in imported_rooms(path)} for room in FLOOR_OF}
    reached = {room: set(rooms) for room, rooms in below.items()}
    for _ in FLOOR_OF:  # whatever is reached through others
        reached = {room: rooms.union(*(reached[other] for other in rooms)) for room, rooms in reached.items()}
    assert {room for room, rooms in reached.items() if room in rooms} == set()


def test_rooms_that_load_no_model_import_no_library_of_models():
    """Room by room in one process, so that the first room that imports such a library is named."""
    code = ["import importlib, sys"]
    for room in ("files", "systems", "corpus", "text", "tasks", "evaluation", "world"):
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES if room_of(path) == room]
        code += [f"for name in {names}: importlib.import_module(name)", f"print({room!r}, *sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if len(line.split()) > 1] == [] and len(done.stdout.splitlines()) == 7
