"""A wrong parameter, file or checkpoint is one clear line before anything is trained."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import yaml
from conftest import corpus_of, dialogue_of, said
from papermill import inspect_notebook

from llmcrs_utils.checkpoints.layers import ADAPTABLE, layers_of
from llmcrs_utils.corpus.schema import LINK_ONLY, CorpusError, write_corpus
from llmcrs_utils.study.parameters import ParameterError, notebook_parameters, settings_of
from llmcrs_utils.study.plan import Plan
from llmcrs_utils.study.preflight import check, check_data, check_spoken, main
from llmcrs_utils.study.profile import PROFILE_KEYS, check_profile, load_profile, setting_value, settings, system_parameters
from llmcrs_utils.systems.registry import SYSTEMS

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINIMAL = {"profile": "mine", "systems": ["bcrs", "allm", "allm-bcrs"], "01_build_data": {"corpus": "generated"}, "02_prepare_backbones": {}}
NOWHERE = "models/some/deep/folder"


@pytest.fixture(autouse=True)
def inside_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def changed(section=None, **values):
    profile = json.loads(json.dumps(MINIMAL))
    (profile.setdefault(section, {}) if section else profile).update(values)
    return profile


def write_profile(folder, profile):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(profile, allow_unicode=True), "utf-8")
    return path


def corpus_folder(folder):
    utterances = (said("用户需求", "面霜", [("品类", "面霜")]), said("系统推荐", "看", [], ["i01"]))
    splits = [dialogue_of(*utterances, sid=sid) for sid in ("s1", "s2", "s3")]
    write_corpus(corpus_of(splits[0], valid=[splits[1]], test=[splits[2]]), folder)
    return folder


def with_data(folder, corpus="u_need", model=NOWHERE):
    """A profile on one's own data and checkpoints, as ``paper`` is."""
    profile = changed("01_build_data", corpus=corpus, data_dir=str(folder))
    del profile["02_prepare_backbones"]
    return {**profile, "03_train_crs": {"model_name_or_path": model}, "04_tune_llm": {"model_name_or_path": model}}


# --- what ships


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_that_ships_is_in_order(path):
    profile = load_profile(path)
    assert profile["profile"] == path.stem and set(profile["systems"]) <= set(SYSTEMS)
    assert len([key for key in profile if key not in PROFILE_KEYS]) >= 2


def test_four_profiles_ship():
    assert {"smoke", "demo", "pscon", "paper"} <= {path.stem for path in PROFILES}


def test_demo_profile_says_what_the_notebooks_default_to():
    profile = load_profile(ROOT / "params" / "demo.yaml")
    said_twice = [(key, name) for key in profile if key not in PROFILE_KEYS for name in profile[key]]
    assert said_twice
    for section, name in said_twice:
        default = notebook_parameters(ROOT / "notebooks" / f"{section}.ipynb")[name][1]
        assert profile[section][name] == default, f"{section}: {name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_s_defaults_are_of_the_types_it_declares(path):
    defaults = {name: default for name, (_, default) in notebook_parameters(path).items()}
    assert defaults and settings_of(path.stem, {**defaults, "unrelated": object()}) == defaults


