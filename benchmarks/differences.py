"""What the published code does otherwise, measured on a finished run for docs/differences.md; nothing is trained.

    .venv/bin/python benchmarks/differences.py runs/study-cpu
"""

import argparse
import math
import random
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import set_seed

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.corpus.description import every_dialogue, u_need_examples
from llmcrs_utils.corpus.pscon import read_pscon
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.crs.predict import predict
from llmcrs_utils.crs.predict import write_texts as generate_crs
from llmcrs_utils.crs.unimind import UniMind
from llmcrs_utils.evaluation.complementarity import JUDGED_BY
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.llm.batches import encode_instructions
from llmcrs_utils.llm.tuning import load_tuned
from llmcrs_utils.systems.registry import SYSTEMS, working_alone
from llmcrs_utils.tasks.answers import restore_width
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.tasks.samples import dialogue_samples, merge_turns
from llmcrs_utils.text.instructions import build_instructions, respond_tail
from llmcrs_utils.text.prompts import CHINESE, LETTERS
from llmcrs_utils.text.segments import crs_segments
from llmcrs_utils.text.shielding import special_of
from llmcrs_utils.training.collators import left_padded, right_padded
from llmcrs_utils.training.decoding import continue_greedily as generate_llm

LIMITS = (512, 256, 128)  # tokens; 512 is the published limit
ANSWERED_AGAIN = 60  # samples of a text task that are answered once more, as published
BATCH = 32  # the published batch of a CRS
# As the published code turns signs full-width, and how its Alpaca and its ChatGLM decode.
PUNCTUATION = str.maketrans("!?\",;:.'", "！？”，；：。‘")
DECODING = {
    "allm": {"temperature": 0.2, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.3},
    "cllm": {"temperature": 0.95, "top_k": 50, "top_p": 0.7},
}
TEMPLATE = {"allm": "plain", "cllm": "bare"}  # of the synthetic profiles
Predictions = dict[str, pd.DataFrame]


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(whole, 1):.1%})"


def lengths_of(tokenizer, texts: list[str], **options) -> np.ndarray:
    return np.array([len(ids) for ids in tokenizer(texts, **options)["input_ids"]])


def unusable(samples: pd.DataFrame, predictions: Predictions) -> Iterator[str]:
    """Answers of the assistants for which the published code would give the gold item, or a random one."""
    answers = {system.name: predictions[system.key] for system in (*working_alone("crs"), *working_alone("llm")) if system.key in predictions}
    found = [f"{name} {share(int((~frame['valid']).sum()), len(frame))}" for name, frame in answers.items()]
    yield "unusable answers of assistants, all splits and tasks: " + "; ".join(found)
    ranks = np.arange(1, 6)
    yield f"a random one of {len(LETTERS)} candidates: Acc {1 / 20}, Hit@5 {5 / 20}, MRR@5 {(1 / ranks).sum() / 20:.3f}"


def cut_right(dataset: Dataset, run: Path) -> Iterator[str]:
    """Inputs of a CRS longer than a limit, and what cutting them on the right takes."""
    tokenizer = load_tokenizer(str(run / "backbones" / "bart"), segments=True)
    special, tasks = special_of(tokenizer), dataset.samples["task"].to_numpy()
    texts = [crs_segments(row, CHINESE, None, special) for row in dataset.samples.to_dict("records")]
    tokens = lengths_of(tokenizer, ["".join(earlier) + kept for earlier, kept in texts])
    prompts = lengths_of(tokenizer, [CHINESE.crs[task] for task in tasks], add_special_tokens=False)
    yield f"input of a CRS: {tokens.mean():.0f} tokens on average, {tokens.max()} at most"
    for limit in LIMITS:
        over = tokens > limit
        named = ", ".join(f"{task} {(over & (tasks == task)).sum() / (tasks == task).sum():.1%}" for task in CHINESE.crs)
        prompt, spoken = over & (prompts > 0), tokens - limit > prompts
        yield (
            f"cut on the right at {limit}: {share(int(over.sum()), len(over))} are longer ({named}); {prompt.sum()} lose of "
            f"the closing prompt, {(over & spoken).sum()} of what stands before it"
        )


