"""How hard the candidates of a recommendation are: what is right without reading, and what the training recommended."""

import random

import numpy as np
import pandas as pd

from llmcrs_utils.corpus.similarity import grams_of

RANDOM, RAREST, ALIKE = "chance", "what is right least often in training", "what is most like the other candidates"


def candidate_hardness(samples: pd.DataFrame, rankings: dict[str, pd.DataFrame], facts: dict[str, str]) -> pd.DataFrame:
    """Share of test recommendations that simple rules get right. One row per rule, columns ``Acc`` and ``samples``.

    Args:
        samples: rows of ``build_samples``, all splits.
        rankings: name of a rule -> its predictions for the test split (``floors``).
        facts: item id -> the text that a model may read of it.

    Besides them stand chance and two rules that read no dialogue: the candidate that is right least often in training (equals by
    chance), and the one whose text is most like those of the others. Both are checks: far above chance, the way in which wrong
    candidates are chosen gives the right one away.
    """
    recommend = samples[samples["task"] == "recommend"]
    test = recommend[recommend["split"] == "test"].set_index("sample_id")
    often = recommend.loc[recommend["split"] == "train", "label"].value_counts()
    chance, rarest, alike = [], [], []
    grams = {item: grams_of(facts.get(item, "")) for items in test["candidates"] for item in items}
    for gold, candidates in zip(test["label"], test["candidates"]):
        counts = often.reindex(list(candidates), fill_value=0)
        least = counts.index[counts == counts.min()]
        chance.append(1 / len(candidates))
        rarest.append((gold in least) / len(least))
        likeness = [sum(len(grams[item] & grams[other]) / max(1, len(grams[item] | grams[other])) for other in candidates if other != item) for item in candidates]
        alike.append(candidates[int(np.argmax(likeness))] == gold)
    accuracy = {RANDOM: np.mean(chance) if chance else np.nan}
    for name, answers in rankings.items():
        first = answers[answers["sample_id"].isin(test.index)].set_index("sample_id")["ranking"].map(lambda items: items[0])
        accuracy[name] = (first.reindex(test.index) == test["label"]).mean()
    accuracy[RAREST] = np.mean(rarest) if rarest else np.nan
    accuracy[ALIKE] = np.mean(alike) if alike else np.nan
    return pd.DataFrame({"Acc": accuracy, "samples": len(test)})


def cold_shares(samples: pd.DataFrame) -> pd.DataFrame:
    """By split: ``recommendations``, ``different items`` among them, and the shares that are no right answer in training.

    ``right answers never in training`` and ``wrong candidates never in training`` are shares of the split's samples and of
    their wrong candidates. Where they are far apart, a model that knows its training items is misled.
    """
    recommend = samples[samples["task"] == "recommend"]
    trained = set(recommend.loc[recommend["split"] == "train", "label"])
    rows = {}
    for split, part in recommend.groupby("split", sort=False):
        wrong = [item not in trained for gold, items in zip(part["label"], part["candidates"]) for item in items if item != gold]
        rows[split] = {
            "recommendations": len(part),
            "different items": part["label"].nunique(),
            "right answers never in training": (~part["label"].isin(trained)).mean(),
            "wrong candidates never in training": np.mean(wrong) if wrong else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def candidate_examples(samples: pd.DataFrame, facts: dict[str, str], count: int = 3, seed: int = 1) -> pd.DataFrame:
    """The candidates of some recommendations, a column each, headed by what was said last. Right ones are marked ✓, disliked ones ✗.

    Args:
        samples: rows of ``build_samples``; drawn are those of the test split.
        facts: item id -> the text that a model may read of it.
    """
    test = samples[(samples["split"] == "test") & (samples["task"] == "recommend")].to_dict("records")
    columns = {}
    for sample in random.Random(seed).sample(test, min(count, len(test))):
        said = [segment.removeprefix("[user]") for turn in [*sample["context"], sample["current"]] for segment in turn if segment.startswith("[user]")]
        disliked = set(sample.get("disliked", ()))
        marks = ["✓ " if item == sample["label"] else "✗ " if item in disliked else "" for item in sample["candidates"]]
        told = [mark + (facts.get(item) or item) for mark, item in zip(marks, sample["candidates"])]
        columns[f"{sample['sample_id']}: {' / '.join(said[-2:])}"] = pd.Series(told)
    return pd.DataFrame(columns)