def test_shipped_demo_passes_the_check(capsys):
    assert main(["params/demo.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "in order; systems: bcrs, allm, allm-bcrs, bcrs-allm" in shown.out and "note" not in shown.out


def test_a_run_that_compiles_needs_a_compiler(tmp_path, capsys, monkeypatch):
    path = tmp_path / "own.yaml"
    path.write_text("profile: own\nextends: demo\n04_tune_llm: {compile_layers: true}\n", encoding="utf-8")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main([str(path)]) == 2
    assert "compile_layers: there is no C++ compiler (no-such-compiler); install one, or give compile_layers: false" in capsys.readouterr().err


def test_a_pretrained_llm_with_the_small_models_settings_is_noted(tmp_path, capsys):
    path = tmp_path / "own.yaml"
    for more, noted in (("", True), ("04_tune_llm: {learning_rate: 0.0005}", False), ("04_tune_llm: {num_train_epochs: 0.0}", False)):
        path.write_text(f"profile: own\nextends: demo\nallm: {{model_name_or_path: {tiny.backbone('llama')}}}\n{more}\n", encoding="utf-8")
        assert main([str(path)]) == 0
        assert (f"note: {path}: section allm or 04_tune_llm: no learning_rate; the default is for the small models. params/readers.yaml has" in capsys.readouterr().out) == noted


# --- one clear line for each kind of fault


def refusal(capsys, *arguments):
    """The one line on stderr."""
    assert main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
    return shown.err.strip()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (changed("04_tune_llm", lora_rnak=8), "section 04_tune_llm: no parameter 'lora_rnak'; did you mean 'lora_rank'?"),
        (changed("03_train_crs", zzz=8), "section 03_train_crs: no parameter 'zzz'; known: assistance_file, cutoff_len"),
        (changed("03_train_crs", cutoff_len="512"), "section 03_train_crs, parameter cutoff_len: '512' is no int"),
        (changed("03_train_crs", cutoff_len=512.5), "section 03_train_crs, parameter cutoff_len: 512.5 is no int"),
        (changed("03_train_crs", num_beams=True), "section 03_train_crs, parameter num_beams: True is no int"),
        (changed("04_tune_llm", gradient_checkpointing="no"), "parameter gradient_checkpointing: 'no' is no bool"),
        (changed("04_tune_llm", lora_target="q_proj"), "parameter lora_target: 'q_proj' is no list[str]"),
        (changed("04_tune_llm", learning_rate="1e-3"), "'1e-3' is no float (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)"),
        (changed("3_train_crs", cutoff_len=512), "no section '3_train_crs'; did you mean '03_train_crs'?"),
        (changed(**{"03_train_crs": "cutoff_len"}), "section 03_train_crs: holds no parameters; write name: value lines"),
        (changed(sytems=["bcrs"]), "no section 'sytems'; did you mean 'systems'?"),
        (changed(systems="bcrs"), "systems: 'bcrs' is no list[str]"),
        (changed(systems=["bcr"]), "systems: no system 'bcr'; did you mean 'bcrs'? Known: bert, bert_crf, bert_bilstm_crf, dia_multiclass"),
        (
            changed("06_typical_systems", bert={"num_train_epoch": 1.0}),
            "section 06_typical_systems, parameter bert: no setting 'num_train_epoch'; did you mean 'num_train_epochs'?",
        ),
        (changed("06_typical_systems", kbrd={"learning_rate": "1e-3"}), "section 06_typical_systems, parameter kbrd: {'learning_rate': '1e-3'} is no"),
        (changed("bert", learning_rate=0.1), "section bert: typical systems share one notebook; write bert under 06_typical_systems"),
        (changed(systems=["bcrs", "allm-bcrs"]), "systems: allm-bcrs needs allm; add it to the list"),
        (changed(systems=["bcrs", "bcrs-allm"]), "systems: bcrs-allm needs allm; add it to the list"),
        ({k: v for k, v in MINIMAL.items() if k != "01_build_data"}, "01_build_data is missing; see params/demo.yaml"),
        (changed("01_build_data", corpus="u_need"), "01_build_data: corpus u_need needs data_dir, the folder that holds it"),
        (changed("01_build_data", corpus="pscon"), "01_build_data: corpus pscon needs data_dir, the folder that holds it"),
        (changed("01_build_data", corpus="uneed", data_dir="x"), "corpus 'uneed' is unknown; known: generated, u_need, pscon"),
        (changed("01_build_data", corpus="uneed"), "corpus 'uneed' is unknown; known: generated, u_need, pscon"),
        (changed("01_build_data", gold="loved"), "section 01_build_data: gold 'loved' is unknown; known: liked, all"),
        (changed("01_build_data", corpus="pscon", data_dir="x", split_shares=[1.0]), "shares (1.0,) are not three shares of 1"),
        (changed("allm", lora_rnak=8), "section allm: no parameter 'lora_rnak'; did you mean 'lora_rank'?"),
        (changed("bcrs-allm", num_beams=3), "section bcrs-allm: no parameter 'num_beams'"),
        (changed("allm", template="vicuna"), "section allm or 04_tune_llm: template 'vicuna' is unknown; known: plain, alpaca, bare, chat"),
        (changed("04_tune_llm", quantization_bit=5), "section allm or 04_tune_llm: quantization_bit 5 is unknown; known: 0, 4, 8"),
        (changed("allm", seed=2), "seed differs between sections (03_train_crs: 1, 04_tune_llm: 1, 05_collaborate: 1, allm: 2)"),
        (changed(systems=["bcrs", "mllm", "bcrs-mllm"], models={"mllm": {"name": "M", "family": "llm"}}), "section mllm: model_name_or_path is missing; give it, or mllm_model=..."),
        (changed(accelerate="no/such.yaml"), "accelerate: no/such.yaml: no such file; see docs/clusters.md"),
        (
            {**changed("allm", quantization_bit=4), "accelerate": "workflow/accelerate/fsdp.yaml"},
            "section allm: quantization_bit does not go with FSDP",
        ),
        (
            {**changed("allm", ranking="likelihood"), "accelerate": "workflow/accelerate/fsdp.yaml"},
            "section allm: only ranking letter, without curve_samples, goes with FSDP",
        ),
        (changed("allm", ranking="candidates", num_train_epochs=0.0), "num_train_epochs 0: scores of candidates are learned; give more"),
        (changed("allm", ranking="likelihood", candidate_orders=2), "candidate_orders 2: a ranking by likelihood does not depend on the order; give 1"),
        (changed("01_build_data", language="de"), "section 01_build_data: language 'de'"),
    ],
)
def test_wrong_profile_is_one_line_with_file_place_and_remedy(tmp_path, capsys, profile, message):
    path = write_profile(tmp_path, profile)
    line = refusal(capsys, path)
    assert message in line and str(path) in line