def cut_llm(dataset: Dataset, run: Path) -> Iterator[str]:
    """Training inputs longer than a limit: Alpaca's lose their end, the answer first; ChatGLM's of the prompt."""
    instructions = build_instructions(dataset.split("train"), dataset.facts, CHINESE)
    tasks = instructions["task"].to_numpy()
    found = {}
    for backbone, template in (("llama", "alpaca"), ("chatglm", "bare")):
        tokenizer = load_tokenizer(str(run / "backbones" / backbone))
        tokenizer.model_max_length = 10**6  # whole lengths are asked for here, not what the small model has positions for
        examples, _ = encode_instructions(instructions, tokenizer, CHINESE, template, 10**6, 128)
        found[backbone] = [np.array([len(example[part]) for example in examples]) for part in ("prompt", "answer")]
    for limit in LIMITS[:2]:
        for backbone, lost in (("llama", "the whole answer"), ("chatglm", "of the prompt")):
            prompt, answer = found[backbone]
            over = prompt >= limit if backbone == "llama" else prompt > limit
            named = ", ".join(f"{task} {over[tasks == task].mean():.1%}" for task in CHINESE.crs)
            partly = f", {((prompt < limit) & (prompt + answer > limit)).sum()} more part of it" if backbone == "llama" else ""
            told = f"{share(int(over.sum()), len(over))} lose {lost} ({named}){partly}"
            yield f"{backbone}'s training inputs cut at {limit}: {told}"


def padded_histories(samples: pd.DataFrame) -> Iterator[str]:
    """Behaviour sequences whose last slot would be padding, in shuffled batches of the published size."""
    lengths = samples[(samples["task"] == "recommend") & (samples["split"] == "train")]["history"].map(len).tolist()
    random.Random(1).shuffle(lengths)
    batches = [lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)]
    padded = sum(length < max(batch) for batch in batches for length in batch)
    yield (
        f"behaviour sequences whose last slot is padding, in batches of {BATCH}: {share(padded, len(lengths))}; "
        f"{lengths.count(0)} are empty"
    )


def behaviour_by_dialogue(samples: pd.DataFrame, behaviour: pd.DataFrame, starts: dict) -> Iterator[str]:
    """Recommendations before which the shopper acted since the dialogue began, or acted on the gold item afterwards."""
    asked = samples[samples["task"] == "recommend"][["sid", "user_id", "time", "label"]]
    pairs = asked.reset_index().merge(behaviour, left_on="user_id", right_on="user_id_encrypt")
    begun = pairs["actime"] >= pairs["sid"].map(starts)
    during = pairs[begun & (pairs["actime"] < pairs["time"])]["index"].nunique()
    after = pairs[(pairs["actime"] >= pairs["time"]) & (pairs["item_id_encrypt"] == pairs["label"])]["index"].nunique()
    yield f"recommendations before which the shopper acted during the dialogue: {share(during, len(asked))}"
    yield f"recommendations whose gold item the shopper acts on afterwards: {share(after, len(asked))}"


def overwritten(name: str, dialogues: list) -> Iterator[str]:
    """Recommendations whose candidates a later one of the same item would replace, and turns with several items."""
    recommended = [[turn.items for turn in merge_turns(dialogue) if turn.items] for dialogue in dialogues]
    count = sum(len(items) for turns in recommended for items in turns)
    later = sum(item in chain(*turns[i + 1 :]) for turns in recommended for i, items in enumerate(turns) for item in items)
    several = sum(len(items) for turns in recommended for items in turns if len(items) > 1)
    yield f"{name}: recommendations repeated later in the dialogue: {share(later, count)}"
    turns = sum(map(len, recommended))
    yield f"{name}: recommendations of one of several items of a turn: {share(several, count)}; {count / turns:.2f} items a turn"


def needs_line(segments: list[str], strip) -> str:
    """The shopper's needs as the published code reads them back from a dialogue's segments."""
    values: dict[str, list[str]] = {}
    for spoken, understood in pairwise(segments):
        if spoken.startswith("[user]") and understood.startswith("[understand]"):
            for pair in strip("需求：" + understood.removeprefix("[understand]")).split("；"):
                attribute, _, value = pair.partition("：")
                if pair:
                    values.setdefault(attribute, []).append(value.split("：")[0])
    return "；".join(f"{attribute}：{'、'.join(said)}" for attribute, said in values.items())


