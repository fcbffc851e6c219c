"""Does a run survive anything? Random processes of it are killed at random moments, and the same command is given again.

    python benchmarks/kills.py --kills 20

A copy of the project runs a profile once undisturbed. Then further copies run it while every so often a random process of
the tree (the workflow, a shell, a job, a kernel) gets SIGKILL; when a kill has ended the command, the same command follows, until a run has ended.
Runs follow each other until there were as many kills as asked for. What is compared: every table and every file of answers, byte
for byte; whether any finished job or finished model was made a second time. A job that ended in the last ``NOTED`` seconds before a
kill does not count as finished: a workflow that is killed meanwhile could not note its end, and executes it again.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
FOLDERS = ("llmcrs_utils", "notebooks", "params", "workflow")
NOTED = 2  # seconds after the end of a job in which the workflow notes it
COMPARED = ("figures/*.md", "figures/*.csv", "figures/*.tex", "predictions/*.parquet", "predictions/catalogue/*.parquet", "assistance/*.parquet")


def copy_of_project(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def start(folder: Path, profile: str) -> subprocess.Popen:
    output = open(folder / "output.txt", "a")  # noqa: SIM115  (the process writes to it)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "llmcrs_utils.study.launch", f"params/{profile}.yaml", "--cores", "2"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def role(process: psutil.Process) -> str:
    """What a process of the tree is there for."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    for text, name in (("study.launch", "workflow"), ("study.job", "job"), ("ipykernel_launcher", "kernel"), ("bash", "shell")):
        if text in words.split("{")[0] and not (text == "bash" and "-c" not in words):
            return name
    return "helper"


def kill_one(process: subprocess.Popen, chance: random.Random) -> str | None:
    """SIGKILL to a random process of the tree; its role, or ``None`` where the tree is gone."""
    try:
        root = psutil.Process(process.pid)
        tree = [root, *root.children(recursive=True)]
        chosen = chance.choice(tree)
        name = "shell" if role(chosen) == "workflow" and chosen.pid != root.pid else role(chosen)
        chosen.kill()
    except psutil.Error:
        return None
    return name


def finished_models(folder: Path, profile: str) -> dict[str, int]:
    """Finished models and when each was marked so."""
    paths = (folder / "runs" / profile).glob("*/*/finished.json")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def repeated_jobs(output: str, kills: list[float]) -> tuple[list[str], list[str]]:
    """Jobs that began again after they had ended well: those noted before a kill, and those whose end a kill let nobody note.

    Args:
        kills: seconds of the day of each kill.
    """
    ended, again, unnoted = {}, [], []
    for clock, what, name in re.findall(r"^(\d+:\d+:\d+)  (started|finished) +(\S+)", output, re.MULTILINE):
        hours, minutes, seconds = map(int, clock.split(":"))
        if what == "finished":
            ended[name] = 3600 * hours + 60 * minutes + seconds
        elif name in ended:
            noted = not any(0 <= kill - ended[name] <= NOTED for kill in kills)
            (again if noted else unnoted).append(name)
    return again, unnoted


def results(folder: Path, profile: str) -> dict[str, bytes]:
    run = folder / "runs" / profile
    return {str(path.relative_to(run)): path.read_bytes() for pattern in COMPARED for path in sorted(run.glob(pattern))}


def disturbed(folder: Path, profile: str, kills: int, interval: float, chance: random.Random) -> tuple[Counter, dict]:
    """Run the profile with at most ``kills`` kills, ``interval`` seconds apart on average; what was killed, and what was made twice.

    When a kill has ended the command, the same command follows.
    """
    killed, models, twice, moments = Counter(), {}, [], []
    for _ in range(kills + 3):  # a run that fails by itself must not go on for ever
        process = start(folder, profile)
        while sum(killed.values()) < kills and process.poll() is None:  # not every kill ends the command: some helpers are not missed
            deadline = time.monotonic() + chance.uniform(0, 2 * interval)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.05)
            name = kill_one(process, chance) if process.poll() is None else None
            if name:
                killed[name] += 1
                clock = datetime.now()
                moments.append((clock - clock.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds())
        code = process.wait()
        now = finished_models(folder, profile)
        twice += [path for path, moment in models.items() if now.get(path) != moment]
        models = now
        if code == 0:
            break
    else:
        sys.exit("the run fails without being killed:\n" + (folder / "output.txt").read_text("utf-8")[-2000:])
    jobs, unnoted = repeated_jobs((folder / "output.txt").read_text("utf-8"), moments)
    return killed, {"models": twice, "jobs": jobs, "jobs whose end nobody noted": unnoted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--profile", default="smoke", help="of params/ (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=40.0, help="mean seconds from a command to its kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and processes")
    parser.add_argument("--most", type=int, default=10, help="kills of one run (default: %(default)s)")
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        calm = copy_of_project(Path(place) / "undisturbed")
        started = time.monotonic()
        assert start(calm, chosen.profile).wait() == 0, (calm / "output.txt").read_text("utf-8")[-2000:]
        expected = results(calm, chosen.profile)
        print(f"undisturbed: {time.monotonic() - started:.0f} s, {len(expected)} files to compare", flush=True)
        total, number, equal, twice = Counter(), 0, 0, Counter()
        while sum(total.values()) < chosen.kills:
            number += 1
            started = time.monotonic()
            folder = copy_of_project(Path(place) / f"run{number}")
            killed, again = disturbed(folder, chosen.profile, min(chosen.most, chosen.kills - sum(total.values())), chosen.interval, chance)
            same = results(folder, chosen.profile) == expected
            equal += same * sum(killed.values())
            total += killed
            twice.update({what: len(names) for what, names in again.items()})
            told = ", ".join(f"{count} x {name}" for name, count in killed.most_common())
            print(f"run {number}: {sum(killed.values())} kills ({told}), {time.monotonic() - started:.0f} s; results {'equal' if same else 'DIFFER'}", flush=True)
            for what, names in again.items():
                print(f"    {what} made again: {', '.join(names) or 'none'}", flush=True)
            shutil.rmtree(folder)
    kinds = ", ".join(f"{count} x {name}" for name, count in total.most_common())
    print(f"{equal} of {sum(total.values())} kills ({kinds}) lie in runs that ended in the results of an undisturbed run;")
    print(f"finished jobs repeated: {twice['jobs']}, finished models made again: {twice['models']}; ", end="")
    print(f"jobs executed again that ended within {NOTED} s of a kill: {twice['jobs whose end nobody noted']}")
    sys.exit(0 if equal == sum(total.values()) and not twice["jobs"] and not twice["models"] else 1)


if __name__ == "__main__":
    main()