@pytest.mark.parametrize("text", ["systems: [bcrs\nprofile: x", "", "just text", "- a\n- b"])
def test_file_that_is_no_profile_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    assert str(path) in refusal(capsys, path)


def test_profile_that_is_not_there_names_those_that_are(capsys):
    assert "params/dmo.yaml: no such profile; known: demo, fallback, gpu-rehearsal, grid" in refusal(capsys, "params/dmo.yaml")


def test_setting_from_outside_reaches_its_section_and_a_wrong_one_is_named(tmp_path, capsys):
    path = write_profile(tmp_path, MINIMAL)
    profile = load_profile(path, {"data_dir": "my/data", "bcrs_model": "a/b", "cllm_model": "c/d"})
    assert profile["01_build_data"] == {"corpus": "generated", "data_dir": "my/data"}
    assert (profile["bcrs"], profile["cllm"]) == ({"model_name_or_path": "a/b"}, {"model_name_or_path": "c/d"})
    assert "no setting 'datadir'; did you mean 'data_dir'?" in refusal(capsys, path, "datadir=x")


def test_any_parameter_of_the_data_may_be_set_from_outside(tmp_path, capsys):
    path = write_profile(tmp_path, MINIMAL)
    assert settings()["implicit_weight"] == ("01_build_data", "implicit_weight") and settings()["allm_model"] == ("allm", "model_name_or_path")
    given = {"implicit_weight": 0.0, "profile": "known-answer/implicit_weight-0.0", "seeds": [1, 2], "cross_fit_folds": 2}
    profile = load_profile(path, {key: setting_value(str(value), key) for key, value in given.items()})
    assert profile["01_build_data"] == {"corpus": "generated", "implicit_weight": 0.0}
    assert (profile["profile"], profile["seeds"], profile["cross_fit_folds"]) == ("known-answer/implicit_weight-0.0", [1, 2], 2)
    assert main([str(path), "implicit_weight=0.0", "seeds=[1,2]"]) == 0
    capsys.readouterr()
    assert "no setting 'implicit_wieght'; did you mean 'implicit_weight'?" in refusal(capsys, path, "implicit_wieght=0.0")
    assert "section 01_build_data: implicit_weight is 2; give a number from 0 to 1" in refusal(capsys, path, "implicit_weight=2")
    assert "parameter implicit_weight: 'none' is no float" in refusal(capsys, path, "implicit_weight=none")


@pytest.mark.parametrize(("text", "key", "value"), [("0.0", "implicit_weight", 0.0), ("3", "test_dialogues", 3), ("[1, 2]", "seeds", [1, 2])])
def test_a_setting_is_read_as_yaml(text, key, value):
    assert setting_value(text, key) == value and type(setting_value(text, key)) is type(value)


@pytest.mark.parametrize("key", ["data_dir", "allm_model", "profile"])
def test_paths_and_names_stay_text(key):
    assert [setting_value(text, key) for text in ("12", "1e3", "a: b", "no")] == ["12", "1e3", "a: b", "no"]


