"""Profiles that extend others, and models that a profile adds."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from llmcrs_utils.evaluation.figures import look_of
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.tables import metrics_table, task_table
from llmcrs_utils.study.parameters import ParameterError, settings_of, with_defaults
from llmcrs_utils.study.plan import Plan
from llmcrs_utils.study.preflight import check
from llmcrs_utils.study.profile import load_profile, system_parameters
from llmcrs_utils.systems.registry import SYSTEMS, register

ROOT = Path(__file__).parents[1]
QWEN = {"name": "Qwen2.5-0.5B", "family": "llm", "backbone": "llama", "template": "plain", "lora_rank": 4}
DATA = {"01_build_data": {"corpus": "generated"}, "02_prepare_backbones": {"hidden_size": 32}}


def write(folder: Path, name: str, **profile) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(profile, allow_unicode=True, sort_keys=False), "utf-8")
    return path


# --- extending


def test_sections_are_merged_lists_replaced_and_null_takes_away(tmp_path):
    write(tmp_path, "base", profile="base", systems=["bcrs", "allm", "allm-bcrs"], **DATA, **{"03_train_crs": {"cutoff_len": 99, "item_dim": 8}})
    top = write(tmp_path, "top", extends="base", profile="top", systems=["bcrs", "cllm", "cllm-bcrs"], **{"03_train_crs": {"item_dim": 9}, "02_prepare_backbones": None})
    profile = load_profile(top)
    assert profile["profile"] == "top" and profile["systems"] == ["bcrs", "cllm", "cllm-bcrs"]
    assert profile["03_train_crs"] == {"cutoff_len": 99, "item_dim": 9} and "02_prepare_backbones" not in profile
    assert profile["01_build_data"] == {"corpus": "generated"}


def test_a_group_of_settings_is_merged_too(tmp_path):
    write(tmp_path, "base", profile="base", systems=["bcrs", "allm", "allm-bcrs"], **DATA, **{"06_typical_systems": {"bert": {"cutoff_len": 50}}})
    top = write(tmp_path, "top", extends="base", profile="top", **{"06_typical_systems": {"bert": {"learning_rate": 0.5}}})
    bert = load_profile(top)["06_typical_systems"]["bert"]
    assert (bert["cutoff_len"], bert["learning_rate"]) == (50, 0.5)


def test_a_profile_elsewhere_may_extend_a_shipped_one(tmp_path):
    profile = load_profile(write(tmp_path, "mine", extends="grid", profile="mine"))
    assert profile["systems"] == load_profile(ROOT / "params" / "grid.yaml")["systems"] and profile["cllm"]["template"] == "bare"


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({"a": {"profile": "a", "extends": "b"}, "b": {"profile": "b", "extends": "a"}}, r"a.yaml: extends: profiles extend each other in a circle"),
        ({"a": {"profile": "a", "extends": "a"}}, r"a.yaml: extends: profiles extend each other in a circle"),
        ({"a": {"profile": "a", "extends": "nothing"}}, r"nothing.yaml: no such profile; known: demo,"),
        ({"a": {"profile": "a", "extends": ["grid"]}}, r"a.yaml: extends: \['grid'\] is no str"),
        ({"a": {"extends": "grid"}}, r"a.yaml: profile is missing; a profile that extends another needs a name of its own"),
    ],
)
def test_profiles_that_cannot_be_put_together_are_refused(tmp_path, profiles, message):
    for name, profile in profiles.items():
        write(tmp_path, name, **profile)
    with pytest.raises(ParameterError, match=message):
        load_profile(tmp_path / "a.yaml")


def test_the_list_of_the_papers_systems_is_written_once():
    written = [path.stem for path in (ROOT / "params").glob("*.yaml") if len(yaml.safe_load(path.read_text("utf-8")).get("systems", [])) > 20]
    assert written == ["grid"]


# --- models of one's own


def own(tmp_path: Path, models: dict, systems=("bcrs", "qwen", "qwen-bcrs", "bcrs-qwen"), **more) -> Path:
    return write(tmp_path, "own", profile="own", systems=list(systems), models=models, **DATA, **more)


def test_a_model_by_profile_alone_has_rows_collaborations_and_parameters(tmp_path):
    path = own(tmp_path, {"qwen": QWEN, "glm_4": {"name": "GLM-4", "family": "llm"}, "t5": {"name": "UniMIND(T5)", "family": "crs"}})
    profile, _ = check(str(path), {})
    assert [SYSTEMS[key].name for key in ("qwen", "qwen-bcrs", "bcrs-qwen", "qwen-t5", "t5-glm_4")] == ["Qwen2.5-0.5B", "QWEN-BCRS", "BCRS-QWEN", "QWEN-T5", "T5-GLM_4"]
    assert SYSTEMS["bcrs-qwen"].base == "qwen" and SYSTEMS["bcrs-qwen"].group == "CRS assisting LLM"
    assert system_parameters(profile, "bcrs-qwen") == {"template": "plain", "lora_rank": 4}
    jobs = {job.log.rpartition("/")[2]: job for job in Plan(profile).jobs()}
    assert {"04_tune_llm_qwen.ipynb", "03_train_crs_qwen-bcrs.ipynb", "04_tune_llm_bcrs-qwen.ipynb", "02_prepare_backbones_llama.ipynb"} <= jobs.keys()
    told = jobs["04_tune_llm_bcrs-qwen.ipynb"].parameters
    assert told["lora_rank"] == 4 and told["models"]["qwen"] == {"name": "Qwen2.5-0.5B", "family": "llm", "backbone": "llama"}
    assert told["model_name_or_path"] == "runs/own/backbones/llama"
    assert look_of("qwen-bcrs") == look_of("bcrs") != look_of("bcrs-qwen") == look_of("qwen")


def test_a_notebook_registers_the_models_that_it_is_told_of():
    assert "qwen" not in SYSTEMS
    settings_of("07_tables", with_defaults("07_tables", {"models": {"qwen": {"name": "Qwen", "family": "llm"}}}))
    assert SYSTEMS["qwen-ccrs"].assistant == "qwen"


def test_a_profile_s_models_replace_those_that_a_committed_notebook_names():
    """00_overview is committed with Gemma. Neither is another model refused, nor does Gemma join it."""
    qwen = {"qwen": {"name": "Qwen", "family": "llm"}}
    assert list(with_defaults("00_overview", {})["models"]) == ["gemma"]
    assert with_defaults("00_overview", {"models": qwen})["models"] == qwen and with_defaults("00_overview", {"models": {}})["models"] == {}
    assert with_defaults("06_typical_systems", {"bert": {"num_train_epochs": 1.0}})["bert"]["learning_rate"] > 0  # a group is completed


def test_tables_show_a_model_of_one_s_own_beside_the_papers():
    register({"qwen": {"name": "Qwen", "family": "llm"}})
    samples = pd.DataFrame(
        [(f"d{n}:1:elicit", "test", "elicit", f"d{n}", "美妆行业", "功效") for n in range(4)], columns=["sample_id", "split", "task", "sid", "domain", "label"]
    )
    answers = [
        {"system": key, "seed": 1, "split": "test", "sample_id": name, "text": "功效", "ranking": [], "scores": [], "raw": "", "valid": True}
        for key in ("bcrs", "qwen", "bcrs-qwen")
        for name in samples["sample_id"]
    ]
    table = task_table("elicit", metrics_table(score(samples, pd.DataFrame(answers), "zh")))
    assert list(table.index) == [("", "Samples"), ("No collaboration", "UniMIND(BART)"), ("No collaboration", "Qwen"), ("CRS assisting LLM", "BCRS-QWEN")]


def test_a_model_s_checkpoint_may_be_given_from_outside(tmp_path):
    profile = load_profile(own(tmp_path, {"qwen": QWEN}), {"qwen_model": "some/where"})
    assert system_parameters(profile, "qwen-bcrs") == {} and system_parameters(profile, "bcrs-qwen")["model_name_or_path"] == "some/where"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"bcrs": {"name": "X", "family": "crs"}}, r"models: bcrs: there is a system bcrs already \(UniMIND\(BART\)\); take another key"),
        ({"allm-bcrs": {"name": "X", "family": "llm"}}, "models: 'allm-bcrs' is no key; write small letters, digits and _ only"),
        ({"Qwen": {"name": "X", "family": "llm"}}, "models: 'Qwen' is no key"),
        *(({key: {"name": "X", "family": "llm"}}, f"models: '{key}' is no key") for key in ("oracle", "last_viewed", "qwen_seed2", "qwen_fold1", "systems", "set_aside")),
        ({"glm": {"name": "ChatGLM", "family": "llm"}}, r"models: glm: tables have a row ChatGLM already \(cllm\); take another name"),
        ({"qwen": {"name": 2024, "family": "llm"}}, "models: qwen: give its name"),
        ({"qwen": {"family": "llm"}}, "models: qwen: give its name"),
        ({"qwen": {"name": "X", "family": "decoder"}}, "models: qwen: give its name"),
        ({"qwen": {"name": "X", "family": "llm", "backbone": "bart"}}, "models: qwen: backbone 'bart' is no small llm; known: llama, chatglm"),
        ({"qwen": {"name": "X", "family": "llm", "learning_rat": 1.0}}, "section qwen: no parameter 'learning_rat'; did you mean 'learning_rate'"),
        ({"qwen": "Qwen/Qwen3-8B"}, "models: .* is no dict"),
    ],
)
def test_an_entry_that_cannot_be_is_one_line(tmp_path, models, message):
    with pytest.raises(ParameterError, match=message):
        load_profile(own(tmp_path, models))


def test_a_model_without_checkpoint_or_stand_in_is_refused(tmp_path):
    path = own(tmp_path, {"qwen": {"name": "Qwen", "family": "llm"}})
    with pytest.raises(ParameterError, match=r"section qwen: model_name_or_path is missing; give it, or qwen_model="):
        check(str(path), {})


def test_a_further_model_changes_no_job_of_the_others(tmp_path):
    def jobs(models: dict, systems: list[str]) -> dict:
        return {job.log: job for job in Plan(load_profile(own(tmp_path, models, systems))).jobs()}

    few = jobs({"qwen": QWEN}, ["bcrs", "qwen", "qwen-bcrs", "bcrs-qwen"])
    more = jobs({"qwen": QWEN, "glm": {"name": "GLM", "family": "llm", "backbone": "llama"}}, ["bcrs", "qwen", "glm", "qwen-bcrs", "bcrs-qwen", "glm-bcrs"])
    assert all(more[log] == job for log, job in few.items() if job.rule in ("train_crs", "tune_llm", "collaborate"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"systems": ["bcrs", "allm", "allm", "allm-bcrs"]}, "systems: allm is there twice; name it once"),
        ({"profile": "a//b"}, "profile 'a//b': it is no name of a folder"),
        ({"profile": "a/set_aside"}, "profile 'a/set_aside': it is no name of a folder"),
    ],
)
def test_what_could_not_be_run_is_told_before_anything_runs(tmp_path, more, message):
    path = write(tmp_path, "x", **{"profile": "x", "systems": ["bcrs", "allm", "allm-bcrs"], **DATA, **more})
    with pytest.raises(ParameterError, match=message):
        check(str(path), {})


def test_seeds_of_data_and_backbones_are_no_part_of_a_job_s_name(tmp_path):
    seeds = {"01_build_data": {"corpus": "generated", "seed": 2}, "02_prepare_backbones": {"seed": 2}}
    profile, _ = check(str(write(tmp_path, "x", profile="x", systems=["bcrs", "allm", "allm-bcrs"], **seeds)), {})
    assert {job.name for job in Plan(profile).jobs() if job.rule in ("build_data", "prepare_backbone")} == {"01_build_data", "bart", "llama"}


def test_registering_twice_changes_nothing():
    register({"qwen": {"name": "Qwen", "family": "llm"}})
    before = dict(SYSTEMS)
    register({"qwen": {"name": "Qwen", "family": "llm"}})
    assert before == SYSTEMS and list(before) == list(SYSTEMS) and len(SYSTEMS) == 22 + 5
