"""Runs a profile: checks it, and then starts Snakemake, which executes the notebooks.

    python -m llmcrs_utils.study.launch params/demo.yaml [key=value ...] [--set "key=value ..."] [--cores 2] [-- options of Snakemake]

Only one process at a time can run a profile.
"""

import argparse
import shlex
import sys
from pathlib import Path

from llmcrs_utils.corpus.faults import CorpusError
from llmcrs_utils.files.atomic import write_json
from llmcrs_utils.files.locks import Busy, held
from llmcrs_utils.study.parameters import ParameterError
from llmcrs_utils.study.preflight import check, report_of
from llmcrs_utils.study.profile import read_settings


def main(arguments: list[str]) -> int:
    mark = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, further = arguments[:mark], arguments[mark + 1 :]
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.study.launch", description=__doc__.split("\n")[0])
    parser.add_argument("profile", help="a YAML file of params/")
    parser.add_argument("settings", nargs="*", help="key=value: a profile's key, or a parameter of the data")
    parser.add_argument("--set", default="", help="more settings in one text, split as a shell would")
    parser.add_argument("--cores", default="2", help="jobs at the same time (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        settings = read_settings([*shlex.split(chosen.set), *chosen.settings])
        profile, report = check(chosen.profile, settings)
        print(report_of(chosen.profile, profile, report), flush=True)
        folder = Path("runs") / profile["profile"]
        with held(folder / ".lock", f"{folder}: this profile is being run"):
            config = folder / "profile.json"
            write_json(config, profile)
            return snakemake(config, chosen.cores, further)
    except (ParameterError, CorpusError, FileNotFoundError, Busy, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def snakemake(config: Path, cores: str, further: list[str]) -> int:
    """Run the workflow in this process, which so keeps the lock, and return the exit code."""
    from snakemake.cli import main as run  # this import takes seconds and is not needed if the check fails

    options = ["--snakefile", "workflow/Snakefile", "--configfile", str(config), "--nolock", "--rerun-incomplete"]
    if not any(option.startswith(("--profile", "--workflow-profile")) for option in further):
        options += ["--cores", cores, "--resources", "gpu=1", "--quiet", "all"]
    try:
        run([*options, *further])
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else 1
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