def stripped(name: str, samples: list[dict], facts: dict) -> Iterator[str]:
    """Needs lines of the LLM's respond inputs that ``lstrip`` shortens, and that differ from ours for whatever reason."""
    rows = [row for row in samples if row["task"] == "respond"]
    segments = [[segment for turn in row["context"] for segment in turn] + list(row["current"]) for row in rows]
    eaten = ours = 0
    for row, said in zip(rows, segments, strict=True):
        published = needs_line(said, lambda text: text.lstrip("需求："))
        eaten += published != needs_line(said, lambda text: text.removeprefix("需求："))
        ours += CHINESE.needs + published != respond_tail(row, facts, CHINESE).split("\n")[0]
    yield f'{name}: needs lines that lstrip("需求：") shortens: {share(eaten, len(rows))}; that differ from ours: {ours}'


def smoothed(text: str, label: str, plain: float) -> float:
    """Order 2 alone with NLTK's smoothing method 4, where ``plain`` is the score without."""
    if plain > 0 or len(text) < 2 or not set(text) & set(label):
        return plain
    penalty = 1 if len(text) > len(label) else math.exp(1 - len(label) / len(text))
    return penalty * math.log(len(text)) / (2 * 5) / (len(text) - 1)


def bleu(samples: pd.DataFrame, predictions: Predictions) -> Iterator[str]:
    """Test replies scored without and with smoothing: by the order alone, as published, and by the usual mean of orders."""
    labels = dict(zip(samples["sample_id"], samples["label"], strict=True))
    for key, frame in predictions.items():
        scores = score(samples, frame, "zh")
        scores = scores[scores["task"] == "respond"]
        if scores.empty:
            continue
        texts = dict(zip(frame["sample_id"], frame["text"], strict=True))
        bare = [("".join(texts[name].split()), "".join(labels[name].split())) for name in scores["sample_id"]]
        plain = scores["BLEU-2 (published)"]
        smooth = np.mean([smoothed(*pair, value) for pair, value in zip(bare, plain, strict=True)])
        yield (
            f"replies of {SYSTEMS[key].name}: {plain.mean():.4f} BLEU of order 2 alone, {smooth:.4f} smoothed "
            f"(+{smooth - plain.mean():.4f}); {(plain == 0).mean():.0%} have no common pair; "
            f"BLEU-2 {scores['BLEU-2'].mean():.4f}"
        )


def whole_members(samples: pd.DataFrame, predictions: Predictions) -> Iterator[str]:
    """F1 with the members of a set compared as written, against parsed; the largest difference over the systems."""
    tests = samples[(samples["split"] == "test") & samples["task"].isin(("understand", "elicit"))]
    labels = dict(zip(tests["sample_id"], tests["label"], strict=True))
    largest = {"understand": 0.0, "elicit": 0.0}
    for frame in predictions.values():
        scores = score(samples, frame, "zh")
        for task, value in largest.items():
            part = scores[scores["task"] == task]
            texts = dict(zip(frame["sample_id"], frame["text"].where(frame["valid"], "").fillna(""), strict=True))
            pairs = [(set(texts[name].split("；")), set(labels[name].split("；"))) for name in part["sample_id"]]
            written = [2 * len(said & gold) / (len(said) + len(gold)) for said, gold in pairs]
            largest[task] = max(value, abs(np.mean(written) - part["F1"].mean()) if written else 0.0)
    named = ", ".join(f"{task} {value:.4f}" for task, value in largest.items())
    yield f"F1 with members as written, largest difference over systems: {named}"


def in_sample(samples: pd.DataFrame, predictions: Predictions) -> Iterator[str]:
    """How much better the assistants are on the dialogues they were trained on than on new ones."""
    for system in (*working_alone("crs"), *working_alone("llm")):
        if "train" not in set(predictions.get(system.key, pd.DataFrame({"split": []}))["split"]):
            continue
        scores = [score(samples, predictions[system.key], "zh", split) for split in ("train", "test")]
        seen, new = (part.groupby("task").mean(numeric_only=True) for part in scores)
        told = ", ".join(f"{t} {m} {seen.loc[t, m]:.3f}/{new.loc[t, m]:.3f}" for t, m in JUDGED_BY.items())
        yield f"{system.name} on training/test dialogues: {told}"


