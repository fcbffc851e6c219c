"""Trains what profiles plan on one machine within a time limit, several jobs side by side; for a GPU that is at hand for minutes.

    python workflow/gpu.py params/readers-gpu.yaml --seconds 540 --at-once 3 --out results-of-gpu

Jobs start in the order of the profile's systems, each as soon as its files are there. What is there already is not made again.
A job that the time left is not enough for is dropped; one that runs when the time is over is ended. Then the folder ``--out`` gets
one archive per profile: answers, executed notebooks, learning curves and adapters (in bfloat16).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import cache
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file

from llmcrs_utils.study.parameters import ParameterError, with_defaults
from llmcrs_utils.study.plan import Job, Plan
from llmcrs_utils.study.profile import load_profile, read_settings
from llmcrs_utils.tasks.dataset import SAMPLES, read_dataset
from llmcrs_utils.text.instructions import build_instructions
from llmcrs_utils.text.prompts import prompts_of

TRAINING = ("build_data", "prepare_backbone", "train_crs", "collaborate", "tune_llm")
# Seen on one H200 with six jobs side by side; three should do no worse.
START_SECONDS = 35  # of a job: imports, data, loading the model
LEARNED, ANSWERED = 35_000, 100_000  # characters of prompts per second, with a model of 0.5B parameters
CURVE_SECONDS = 15  # of each point of a learning curve
UPDATE_SECONDS = 0.3  # of a small CRS: LLMs beside it leave it little of the card, so CRSs are better trained before, on the CPU
PERIOD = 0.5


def planned(plan: Plan) -> list[Job]:
    """The jobs whose files are not all there, without those of saved predictions; those of the LLMs come in the profile's order."""
    return [job for job in plan.jobs() if job.rule in TRAINING and not all(Path(path).is_file() for path in job.outputs)]


def estimate(job: Job) -> float:
    """Seconds that a job takes: an LLM's by the characters of its prompts, a CRS's by its updates. Others only need to start."""
    folder = Path(job.parameters.get("dataset_dir", ""))
    if job.rule not in ("train_crs", "tune_llm") or not (folder / SAMPLES).is_file():
        return START_SECONDS
    parameters, dataset = with_defaults(job.notebook, job.parameters), read_dataset(folder)
    if job.rule == "train_crs":
        tasks = dataset.samples.loc[dataset.samples["split"] == "train", "task"]
        seen = parameters["stage_one_epochs"] * (tasks == "recommend").sum() + parameters["stage_two_epochs"] * len(tasks)
        return START_SECONDS + UPDATE_SECONDS * seen / parameters["per_device_train_batch_size"]
    characters = characters_of(folder, parameters["language"], parameters["ranking"])
    learned = characters.loc[dataset.samples["split"] == "train", "learned"]
    if parameters["max_samples"]:
        tasks = dataset.samples.loc[learned.index, "task"]
        learned = learned.groupby(tasks).head(parameters["max_samples"])
    answered = characters.loc[dataset.samples["split"].isin(parameters["predict_splits"]), "answered"]
    curve = CURVE_SECONDS * len(parameters["curve_samples"])
    return START_SECONDS + curve + parameters["num_train_epochs"] * learned.sum() / LEARNED + answered.sum() / ANSWERED


@cache
def characters_of(folder: Path, language: str, ranking: str) -> pd.DataFrame:
    """Characters that the LLM reads of each sample: ``learned`` the prompt, ``answered`` also, if it ranks by likelihood, the descriptions."""
    dataset = read_dataset(folder)
    rows = build_instructions(dataset.samples, dataset.facts, prompts_of(language), None, ranking)
    described = rows["described"].map(lambda texts: sum(map(len, texts))).where(rows["ranking"] == "likelihood", 0)
    prompt = rows["instruction"].str.len() + rows["tail"].str.len() + rows["lines"].map(lambda lines: sum(map(len, lines)))
    return pd.DataFrame({"learned": prompt, "answered": prompt + described})