@pytest.mark.parametrize("text", ["seeds=[1,2", "implicit_weight={"])
def test_a_setting_that_cannot_be_read_is_one_line(tmp_path, capsys, text):
    assert text.partition("=")[0] in refusal(capsys, write_profile(tmp_path, MINIMAL), text)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"seeds": []}, "seeds []: give at least one number, each once, none below 0"),
        ({"seeds": [1, 2, 1]}, "seeds [1, 2, 1]: give at least one number, each once, none below 0"),
        ({"seeds": [1, -2]}, "seeds [1, -2]: give at least one number, each once, none below 0"),
        ({"seeds": ["1"]}, "seeds: ['1'] is no list[int]"),
        ({"seeds": 3}, "seeds: 3 is no list[int]"),
        ({"seeds": [1, 2], "03_train_crs": {"seed": 1}}, "section 03_train_crs: the profile's seeds [1, 2] say every seed; leave seed out here"),
        ({"seeds": [1], "05_collaborate": {"seed": 1}}, "section 05_collaborate: the profile's seeds [1] say every seed"),
        ({"seeds": [1, 2], "allm": {"seed": 1}}, "section allm: the profile's seeds [1, 2] say every seed; leave seed out here"),
        ({"cross_fit_folds": 1}, "cross_fit_folds 1: give 2 or more, or 0 for no cross-fitting"),
        ({"cross_fit_folds": -2}, "cross_fit_folds -2: give 2 or more, or 0 for no cross-fitting"),
        ({"cross_fit_folds": 2.0}, "cross_fit_folds: 2.0 is no int"),
    ],
)
def test_seeds_and_folds_that_cannot_be_run_are_refused(tmp_path, capsys, profile, message):
    path = write_profile(tmp_path, MINIMAL | profile)
    line = refusal(capsys, path)
    assert message in line and str(path) in line


@pytest.mark.parametrize("profile", [{}, {"seeds": [0, 7]}, {"cross_fit_folds": 0}, {"seeds": [3], "cross_fit_folds": 2}, {"03_train_crs": {"seed": 4}}])
def test_seeds_and_folds_that_can_be_run_pass(profile):
    check_profile(MINIMAL | profile, "here")


def test_a_collaboration_is_trained_like_its_base_save_where_it_says_otherwise(tmp_path):
    profile = {**MINIMAL, "04_tune_llm": {"lora_rank": 1, "lora_alpha": 1, "lora_dropout": 0.1}}
    profile |= {"allm": {"lora_alpha": 2, "learning_rate": 0.5}, "bcrs-allm": {"learning_rate": 0.25}, "bcrs": {"num_beams": 3}}
    profile = load_profile(write_profile(tmp_path, profile))
    alone = {"lora_rank": 1, "lora_alpha": 2, "lora_dropout": 0.1, "learning_rate": 0.5}
    assert system_parameters(profile, "allm") == alone
    assert system_parameters(profile, "bcrs-allm") == alone | {"learning_rate": 0.25}
    assert system_parameters(profile, "allm-bcrs") == {"num_beams": 3}


def test_settings_of_a_typical_system_that_are_not_named_stay_the_notebooks(tmp_path):
    profile = load_profile(write_profile(tmp_path, {**MINIMAL, "06_typical_systems": {"kbrd": {"num_train_epochs": 1.0}}}))
    default = notebook_parameters(ROOT / "notebooks/06_typical_systems.ipynb")["kbrd"][1]
    assert profile["06_typical_systems"] == {"kbrd": {**default, "num_train_epochs": 1.0}} and default["num_train_epochs"] > 1


def test_typical_systems_need_a_bert_and_a_causal_model_or_small_ones(tmp_path, capsys):
    profile = with_data(corpus_folder(tmp_path / "data"), model=tiny.backbone("llama"))
    profile |= {"bcrs": {"model_name_or_path": tiny.backbone("bart")}, "systems": [*MINIMAL["systems"], "bert", "gpt2", "sasrec"]}
    path = write_profile(tmp_path, profile)
    bert, gpt2 = f"bert_model={tiny.backbone('bert')}", f"gpt2_model={tiny.backbone('gpt2')}"
    capsys.readouterr()  # of what saving them shows
    assert "section 06_typical_systems: bert_model_name_or_path is missing; give it, or bert_model=..." in refusal(capsys, path)
    assert "gpt2_model_name_or_path is missing" in refusal(capsys, path, bert)
    assert main([str(path), bert, gpt2]) == 0
    capsys.readouterr()
    assert "type llama; the typical systems read with a BERT" in refusal(capsys, path, f"bert_model={tiny.backbone('llama')}", gpt2)
    assert "type bart; an LLM has to be" in refusal(capsys, path, bert, f"gpt2_model={tiny.backbone('bart')}")
    write_profile(tmp_path, {**profile, "02_prepare_backbones": {}})
    assert main([str(path)]) == 0