def converted(predictions: Predictions) -> Iterator[str]:
    """Answers of the LLMs that the published conversion of signs changes further than ours."""
    for key in ("cllm", "allm"):
        texts = predictions[key]["text"].tolist()
        changed = sum(text.translate(PUNCTUATION) != restore_width("respond", text, CHINESE) for text in texts)
        yield f"{SYSTEMS[key].name}: answers that the published conversion of signs changes: {share(changed, len(texts))}"


def small_counts(dataset: Dataset, knowledge: pd.DataFrame) -> Iterator[str]:
    """Labels of several attributes, recommendations that open a dialogue, facts with a comma, unknown items."""
    samples = dataset.samples
    elicit, recommend = samples[samples["task"] == "elicit"], samples[samples["task"] == "recommend"]
    several = elicit["label"].str.contains("；").sum()
    yield f"elicit labels with several attributes, in chance order: {share(int(several), len(elicit))}"
    nothing = sum(not list(row.context) and not list(row.current) for row in recommend.itertuples())
    yield f"recommendations before which nothing was said: {share(nothing, len(recommend))}"
    commas = knowledge["value"].str.contains(",", regex=False).sum()
    yield f"facts with a comma: {share(int(commas), len(knowledge))}"
    listed = dict(zip(dataset.items["item_id"], dataset.items["listed"], strict=True))
    unknown = sum(not listed[item] for item in recommend["label"])
    yield f"recommended items that the product knowledge lacks: {share(unknown, len(recommend))}"


def token_types(dataset: Dataset, run: Path) -> Iterator[str]:
    """The replies of a trained UniMIND(CPT), with either token type."""
    folder = run / "systems" / "ccrs"
    if not (folder / "model.safetensors").is_file():
        yield f"token types of CPT: not measured, {folder} holds no model"
        return
    model, tokenizer = UniMind.from_pretrained(str(folder)).eval(), load_tokenizer(str(folder))
    tests = dataset.split("test")
    tests = tests[tests["task"] == "respond"].head(ANSWERED_AGAIN).reset_index(drop=True)
    examples, _ = encode_samples(tests, tokenizer, CHINESE, dataset.index, 512, 64)
    batch = right_padded([example["input_ids"] for example in examples], tokenizer.pad_token_id)
    replies = []
    for kind in (0, 1):
        model.backbone.model.encoder.generation_token_type = kind
        replies.append(["".join(text.split()) for text, _ in generate_crs(model, tokenizer, batch, 1, 64)])
    means = [scored(tests, texts)["BLEU-2"].mean() for texts in replies]
    differ = sum(one != other for one, other in zip(*replies, strict=True))
    yield f"CPT's replies with token type 0 and 1: {share(differ, len(tests))} differ; BLEU-2 {means[0]:.3f}, {means[1]:.3f}"


def given_away(dataset: Dataset, run: Path) -> Iterator[str]:
    """What a trained UniMIND(BART) recommends once the gold item's own embedding is added to the shopper's representation."""
    folder = run / "systems" / "bcrs"
    if not (folder / "model.safetensors").is_file():
        yield f"gold item's embedding added: not measured, {folder} holds no model"
        return
    model, tokenizer = UniMind.from_pretrained(str(folder)), load_tokenizer(str(folder))
    tests = dataset.split("test")
    tests = tests[tests["task"] == "recommend"].reset_index(drop=True)
    gold = tests[["sample_id"]].assign(usable=True, text="", ranking=[[label] for label in tests["label"]])
    means = []
    for helped in (None, gold):
        examples, _ = encode_samples(tests, tokenizer, CHINESE, dataset.index, 512, 64, helped)
        options = {"num_beams": 1, "max_target_len": 64, "batch_size": BATCH}
        answers = predict(model, tokenizer, tests, examples, dataset.index, CHINESE, **options)
        means.append(score(tests, answers.assign(system="bcrs", seed=1), "zh")["Acc"].mean())
    yield f"Acc of UniMIND(BART) on test samples: {means[0]:.3f}; with the gold item's embedding added {means[1]:.3f}"


