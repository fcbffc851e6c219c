"""A model that learns something else from the same parameters and files needs another recipe number, or its old runs pass for new ones."""

import json

import fingerprints
import pytest
from conftest import slow

STORED = json.loads(fingerprints.STORED.read_text("utf-8"))
NAMES = [name for name in STORED if name != "data"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return fingerprints.runs(tmp_path_factory.mktemp("recipes"))


@pytest.mark.parametrize(("name", "rate"), [
    ("bcrs", "stage_two_learning_rate"),
    *(pytest.param(*other, marks=slow) for other in (
        ("ccrs", "stage_one_learning_rate"), ("allm", "learning_rate"), ("tg_crs", "behaviour_learning_rate"),
        ("kbrd", "recommender_learning_rate"), ("small bart", "learning_rate"),
    )),
])  # fmt: skip
def test_a_fingerprint_tells_other_training_from_the_recipe_s(runs, tmp_path, name, rate):
    """As it would tell another optimizer: what it holds depends on every stage's updates."""
    run = runs[name]
    changed = run.model_copy(update={"parameters": {**run.parameters, rate: 3 * run.parameters[rate]}, "output_dir": str(tmp_path / "other")})
    assert fingerprints.fingerprint(changed) != pytest.approx(STORED[name]["fingerprint"], rel=2e-4, abs=0)


def test_every_model_has_a_fingerprint(runs):
    assert list(runs) == NAMES


def test_samples_of_the_same_corpus_change_only_with_a_new_recipe_number():
    assert STORED["data"]["recipe"] == fingerprints.recipes.OF_DATA, "a recipe was raised: run `python tests/fingerprints.py`"
    assert fingerprints.data_digest() == STORED["data"]["digest"], "samples changed: raise OF_DATA in llmcrs_utils/systems/recipes.py"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_changes_only_with_a_new_recipe_number(runs, name):
    stored, recipe = STORED[name], fingerprints.recipe_of(runs[name])
    assert stored["recipe"] == recipe, "a recipe was raised: run `python tests/fingerprints.py` and commit fingerprints.json"
    found = fingerprints.fingerprint(runs[name])
    assert found == pytest.approx(stored["fingerprint"], rel=2e-4, abs=0), (
        f"{name} learns something else than recipe {recipe} did: raise its number in llmcrs_utils/systems/recipes.py, "
        "then run `python tests/fingerprints.py` and commit fingerprints.json"
    )