def start(job: Job, cores: int) -> subprocess.Popen:
    """Execute the job's notebook in a process group of its own."""
    told = json.dumps({"parameters": job.parameters}, ensure_ascii=False)
    environment = os.environ | {"OMP_NUM_THREADS": str(cores), "RAYON_NUM_THREADS": str(cores), "STARTED_BY": str(os.getpid())}
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU a job: the Trainer would spread a batch over all it sees
    Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{job.log}.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "llmcrs_utils.study.job", job.notebook, job.log, told],
            stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip


def run(jobs: list[Job], seconds: float, at_once: int) -> dict[str, str]:
    """Run the jobs. Returns what became of each, by its log: ``123 s``, ``failed``, ``ended``, ``dropped``."""
    begun = time.monotonic()
    estimates = {job.log: estimate(job) for job in jobs}
    for job in jobs:
        print(f"plan: {estimates[job.log]:5.0f} s  {job.log}", flush=True)
    waiting, running, found, cores = list(jobs), {}, {}, max(1, (os.cpu_count() or 1) // at_once)

    def passed() -> float:
        return time.monotonic() - begun

    def say(job: Job, what: str) -> None:
        found[job.log] = what
        print(f"{passed():5.0f} s  {what:8} {job.log}", flush=True)

    while (waiting or running) and passed() < seconds:
        for log, (job, process, since) in list(running.items()):
            if process.poll() is not None:
                del running[log]
                say(job, f"{passed() - since:.0f} s" if process.returncode == 0 else "failed")
        made = {path for job in (*waiting, *(job for job, _, _ in running.values())) for path in job.outputs}  # still to come
        for job in list(waiting):
            lacking = [path for path in job.inputs if not Path(path).is_file() or path in made]
            if lacking and not (set(lacking) & made):
                waiting.remove(job)
                say(job, "dropped")
            elif not lacking and passed() + estimates[job.log] > seconds:
                waiting.remove(job)
                say(job, "dropped")
            elif not lacking and len(running) < at_once:
                waiting.remove(job)
                running[job.log] = job, start(job, cores), passed()
                print(f"{passed():5.0f} s  started  {job.log}", flush=True)
        time.sleep(PERIOD)
    for job, process, _ in running.values():
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        say(job, "ended")
    for job in waiting:
        say(job, "dropped")
    return found


def pack(plan: Plan, outcome: dict[str, str], out: Path) -> Path:
    """The archive of a profile: what it has of answers, notebooks and whole systems, and ``outcome.json``. Adapters are rounded to bfloat16."""
    folder, file = Path(plan.folder), out / f"{plan.profile['profile'].replace('/', '-')}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1, ensure_ascii=False), encoding="utf-8")
    chosen = [path for kind in ("predictions", "assistance", "notebooks") for path in (folder / kind).rglob("*") if path.is_file()]
    chosen += [path for system in (folder / "systems").glob("*") for path in system.glob("*") if path.is_file()]
    with tarfile.open(file, "w:gz", compresslevel=3) as archive, tempfile.TemporaryDirectory() as place:
        for path in [folder / "outcome.json", *sorted(chosen)]:
            source = path
            if path.name == "adapter_model.safetensors":
                source = Path(place) / path.name
                save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, source, metadata={"format": "pt"})
            archive.add(source, path)
    return file


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", nargs="+", help="YAML files of params/; the jobs of the first one start first")
    parser.add_argument("--set", default=[], action="append", metavar="KEY=VALUE", help="a setting for every profile, as for make")
    parser.add_argument("--seconds", type=float, default=540, help="the time limit (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=3, help="jobs side by side (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    chosen = parser.parse_args(arguments)
    try:
        plans = [Plan(load_profile(path, read_settings(chosen.set))) for path in chosen.profiles]
    except (ParameterError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    outcome = run([job for plan in plans for job in planned(plan)], chosen.seconds, chosen.at_once)
    for plan in plans:
        print(f"{pack(plan, {log: what for log, what in outcome.items() if log.startswith(plan.folder + '/')}, chosen.out)}")
    return int("failed" in outcome.values())


if __name__ == "__main__":
    sys.exit(main())
