"""A model that learns something else from the same parameters and files needs another recipe number, or its old runs pass for new ones."""

import json

import fingerprints
import pytest

NAMES = list(json.loads(fingerprints.STORED.read_text("utf-8")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return fingerprints.runs(tmp_path_factory.mktemp("recipes"))


def test_every_model_has_a_fingerprint(runs):
    assert list(runs) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_changes_only_with_a_new_recipe_number(runs, name):
    stored, recipe = json.loads(fingerprints.STORED.read_text("utf-8"))[name], fingerprints.recipe_of(runs[name])
    assert stored["recipe"] == recipe, "a recipe was raised: run `python tests/fingerprints.py` and commit fingerprints.json"
    found = fingerprints.fingerprint(runs[name])
    assert found == pytest.approx(stored["fingerprint"], rel=2e-4, abs=0), (
        f"{name} learns something else than recipe {recipe} did: raise its number in llmcrs_utils/systems/recipes.py, "
        "then run `python tests/fingerprints.py` and commit fingerprints.json"
    )
