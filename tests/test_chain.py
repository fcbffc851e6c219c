"""Every value of a profile reaches its notebook as it is: through profile.json, Snakemake, the job's JSON and papermill."""

import json
from pathlib import Path

import papermill.parameterize
import pytest
from papermill.iorw import load_notebook_node
from snakemake.common.configfile import load_configfile

from llmcrs_utils.files.atomic import write_json
from llmcrs_utils.study.parameters import ParameterError
from llmcrs_utils.study.plan import Job, Plan
from llmcrs_utils.study.profile import check_profile, load_profile, read_settings

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
PLACES = {"paper": {"data_dir": "data"}, "modern": {"data_dir": "data"}, "pscon": {"data_dir": "data"}, "pscon-cn": {"data_dir": "data"}}
# A folder, a checkpoint or a profile may be called so.
NAMES = ["20230210", "1e-5", "007", "null", "true", "corpus #2", "a & b (1)", "数据 集", "it's", 'say "x"', "a=b", "50%", "[x]", "x, y", "a: b", "-x"]


def injected(job: Job) -> dict:
    """What the job's notebook finds as parameters."""
    told = json.loads(json.dumps({"parameters": job.parameters}, ensure_ascii=False))["parameters"]
    notebook = load_notebook_node(str(ROOT / "notebooks" / f"{job.notebook}.ipynb"))
    notebook = papermill.parameterize.parameterize_notebook(notebook, told)
    (cell,) = (cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", []))
    found = {}
    exec(cell.source, found)  # what papermill wrote of our own values
    return {name: found[name] for name in told}


def same(one, other) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def through_snakemake(profile: dict, folder: Path) -> Plan:
    """The plan that the workflow makes of the file that the launcher writes."""
    write_json(folder / "profile.json", profile)
    return Plan(check_profile(dict(load_configfile(str(folder / "profile.json"))), "profile"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_value_of_a_shipped_profile_arrives_as_it_is(path, tmp_path):
    profile = load_profile(path, PLACES.get(path.stem))
    jobs = Plan(profile).jobs()
    assert through_snakemake(profile, tmp_path).jobs() == jobs
    for job in jobs:
        assert same(injected(job), job.parameters), job.log


def test_small_learning_rates_stay_numbers(tmp_path):
    """YAML 1.1 reads 5e-05 as text."""
    profile = load_profile(ROOT / "params" / "paper.yaml", PLACES["paper"])
    jobs = {job.log.rpartition("/")[2]: job for job in through_snakemake(profile, tmp_path).jobs()}
    assert injected(jobs["04_tune_llm_cllm.ipynb"])["learning_rate"] == 0.00005
    assert injected(jobs["03_train_crs_bcrs.ipynb"])["stage_two_learning_rate"] == 0.00001


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_be_called_anything(name, tmp_path):
    given = read_settings([f"data_dir={name}", f"allm_model={name}"])
    assert given == {"data_dir": name, "allm_model": name}
    profile = load_profile(ROOT / "params" / "your-data.yaml", given)
    jobs = {job.rule + job.name: job for job in through_snakemake(profile, tmp_path).jobs()}
    assert injected(jobs["build_data01_build_data"])["data_dir"] == name
    assert injected(jobs["tune_llmallm"])["model_name_or_path"] == name


@pytest.mark.parametrize("name", ["my study", "zz my study (2) 纸", "20230210", "a & b", "x#1", "known-answer/gap-0.5", "50%"])
def test_a_profile_may_be_called_so(name, tmp_path):
    profile = load_profile(ROOT / "params" / "demo.yaml", read_settings([f"profile={name}"]))
    assert {job.log.startswith(f"runs/{name}/notebooks/") for job in through_snakemake(profile, tmp_path).jobs()} == {True}


@pytest.mark.parametrize("name", ["", " ", "a ", "../x", "/x", "-x", ".x", "a/.b", "{run}", "a*", 'a"b', "a'b", "a|b", "a\\b", "$x", "a\nb", "a;b"])
def test_a_profile_is_not_called_so(name):
    with pytest.raises(ParameterError, match="profile .*: it (holds|is no name of a folder)"):
        load_profile(ROOT / "params" / "demo.yaml", {"profile": name})


def test_settings_are_read_in_one_place_as_yaml_save_names_and_places():
    given = read_settings(["seeds=[1,2]", "implicit_weight=0.5", "test_dialogues=40", "profile=2024", "bcrs_model=1.0", "corpus=generated"])
    assert given == {"seeds": [1, 2], "implicit_weight": 0.5, "test_dialogues": 40, "profile": "2024", "bcrs_model": "1.0", "corpus": "generated"}
    with pytest.raises(ParameterError, match="test_dialogues: no setting; write key=value"):
        read_settings(["test_dialogues"])
