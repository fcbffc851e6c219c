"""How much attention a helped LLM gives to its help, after training with in-sample and with cross-fitted help.

    python workflow/attention.py readers bcrs-gemma    # writes results/readers/attention.csv

It reads the run in runs/readers, which must have cross-fitted help, and asks the first 60 test samples of each task whose help is a text. A minute on 2 cores.
"""

import sys
from pathlib import Path

import pandas as pd
from publish import profile_of
from tqdm import tqdm

from llmcrs_utils.evaluation.wording import write_rounded
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.llm.attention import attention_to, tokens_with
from llmcrs_utils.llm.system import prepare
from llmcrs_utils.llm.tuning import load_tuned
from llmcrs_utils.study.parameters import with_defaults
from llmcrs_utils.study.plan import CROSS_FITTED, Plan
from llmcrs_utils.study.profile import check_profile
from llmcrs_utils.text.shielding import plain, special_of

SAMPLES = 60  # of each task


def measured(parameters: dict) -> pd.DataFrame:
    """``task, layer`` (from 1) ``, share`` of the attention that goes to the help ``, tokens``, the help's share of the prompt's tokens ``, n``."""
    material = prepare(parameters)
    samples, answered = material.splits["test"], read_parquet(parameters["predictions_file"]).set_index("sample_id")["text"]
    helps = material.helped.set_index("sample_id")
    usable = samples["sample_id"].map(helps["usable"]) & (samples["task"] != "recommend")
    model = load_tuned(parameters["output_dir"], parameters["quantization_bit"], material.base, parameters["dtype"])
    model.set_attn_implementation("eager")
    special, rows = special_of(material.tokenizer), []
    for task, part in samples[usable].groupby("task", sort=False):
        places = part.index[:SAMPLES]
        names = samples.loc[places, "sample_id"]
        texts = material.tokenizer([plain(answered[name], special) for name in names], add_special_tokens=False)["input_ids"]
        examples = [{"prompt": material.examples["test"][place]["prompt"], "answer": [*text, material.tokenizer.eos_token_id]} for place, text in zip(places, texts)]
        parts = [tokens_with(material.prompts.help[task] + plain(helps["text"][name], special), one["prompt"], material.tokenizer) for name, one in zip(names, examples)]
        shares = attention_to(model, tqdm(examples, desc=task), parts).mean(axis=0)
        length = sum(one.stop - one.start for one in parts) / sum(len(example["prompt"]) for example in examples)
        rows += [{"task": task, "layer": layer, "share": share, "tokens": length, "n": len(examples)} for layer, share in enumerate(shares, start=1)]
    return pd.DataFrame(rows)


def main(name: str, system: str) -> None:
    profile = profile_of(Path("runs") / name)
    jobs = Plan(check_profile(profile | {"cross_fit_folds": profile.get("cross_fit_folds") or 2}, name)).jobs()  # no run of a fold is read
    kinds = {"in-sample": "", "cross-fitted": CROSS_FITTED}
    told = {job.kind: with_defaults("04_tune_llm", job.parameters) for job in jobs if job.rule == "tune_llm" and job.name == system}
    missing = [kind for kind, folder in kinds.items() if folder not in told or not Path(told[folder]["predictions_file"]).exists()]
    if missing:
        sys.exit(f"runs/{name}: {system} has no run with {', '.join(missing)} help; call make run with cross_fit_folds first")
    table = pd.concat([measured(told[folder]).assign(help=kind) for kind, folder in kinds.items()])
    write_rounded(table[["help", "task", "layer", "share", "tokens", "n"]], Path("results") / name / "attention.csv")


if __name__ == "__main__":
    main(*sys.argv[1:])
