"""The jobs of a profile, each with its parameters and files. The workflow executes them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmcrs_utils.corpus.sources import corpus_note
from llmcrs_utils.study.parameters import ParameterError, notebook_parameters, notebook_path, with_defaults
from llmcrs_utils.study.profile import TRAINED_BY, system_parameters
from llmcrs_utils.study.run import CORPUS, PROVENANCE, USUAL_SEED, Run, run_name, run_of, typical_run
from llmcrs_utils.systems.predictions import catalogue_file
from llmcrs_utils.systems.registry import FLOORS, ORACLE, RANKING_FLOORS, SYSTEMS, System
from llmcrs_utils.tasks.dataset import ITEMS, SAMPLES
from llmcrs_utils.tasks.folds import HELD_OUT

# Subfolders of the profile's folder for the runs of cross-fitting. All other runs use the profile's folder itself.
CROSS_FITTED, FOLDS = "cross_fitted/", "folds/"
TABLE_NUMBERS = (1, 2, 3, "3b", 4)


@dataclass(frozen=True)
class Job:
    """One execution of a notebook.

    Attributes:
        rule: the workflow's rule for such jobs.
        name: the run's name. ``kind`` and ``name`` together identify a job of a rule.
        notebook: name of the notebook.
        parameters: parameters for the notebook; it uses its defaults for all others.
        inputs: files that must exist. The job runs again if one of them changes.
        outputs: files that the job writes.
        log: path for the executed notebook.
        kind: subfolder of the profile's folder: ``CROSS_FITTED``, ``FOLDS`` or ``""``.
        recipe: recipe number of the model. The job runs again if it changes.
        given: size and time of each input that no job makes (data and checkpoints from outside). The job runs again if they
            change, also to an older time, which Snakemake itself would not see.
    """

    rule: str
    name: str
    notebook: str
    parameters: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    log: str
    kind: str = ""
    recipe: int = 0
    given: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All jobs of a checked profile (``study.profile.load_profile``)."""

    profile: dict[str, Any]

    @property
    def folder(self) -> str:
        return f"runs/{self.profile['profile']}"

    @property
    def figures(self) -> str:
        return self.profile.get("07_tables", {}).get("output_dir", f"{self.folder}/figures")

    @property
    def tables(self) -> list[str]:
        return [f"{self.figures}/table{number}.{kind}" for number in TABLE_NUMBERS for kind in ("md", "tex", "csv")]

    @property
    def folds(self) -> int:
        return self.profile.get("cross_fit_folds", 0)

    @cached_property
    def seeds(self) -> list[int | None]:
        """The seeds with which every CRS and LLM is trained. ``None`` is the seed of its section."""
        return self.profile.get("seeds", [None])

    def systems(self, *families: str) -> list[System]:
        return [SYSTEMS[key] for key in self.profile["systems"] if SYSTEMS[key].family in families]

    @property
    def collaborations(self) -> list[System]:
        return [SYSTEMS[key] for key in self.profile["systems"] if SYSTEMS[key].assistant]

    @property
    def synthetic(self) -> bool:
        return self.build.get("corpus", "generated") == "generated"

    @property
    def build(self) -> dict:
        return self.profile["01_build_data"]

    # --- names of files

    def seed_of(self, system: System, seed: int | None) -> int:
        own = system_parameters(self.profile, system.key)
        return own.get("seed", USUAL_SEED) if seed is None else seed

    def predictions(self, system: System, seed: int | None, kind: str = "", fold: int = 0) -> str:
        return f"{self.folder}/{kind}predictions/{run_name(system.key, self.seed_of(system, seed), fold)}.parquet"

    def help_file(self, system: System, seed: int | None, kind: str) -> str:
        return f"{self.folder}/{kind}assistance/{run_name(system.key, self.seed_of(system, seed))}.parquet"

    def answers(self, systems: list[System], seeds: list[int | None], kind: str = "") -> list[str]:
        """Predictions of these systems' runs, and the catalogue rankings of the systems that score every item."""
        files = [(self.predictions(system, seed, kind), system) for system in systems for seed in seeds]
        return [path for path, _ in files] + [str(catalogue_file(path)) for path, system in files if system.ranks_catalogue]

    @property
    def data(self) -> list[str]:
        return [f"{self.folder}/data/{name}" for name in (SAMPLES, ITEMS)]

    @property
    def bounds(self) -> list[str]:
        """The floors of the tables and, for a generated corpus, the ceiling."""
        names = [*FLOORS, *([ORACLE] if self.synthetic else [])]
        return [f"{self.folder}/predictions/{name}.parquet" for name in names] + [
            f"{self.folder}/predictions/catalogue/{name}.parquet" for name in RANKING_FLOORS
        ]

    @property
    def predicted(self) -> list[str]:
        """The files that the notebooks of saved predictions read."""
        trained = self.systems("crs", "llm")
        return [self.data[0], *self.bounds, *self.answers(self.systems("typical"), [USUAL_SEED]), *self.answers(trained, self.seeds)]

    def backbone(self, architecture: str) -> str:
        return f"{self.folder}/backbones/{architecture}"

    # --- jobs

    def jobs(self) -> list[Job]:
        """All jobs. Each comes after the jobs whose files it reads."""
        jobs = [self.build_data(), *self.backbones(), *self.trainings(), *self.typical(), *self.analyses()]
        written = Counter(path for job in jobs for path in [*job.outputs, job.log])
        double = next((path for path, count in written.items() if count > 1), None)
        if double:
            raise ParameterError(f"profile {self.profile['profile']}: two jobs would write {double}; give systems and folders other names")
        return jobs

    def job(self, rule: str, run: Run, given: dict[str, Any], outputs: list[str], log: str, kind: str = "") -> Job:
        """The job that makes ``run``. Of a small backbone's files only ``PROVENANCE`` is an input; it is there when the others are."""
        base, inputs = Path(run.parameters.get("model_name_or_path") or ""), run.inputs
        if base.is_relative_to(f"{self.folder}/backbones"):
            inputs = {what: path for what, path in inputs.items() if not Path(path).is_relative_to(base)} | {"base": f"{base}/{PROVENANCE}"}
        files = list(inputs.values())
        return Job(rule, run.name, run.notebook, given, files, outputs, log, kind, run.recipe, self.from_outside(files))

    def from_outside(self, files: list[str]) -> dict[str, list[int]]:
        """File -> its size in bytes and its time in nanoseconds, for the files that lie outside the profile's folder."""
        outside = [Path(file) for file in files if not Path(file).is_relative_to(self.folder)]
        return {str(file): [(state := file.stat()).st_size, state.st_mtime_ns] for file in outside if file.is_file()}

    def log(self, notebook: str, name: str = "", kind: str = "") -> str:
        return f"{self.folder}/{kind}notebooks/{notebook}{name and '_'}{name}.ipynb"

    def section(self, notebook: str, **given) -> dict[str, Any]:
        return {**self.profile.get(notebook, {}), **given}

    def build_data(self) -> Job:
        given = self.section("01_build_data", output_dir=f"{self.folder}/data", predictions_dir=f"{self.folder}/predictions")
        outputs = [*self.data, *(f"{self.folder}/data/{name}" for name in CORPUS), f"{self.folder}/data/traits.parquet", *self.bounds]
        return self.job("build_data", run_of("01_build_data", given), given, outputs, self.log("01_build_data"))

    def backbones(self) -> Iterator[Job]:
        """The small models that are used if the profile names no checkpoint."""
        trained = self.systems("crs", "llm")
        chosen = {system: system_parameters(self.profile, system.key) for system in trained}
        needed = {system.backbone for system, own in chosen.items() if not own.get("model_name_or_path") and not own.get("served")}
        own = self.profile.get(TRAINED_BY["typical"], {})
        needed |= {s.backbone for s in self.systems("typical") if s.backbone and not own.get(f"{s.backbone}_model_name_or_path")}
        for architecture in sorted(needed):
            folder = self.backbone(architecture)
            given = self.section("02_prepare_backbones", architecture=architecture, dataset_dir=f"{self.folder}/data", output_dir=folder)
            run = run_of("02_prepare_backbones", given)
            # Snakemake deletes the outputs of a killed job. Without the record of its run nothing of a finished model is lost.
            yield self.job("prepare_backbone", run, given, [f"{folder}/{PROVENANCE}"], self.log("02_prepare_backbones", architecture))

    def trainings(self) -> Iterator[Job]:
        """The training of every CRS and LLM with every seed, the help for collaborations, and the jobs of cross-fitting."""
        assistants = {system.assistant for system in self.collaborations}
        for system in self.systems("crs", "llm"):
            for seed in self.seeds:
                if system.assistant:
                    yield self.collaborate(system, seed, "")
                answered = ["train", "valid", "test"] if system.key in assistants else ["valid", "test"]
                yield self.training(system, seed, "", predict_splits=answered)
                if not self.folds:
                    continue
                if system.assistant:
                    yield self.collaborate(system, seed, CROSS_FITTED)
                    yield self.training(system, seed, CROSS_FITTED, predict_splits=answered)
                if system.key in assistants:
                    for fold in range(1, self.folds + 1):
                        part = {"folds": self.folds, "held_out_fold": fold, "predict_splits": [HELD_OUT]}
                        yield self.training(system, seed, FOLDS, fold, **part)

    def training(self, system: System, seed: int | None, kind: str, fold: int = 0, **given) -> Job:
        notebook = TRAINED_BY[system.family]
        own = system_parameters(self.profile, system.key)
        predictions = self.predictions(system, seed, kind, fold)
        own |= {"system": system.key, "dataset_dir": f"{self.folder}/data", "predictions_file": predictions, **given}
        own |= {"output_dir": f"{self.folder}/{kind}systems/{Path(predictions).stem}"}
        own |= {"assistance_file": self.help_file(system, seed, kind) if system.assistant else ""}
        own |= {} if seed is None else {"seed": seed}
        own |= self.models(notebook, system)
        if own.get("served"):
            own["model_name_or_path"] = ""
        elif not own.get("model_name_or_path"):
            own["model_name_or_path"] = self.backbone(system.backbone)
        run = run_of(notebook, own)
        outputs = [predictions, *([str(catalogue_file(predictions))] if system.ranks_catalogue else [])]
        rule = {"crs": "train_crs", "llm": "tune_llm"}[system.family]
        return self.job(rule, run, own, outputs, self.log(notebook, run.name, kind), kind)

    def collaborate(self, system: System, seed: int | None, kind: str) -> Job:
        assistant, file = SYSTEMS[system.assistant], self.help_file(system, seed, kind)
        folds = [self.predictions(assistant, seed, FOLDS, fold) for fold in range(1, self.folds + 1)] if kind == CROSS_FITTED else []
        given = self.section("05_collaborate", system=system.key, dataset_dir=f"{self.folder}/data", output_file=file, fold_files=folds)
        given |= {"predictions_file": self.predictions(assistant, seed), **({} if seed is None else {"seed": seed}), **self.models("05_collaborate", system)}
        run = run_of("05_collaborate", given)
        return self.job("collaborate", run, given, [file], self.log("05_collaborate", run.name, kind), kind)

    def typical(self) -> Iterator[Job]:
        """The one job of all typical systems."""
        systems = self.systems("typical")
        if not systems:
            return
        notebook = TRAINED_BY["typical"]
        given = self.section(
            notebook, systems=[system.key for system in systems], dataset_dir=f"{self.folder}/data",
            output_dir=f"{self.folder}/systems", predictions_dir=f"{self.folder}/predictions",
        )  # fmt: skip
        for backbone in {system.backbone for system in systems} - {None}:
            given[f"{backbone}_model_name_or_path"] = given.get(f"{backbone}_model_name_or_path") or self.backbone(backbone)
        jobs = [self.job("typical_systems", typical_run(given, system.key), given, [], "") for system in systems]
        inputs = list(dict.fromkeys([*(path for job in jobs for path in job.inputs), *self.bounds]))
        recipes = sum(job.recipe for job in jobs)
        outputs, log = self.answers(systems, [USUAL_SEED]), self.log(notebook)
        yield Job("typical_systems", "typical", notebook, given, inputs, outputs, log, recipe=recipes, given=self.from_outside(inputs))

    def models(self, notebook: str, system: System | None = None) -> dict[str, Any]:
        """The profile's ``models`` as parameters, if the notebook has this parameter: all, or those that ``system`` is made of.

        So a further model in a profile changes no job of the others.
        """
        takes = "models" in notebook_parameters(notebook_path(notebook))
        wanted = None if system is None else {system.key, system.base, system.assistant}
        models = {key: about for key, about in self.profile.get("models", {}).items() if wanted is None or key in wanted}
        return {"models": models} if takes and models else {}

    def analyses(self) -> Iterator[Job]:
        """The notebooks of saved predictions. The corpus note and the language of ``07_tables`` are used in all of them.

        Without a collaboration there are tables only.
        """
        built = with_defaults("01_build_data", self.build)
        names = ("corpus", "train_dialogues", "valid_dialogues", "test_dialogues", "data_dir", "language", "gold")
        shared = {"corpus_note": corpus_note(**{name: built[name] for name in names}), "language": built["language"]}
        own = {name: value for name, value in self.profile.get("07_tables", {}).items() if name in shared}
        if "corpus_note" in own:
            own["corpus_note"] = own["corpus_note"].replace("{corpus}", shared["corpus_note"])
        shared |= own
        folders = {"dataset_dir": f"{self.folder}/data", "predictions_dir": f"{self.folder}/predictions", "output_dir": self.figures}
        traits = f"{self.folder}/data/traits.parquet"
        crossed = {
            "cross_fitted_dir": f"{self.folder}/{CROSS_FITTED}predictions", "training_dir": f"{self.folder}/predictions",
            "folds_dir": f"{self.folder}/{FOLDS}predictions", "fallback_dir": "",
        }  # fmt: skip
        validated = {"held_out_dir": f"{self.folder}/predictions", "held_out_split": "valid"}
        wanted = [("tables", "07_tables", [], [*self.tables, f"{self.figures}/metrics.csv", f"{self.figures}/health.csv"], {})]
        if self.collaborations:
            wanted[0][3].append(f"{self.figures}/gains.png")
            files = self.answers(self.collaborations, self.seeds, CROSS_FITTED) if self.folds else []
            here = {"cross_fitted_dir": crossed["cross_fitted_dir"] if self.folds else "", "models": self.profile.get("models", {})}
            here["added_file"] = self.profile.get("00_overview", {}).get("added_file", "")
            wanted += [
                ("overview", "00_overview", [*files, *filter(None, [here["added_file"]])], [f"{self.figures}/pull.png", f"{self.figures}/pull.csv"], here),
                ("complementarity", "08_complementarity", [], [f"{self.figures}/help_and_harm.csv"], {}),
                ("categories", "09_categories", [traits], [f"{self.figures}/trait_effects.csv"], {}),
                ("controls", "14_controls", [], [f"{self.figures}/controls.csv"], validated),
            ]
            if self.folds:
                wanted.append(("cross_fitting", "12_cross_fitting", files, [f"{self.figures}/cross_fitting.csv"], crossed))
        for rule, notebook, further, outputs, more in wanted:
            given = self.profile.get(notebook, {}) | shared | more | folders | self.models(notebook)
            yield Job(rule, rule, notebook, given, [*self.predicted, *further, f"notebooks/{notebook}.ipynb"], outputs, self.log(notebook))