def scored(samples: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """Scores of ``texts``, one for each of the test ``samples``."""
    about = {"system": "again", "seed": 1, "valid": [bool(text) for text in texts], "ranking": [[] for _ in texts]}
    return score(samples, samples[["sample_id", "split"]].assign(text=texts, **about), "zh")


def sampled(dataset: Dataset, run: Path) -> Iterator[str]:
    """Answers of a tuned LLM decoded as published, with two seeds, beside the greedy ones."""
    for key, options in DECODING.items():
        folder = run / "systems" / key
        if not (folder / "adapter_config.json").is_file():
            yield f"sampled answers of {SYSTEMS[key].name}: not measured, {folder} holds no model"
            continue
        model, tokenizer = load_tuned(folder).eval(), load_tokenizer(str(folder))
        for task in ("understand", "elicit", "respond"):
            tests = dataset.split("test")
            tests = tests[tests["task"] == task].head(ANSWERED_AGAIN).reset_index(drop=True)
            examples, _ = encode_instructions(
                build_instructions(tests, dataset.facts, CHINESE), tokenizer, CHINESE, TEMPLATE[key], 1024, 64
            )
            yield f"{SYSTEMS[key].name}, {task}, " + sampled_task(model, tokenizer, tests, examples, options)


@torch.no_grad()
def sampled_task(model, tokenizer, tests: pd.DataFrame, examples: list[dict], options: dict) -> str:
    prompts = [example["prompt"] for example in examples]
    answers = [[text for text, _ in generate_llm(model, tokenizer, prompts, 64)]]
    batch = left_padded(prompts, tokenizer.pad_token_id)
    for seed in (1, 2):
        set_seed(seed)
        written = model.generate(
            **batch, do_sample=True, max_new_tokens=64, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, **options,
        )  # fmt: skip
        answers.append(tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True))
    task = tests["task"].iloc[0]
    answers = [["".join(restore_width(task, text, CHINESE).split()) for text in texts] for texts in answers]
    metric = JUDGED_BY[task]
    means = [scored(tests, texts)[metric].mean() for texts in answers]
    differ = sum(one != other for one, other in zip(*answers[1:], strict=True))
    scores = f"{metric} {means[1]:.3f}, {means[2]:.3f}, greedy {means[0]:.3f}"
    return f"two sampled runs: {share(differ, len(tests))} answers differ; {scores}"


def lines(run: Path, pscon: Path | None = None) -> Iterator[str]:
    """All lines of a run, and of PSCon's conversations where their folder is given."""
    dataset, corpus = read_dataset(run / "data"), read_corpus(run / "data" / "corpus")
    samples, dialogues, published = dataset.samples, every_dialogue(corpus), u_need_examples()
    # The first seed of a system has the file that is called after it.
    files = [run / "predictions" / f"{key}.parquet" for key in SYSTEMS]
    predictions = {file.stem: read_parquet(file) for file in files if file.is_file()}
    starts = {dialogue.sid: dialogue.dialogue[0].time for dialogue in dialogues}
    yield from unusable(samples, predictions)
    yield from cut_right(dataset, run)
    yield from cut_llm(dataset, run)
    yield from padded_histories(samples)
    yield from behaviour_by_dialogue(samples, corpus.behaviour, starts)
    parts = {"synthetic corpus": dialogues, "U-NEED's three examples": published}
    parts |= {"PSCon": every_dialogue(read_pscon(pscon))} if pscon else {}
    for name, part in parts.items():
        yield from overwritten(name, part)
    yield from stripped("synthetic corpus", samples.to_dict("records"), dataset.facts)
    yield from stripped("U-NEED's three examples", [row for d in published for row in dialogue_samples(d, CHINESE)], {})
    yield from bleu(samples, predictions)
    yield from whole_members(samples, predictions)
    yield from in_sample(samples, predictions)
    yield from converted(predictions)
    yield from small_counts(dataset, corpus.knowledge)
    yield from given_away(dataset, run)
    yield from token_types(dataset, run)
    yield from sampled(dataset, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run, e.g. runs/study-cpu")
    parser.add_argument("--pscon", type=Path, help="folder of PSCon's files, e.g. runs/pscon/source")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for line in lines(arguments.run, arguments.pscon):
        print(line, flush=True)


if __name__ == "__main__":
    main()