def test_checking_changes_nothing_in_the_profile_given():
    profile = json.loads(json.dumps(MINIMAL))
    check_profile(profile, "here", {"data_dir": "x"})
    assert profile == MINIMAL


@pytest.mark.parametrize("corpus", ["u_need", "pscon"])
def test_data_folder_that_does_not_exist_is_named(tmp_path, capsys, corpus):
    line = refusal(capsys, write_profile(tmp_path, with_data(tmp_path / "nothing", corpus)))
    assert str(tmp_path / "nothing") in line


def test_broken_dialogue_file_is_one_line_that_names_it(tmp_path, capsys):
    folder = corpus_folder(tmp_path / "data")
    text = (folder / "valid_dialogue.json").read_text("utf-8")
    (folder / "valid_dialogue.json").write_text(text[: len(text) // 2], "utf-8")
    line = refusal(capsys, write_profile(tmp_path, with_data(folder)))
    assert f"{folder / 'valid_dialogue.json'}: line 2, column 2: not valid JSON at line" in line and "fetch or export it again" in line


def test_broken_dialogue_is_one_line_that_names_dialogue_and_field(tmp_path, capsys):
    folder = corpus_folder(tmp_path / "data")
    text = (folder / "test_dialogue.json").read_text("utf-8")
    (folder / "test_dialogue.json").write_text(text.replace("系统推荐", "推荐", 1), "utf-8")
    line = refusal(capsys, write_profile(tmp_path, with_data(folder)))
    assert "test_dialogue.json: dialogue 0 (sid s3), field dialogue.1.act_tag" in line


def test_all_errors_of_the_data_come_in_one_summary(tmp_path, capsys):
    folder = corpus_folder(tmp_path / "data")
    text = (folder / "test_dialogue.json").read_text("utf-8")
    (folder / "test_dialogue.json").write_text(text.replace("系统推荐", "推荐", 1), "utf-8")
    (folder / "user_action.txt").unlink()
    assert main([str(write_profile(tmp_path, with_data(folder)))]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: 2 errors, 0 notes")
    assert "behaviour is missing" in shown.err and "field dialogue.1.act_tag" in shown.err


def test_bad_records_that_a_run_would_set_aside_are_shown_and_written_nowhere(tmp_path):
    folder = corpus_folder(tmp_path / "data")
    with (folder / "item_kg.txt").open("a", encoding="gb18030") as file:
        file.write("i02,shop,材质\n")
    files = sorted(folder.iterdir())
    build = {"corpus": "u_need", "data_dir": str(folder), "bad_records": "set_aside"}
    report = check_data(build, "here")
    assert report.counts()["encoding"] == 1 and "bad records: 1, set aside" in report.summary()
    assert sorted(folder.iterdir()) == files
    with pytest.raises(CorpusError, match="row 122: .* are not utf-8; name the file's encoding"):
        check_data({**build, "bad_records": "stop"}, "here")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_data_that_nothing_could_be_trained_or_scored_on_are_refused(tmp_path, split):
    folder = corpus_folder(tmp_path / "data")
    (folder / f"{split}_dialogue.json").write_text("[]", "utf-8")
    refusal = f"there are no dialogues in {split}; systems learn from train"
    with pytest.raises(ParameterError, match=refusal):
        check(str(write_profile(tmp_path, with_data(folder))), {})
    with pytest.raises(ParameterError, match=refusal):
        check(str(ROOT / "params/smoke.yaml"), {f"{split}_dialogues": 0})


def test_encoding_of_a_profile_reaches_every_file(tmp_path):
    folder = corpus_folder(tmp_path / "data")
    for path in folder.iterdir():
        path.write_bytes(path.read_text("utf-8").encode("gb18030"))
    build = {"corpus": "u_need", "data_dir": str(folder)}
    assert set(check_data({**build, "encoding": "gb18030"}, "here").counts()) == {"no_records"}  # there is no behaviour
    with pytest.raises(CorpusError, match="name the file's encoding"):
        check_data(build, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bad_records": "skip"}, "here: bad_records 'skip' is unknown; known: stop, set_aside"),
        ({"encoding": "gb1803"}, "here: encoding 'gb1803' is unknown; known are utf-8, gb18030"),
    ],
)
def test_wrong_way_to_read_is_named(tmp_path, changes, message):
    build = {"corpus": "u_need", "data_dir": str(corpus_folder(tmp_path / "data")), **changes}
    with pytest.raises(ParameterError, match=message):
        check_data(build, "here")


def test_notes_on_the_data_are_shown_where_all_is_in_order(tmp_path, capsys):
    folder = corpus_folder(tmp_path / "data")
    with (folder / "item_kg.txt").open("a", encoding="utf-8") as file:
        file.write("i01,shop,一级类目,1801\n")
    path = write_profile(tmp_path, {**changed("01_build_data", corpus="u_need", data_dir=str(folder))})
    assert main([str(path)]) == 0
    shown = capsys.readouterr()
    assert "note duplicate_row: 1" in shown.out and "in order" in shown.out and shown.err == ""


def test_checkpoint_that_is_missing_in_the_profile_names_both_ways_to_give_it(tmp_path, capsys):
    profile = with_data(corpus_folder(tmp_path / "data"))
    del profile["03_train_crs"]
    line = refusal(capsys, write_profile(tmp_path, profile))
    assert "section bcrs: model_name_or_path is missing; give it, or bcrs_model=..." in line


@pytest.mark.parametrize("model", [NOWHERE, "./models", "/no/such/folder", "~/no-such-folder-here", "nothing"])
def test_checkpoint_that_does_not_exist_is_one_line(tmp_path, capsys, model):
    line = refusal(capsys, write_profile(tmp_path, with_data(corpus_folder(tmp_path / "data"), model=model)))
    assert f"{model}: no such folder; give a checkpoint folder or a hub id (owner/name)" in line


def test_checkpoint_folder_without_a_model_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    path = write_profile(tmp_path, with_data(corpus_folder(tmp_path / "data"), model=str(tmp_path / "empty")))
    assert f"{tmp_path / 'empty'}: this folder holds no config.json" in refusal(capsys, path)


def test_every_checkpoint_is_checked_for_what_it_is_given_for(tmp_path, capsys):
    profile = with_data(corpus_folder(tmp_path / "data"), model=tiny.backbone("llama"))
    profile["bcrs"] = {"model_name_or_path": tiny.backbone("bart")}
    path = write_profile(tmp_path, profile)
    assert main([str(path)]) == 0
    cpt = tiny.backbone("cpt")
    capsys.readouterr()
    assert NOWHERE in refusal(capsys, path, f"allm_model={NOWHERE}")
    assert "this is an encoder-decoder of type cpt; an LLM has to be a causal model" in refusal(
        capsys, path, f"allm_model={cpt}"
    )
    profile["allm"] = {"adapter_name_or_path": [str(tmp_path / "no_adapter")]}
    assert f"{tmp_path / 'no_adapter'}: no such folder" in refusal(capsys, write_profile(tmp_path, profile))
    (tmp_path / "no_adapter").mkdir()
    assert "adapter_config.json is not there" in refusal(capsys, write_profile(tmp_path, profile))
    assert "this is a model of type llama; a CRS needs BART or CPT" in refusal(capsys, path, f"bcrs_model={tiny.backbone('llama')}")


def test_llm_that_cannot_be_tuned_as_asked_is_one_line(tmp_path, capsys):
    folder = shutil.copytree(tiny.backbone("chatglm"), tmp_path / "chatglm")
    data = with_data(corpus_folder(tmp_path / "data"), model=tiny.backbone("bart"))
    named = data | {"04_tune_llm": {"model_name_or_path": str(folder), "lora_target": ["query_key_value"], "modules_to_save": []}}
    known = "known: word_embeddings, query_key_value, dense, dense_h_to_4h, dense_4h_to_h, lm_head"

    def told(profile, **settings):
        return refusal(capsys, write_profile(tmp_path, profile | {"allm": settings}))

    assert main([str(write_profile(tmp_path, named))]) == 0
    capsys.readouterr()
    line = told(named, lora_target=["q_proj", "query_key_value", "v_proj"])
    assert f"section allm or 04_tune_llm: lora_target: q_proj, v_proj: no such layers in {folder}; {known}" in line
    assert "lora_target: attention: no such" in told(named, lora_target=["attention"])  # it is no linear layer
    assert f"modules_to_save: embed_tokens: no such layers in {folder}" in told(named, modules_to_save=["embed_tokens"])
    assert f"template chat: {folder} has no chat template; give template: plain" in told(named, template="chat")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    fitting = {"template": "chat", "lora_target": ["layers.0.attention.dense"], "modules_to_save": ["final_layernorm"]}
    assert main([str(write_profile(tmp_path, named | {"allm": fitting}))]) == 0
    capsys.readouterr()
    assert "lora_target: no_such: no such layers in the small llama" in told(MINIMAL, lora_target=["q_proj", "no_such"])
    assert "template chat: the small llama has no chat template" in told(MINIMAL, template="chat")
    glm = MINIMAL | {"systems": ["bcrs", "cllm", "cllm-bcrs"]}
    assert "section cllm or 04_tune_llm: lora_target: q_proj, k_proj" in refusal(capsys, write_profile(tmp_path, glm))


@pytest.mark.parametrize("model_type", ADAPTABLE)
def test_layers_known_without_loading_are_those_of_the_models(model_type):
    for named in (None, tiny.backbone(model_type)):
        layers = layers_of(named, model_type)
        assert {name.rpartition(".")[2] for name, can_adapt in layers.items() if can_adapt} == set(ADAPTABLE[model_type])


def test_small_models_are_checked_without_loading_torch(tmp_path):
    glm = {"lora_target": ["query_key_value"], "modules_to_save": []}
    path = write_profile(tmp_path, MINIMAL | {"systems": ["bcrs", "allm", "cllm", "allm-bcrs"], "cllm": glm})
    program = f"import sys; from llmcrs_utils.study import preflight as p; assert p.main([{str(path)!r}]) == 0 and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_missing_checkpoint_is_told_within_ten_seconds(tmp_path):
    path = write_profile(tmp_path, with_data(corpus_folder(tmp_path / "data")))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "llmcrs_utils.study.preflight", str(path)], capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    elapsed = time.monotonic() - started
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {NOWHERE}: no such folder; give a checkpoint folder or a hub id (owner/name)\n"
    assert elapsed < 10


def test_wrong_command_line_shows_how_to_call(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m llmcrs_utils.study.preflight PROFILE.yaml")
    assert main(["params/demo.yaml", "data_dir"]) == 2
    assert capsys.readouterr().err.startswith("error: data_dir: no setting; write key=value")


# --- a notebook's own cells


def test_mistyped_value_in_a_notebook_is_refused():
    defaults = {name: default for name, (_, default) in notebook_parameters(ROOT / "notebooks/03_train_crs.ipynb").items()}
    with pytest.raises(ParameterError, match=r"03_train_crs, parameter cutoff_len: '512' is no int"):
        settings_of("03_train_crs", {**defaults, "cutoff_len": "512"})
    whole_number = settings_of("03_train_crs", {**defaults, "stage_one_epochs": 2})
    assert whole_number["stage_one_epochs"] == 2  # an int where a float is asked is no mistake


def notebook_with(folder, *sources):
    empty = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "outputs": [], "execution_count": None}
    cells = [{**empty, "id": f"cell{number}", "source": [source]} for number, source in enumerate(sources)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    (folder / "x.ipynb").write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return folder / "x.ipynb"


def test_parameters_cell_has_to_declare_types(tmp_path):
    assert notebook_parameters(notebook_with(tmp_path, 'a: list[str] = ["x"]  # help')) == {"a": (list[str], ["x"])}
    with pytest.raises(ParameterError, match="parameters cell, line 2: write name: type = value"):
        notebook_parameters(notebook_with(tmp_path, "a: int = 1\nb = 2"))
    for cells in ([], ["a: int = 1", "b: int = 2"]):
        with pytest.raises(ParameterError, match=f"{len(cells)} cells are tagged 'parameters'; tag exactly one"):
            notebook_parameters(notebook_with(tmp_path, *cells))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_reads_the_same_parameters(path):
    found = {name: ast.literal_eval(about["default"]) for name, about in inspect_notebook(str(path)).items()}
    assert found == {name: default for name, (_, default) in notebook_parameters(path).items()}


def test_a_check_does_not_import_what_takes_seconds():
    program = "import sys, llmcrs_utils.study.preflight as p; assert not {'papermill', 'jsonschema', 'torch', 'snakemake'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_project_is_found_from_a_folder_inside_it_and_not_from_outside(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="start from inside the project"):
        load_profile("params/none.yaml")
    monkeypatch.chdir(ROOT / "notebooks")
    assert load_profile("../params/demo.yaml")["profile"] == "demo"


def test_systems_without_a_collaboration_get_tables_and_nothing_about_gains(tmp_path):
    profile, _ = check(write_profile(tmp_path, {**MINIMAL, "systems": ["bcrs", "allm"]}), {})
    analyses = [job for job in Plan(profile).jobs() if job.notebook[:2] >= "07"]
    assert [job.rule for job in analyses] == ["tables"] and not [path for path in analyses[0].outputs if "gains" in path]


@pytest.mark.parametrize("added", ["", "added.csv"])
def test_the_overview_of_a_run_knows_only_the_added_dialogues_that_its_profile_names(tmp_path, added):
    """Not those of the committed notebook."""
    profile, _ = check(write_profile(tmp_path, {**MINIMAL, "systems": ["bcrs", "allm", "bcrs-allm"]} | ({"00_overview": {"added_file": added}} if added else {})), {})
    (overview,) = [job for job in Plan(profile).jobs() if job.notebook == "00_overview"]
    assert overview.parameters["added_file"] == added and (added in overview.inputs) == bool(added)


@pytest.mark.parametrize(
    ("section", "name", "value"), [("03_train_crs", "seed", 2), ("04_tune_llm", "language", "en"), ("01_build_data", "max_history", 9)]
)
def test_a_value_that_notebooks_must_share_is_refused_where_it_differs(tmp_path, capsys, section, name, value):
    line = refusal(capsys, write_profile(tmp_path, changed(section, **{name: value})))
    assert f"{name} differs between sections" in line and f"{section}: {value}" in line


def given_items(folder, items):
    """The example corpus with product knowledge of its first ``items`` items only."""
    shutil.copytree(ROOT / "docs" / "your-data", folder)
    rows = (folder / "item_kg.txt").read_text("utf-8").splitlines(True)
    kept = list(dict.fromkeys(row.split(",")[0] for row in rows[1:]))[:items]
    (folder / "item_kg.txt").write_text("".join([rows[0], *(row for row in rows[1:] if row.split(",")[0] in kept)]), "utf-8")
    return folder


def test_too_few_items_for_a_recommendation_are_refused_before_a_run(tmp_path, capsys):
    for items, code in ((10, 2), (1000, 0)):
        path = write_profile(tmp_path, changed("01_build_data", corpus="u_need", data_dir=str(given_items(tmp_path / str(items), items))))
        assert main([str(path)]) == code
        assert ("items to choose among, a recommendation needs 20" in capsys.readouterr().err) == (code == 2)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_links_and_single_words_do_not_tell_the_language(language):
    said = {"zh": ["面霜有吗", "T恤", "OK"], "en": ["any cream?", "a 旗袍 please", "L size"]}[language]
    messages = [SimpleNamespace(send_content=text) for text in [*said, LINK_ONLY, LINK_ONLY, LINK_ONLY, ""]]
    corpus = SimpleNamespace(dialogues={"train": [SimpleNamespace(dialogue=messages)]})
    check_spoken(corpus, language, "mine.yaml")
    with pytest.raises(ParameterError, match=f"^mine.yaml: language is .*write language: {language} in each section"):
        check_spoken(corpus, "en" if language == "zh" else "zh", "mine.yaml")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_corpus_in_another_language_than_the_prompts_is_refused(tmp_path, language):
    folder = given_items(tmp_path / "corpus", 1000)
    for split in ("train", "valid", "test"):
        file = folder / f"{split}_dialogue.json"
        told = json.loads(file.read_text("utf-8"))
        for record in told:
            for utterance in record["dialogue"]:
                utterance["send_content"] = "I need shoes " * 40 if language == "zh" else utterance["send_content"]
        file.write_text(json.dumps(told, ensure_ascii=False), "utf-8")
    with pytest.raises(ParameterError, match=f"language is {language}, but .* write language: {'en' if language == 'zh' else 'zh'} in each section"):
        check_data({"corpus": "u_need", "data_dir": str(folder), "language": language}, "mine.yaml")
    other = "en" if language == "zh" else "zh"
    check_data({"corpus": "u_need", "data_dir": str(folder), "language": other}, "mine.yaml")
