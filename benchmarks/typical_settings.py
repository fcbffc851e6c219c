"""Which learning rate suits each typical system: its validation score at the notebook's rates times each of ``--factors``.

    make run PROFILE=grid
    .venv/bin/python benchmarks/typical_settings.py --run runs/grid

Reads the data and the backbones of that run. Test answers are not scored. The same command goes on after a kill.
"""

import argparse
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.run import TYPICAL_NOTEBOOK, conduct, typical_run, with_defaults
from llmcrs_utils.systems.registry import TYPICAL


def scaled(settings: dict, factor: float) -> dict:
    """A system's settings with all its learning rates (KBRD and TG-CRS have two) times ``factor``."""
    return {name: value * factor if name.endswith("learning_rate") else value for name, value in settings.items()}


def reached(run: Path, system: str, factor: float, output: Path) -> float:
    """The system's mean ``HEADLINE`` score on the validation samples of its task."""
    folder = output / f"times_{factor:g}"
    defaults = with_defaults(TYPICAL_NOTEBOOK, {})
    settings = defaults | {
        "dataset_dir": str(run / "data"), "output_dir": str(folder), "predictions_dir": str(folder), system: scaled(defaults[system], factor),
        "bert_model_name_or_path": str(run / "backbones/bert"), "gpt2_model_name_or_path": str(run / "backbones/gpt2"),
    }  # fmt: skip
    predictions = conduct(typical_run(settings, system)).predictions
    scores = score(read_parquet(run / "data/samples.parquet"), predictions, settings["language"], "valid")
    return scores[HEADLINE[scores["task"].iloc[0]]].mean()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, default=Path("runs/grid"), help="folder with data/ and backbones/ (default: %(default)s)")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.3, 1.0, 3.0], help="(default: 0.3 1 3)")
    parser.add_argument("--systems", nargs="+", choices=[system.key for system in TYPICAL], default=[system.key for system in TYPICAL])
    parser.add_argument("--output", type=Path, default=Path("runs/typical_settings"), help="folder of this measurement (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    for system in chosen.systems:
        found = pd.Series({f"times {factor:g}": reached(chosen.run, system, factor, chosen.output) for factor in chosen.factors})
        print(f"{system}: {', '.join(f'{name} {value:.3f}' for name, value in found.items())}; best: {found.idxmax()}", flush=True)


if __name__ == "__main__":
    main()
