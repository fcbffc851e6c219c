"""How often the test of a gain is right: coverage of its 95% intervals, false findings, and power, by simulation of the study's design.

    python benchmarks/gains.py --studies 300    # ~8 min of one core; the table of docs/statistics.md

A study has two bases of each kind, two assistants, all crossed: four gains of CRSs and four of LLMs on each of four tasks, 32 in all. Runs
are shared as in a study: the two gains of one base have its runs in common, and the two of one assistant have that one's. Every run
answers the same dialogues. The sizes of the effects are like those of the committed study (F1 in elicitation): a gain on one sample
varies by 0.4, a mean of 80 dialogues from run to run by 0.02 to 0.05.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.statistics import holm, mean_intervals
from llmcrs_utils.evaluation.tables import markdown_lines

BASES, ASSISTANTS, TASKS, DIRECTIONS = 2, 2, 4, 2
PLANTED = (0.05, 0.10)


@dataclass(frozen=True)
class Spread:
    """Standard deviations: from run to run of a base, an assistant's effect and a pair; of dialogues; of samples within both."""

    base: float
    assistant: float
    pair: float
    dialogue: float = 0.08
    sample: float = 0.4


SPREADS = {
    "as in the committed study": Spread(0.025, 0.01, 0.02),
    "only bases vary": Spread(0.035, 0.0, 0.0),
    "only assistants vary": Spread(0.0, 0.035, 0.0),
    "only pairs vary": Spread(0.0, 0.0, 0.035),
    "runs do not vary": Spread(0.0, 0.0, 0.0),
}


def four_gains(rng: np.random.Generator, spread: Spread, dialogues: int, seeds: int, gain: float = 0.0) -> tuple[list, list]:
    """The gains of two bases with two assistants: quantities for ``mean_intervals`` and the systems whose runs each depends on.

    A dialogue has one to three samples. Noise of samples belongs to base and pair in equal parts, so that gains of one base share it.
    """
    dialogue = np.repeat(np.arange(dialogues), rng.integers(1, 4, size=dialogues))
    size = len(dialogue)
    of_base = rng.normal(scale=spread.base, size=(BASES, seeds, 1)) + rng.normal(scale=spread.sample / 2**0.5, size=(BASES, seeds, size))
    of_assistant = rng.normal(scale=spread.assistant, size=(ASSISTANTS, seeds, 1))
    quantities, depends_on = [], []
    for base in range(BASES):
        for assistant in range(ASSISTANTS):
            of_pair = rng.normal(scale=spread.pair, size=(seeds, 1)) + rng.normal(scale=spread.sample / 2**0.5, size=(seeds, size))
            of_dialogue = rng.normal(scale=spread.dialogue, size=dialogues)[dialogue]
            values = gain + of_dialogue + of_pair + of_assistant[assistant] - of_base[base]
            quantities.append((values.ravel(), np.tile(dialogue, seeds), np.repeat(np.arange(seeds), size)))
            depends_on.append({f"base {base}", f"assistant {assistant}", f"pair {base} {assistant}"})
    return quantities, depends_on


def study(rng: np.random.Generator, spread: Spread, dialogues: int, seeds: int, planted: float = 0.0, shared: bool = True) -> pd.DataFrame:
    """One study's 32 gains: ``gain`` (the true one), ``low, high, p (Holm)``. The gains of the first four are ``planted``, all others 0.

    Args:
        shared: whether the test knows which gains share runs. If not, it takes all for independent, as a check of what that costs.
    """
    rows = []
    for place in range(TASKS * DIRECTIONS):
        truth = planted if place == 0 else 0.0
        quantities, depends_on = four_gains(rng, spread, dialogues, seeds, truth)
        independent = [{str(number)} for number in range(len(quantities))]
        found = mean_intervals(quantities, None, depends_on if shared else independent)
        rows += [{"gain": truth, "low": low, "high": high, "p": p} for _, low, high, p in found]
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def rates(studies: list[pd.DataFrame]) -> dict[str, float]:
    """``coverage`` of all intervals, ``false`` (share of studies with a false finding) and ``found`` (share of planted gains; NaN without any)."""
    every = pd.concat(studies)
    planted = every[every["gain"] != 0]
    return {
        "coverage": every["gain"].between(every["low"], every["high"]).mean(),
        "false": float(np.mean([((part["p (Holm)"] < 0.05) & (part["gain"] == 0)).any() for part in studies])),
        "found": (planted["p (Holm)"] < 0.05).mean() if len(planted) else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies per row; of those with a planted gain a quarter")
    count = parser.parse_args().studies
    header = ["test dialogues", "seeds", "coverage of 95% intervals", "studies with a false finding", *(f"power for {gain:.2f}" for gain in PLANTED)]
    rows = []
    for name, spread in SPREADS.items():
        for dialogues, seeds in ((80, 3), (80, 5), (300, 3), (300, 5)):
            rng = np.random.default_rng(1)
            null = rates([study(rng, spread, dialogues, seeds) for _ in range(count)])
            power = [rates([study(rng, spread, dialogues, seeds, gain) for _ in range(count // 4)])["found"] for gain in PLANTED]
            rows.append([name, dialogues, seeds, f"{null['coverage']:.3f}", f"{null['false']:.3f}", *(f"{value:.2f}" for value in power)])
            print(rows[-1], flush=True)
    print("\n".join(markdown_lines("runs", header, rows)))


if __name__ == "__main__":
    main()
