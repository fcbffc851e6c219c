"""The effect of each knob of the synthetic world: small worlds in which one knob differs from its default, measured by their own truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import Knobs, Truth, generate
from llmcrs_utils.world.categories import WORLD_CATEGORIES
from llmcrs_utils.world.ceilings import best_set, chosen_items, shares

SETTINGS = {
    "implicit_weight": (0.0, 0.25, 0.5, 0.75, 1.0),
    "vocabulary_gap": (0.0, 0.25, 0.5, 0.75, 1.0),
    "choice_noise": (0.05, 0.25, 0.5, 0.75, 1.0),
    "elicitation_difficulty": (0.0, 0.25, 0.5, 0.75, 1.0),
    "category_differences": (0.0, 0.25, 0.5, 0.75, 1.0),
    "typo_rate": (0.0, 0.05, 0.1, 0.2, 0.4),
}
SPREAD = "recommend: spread of needs' lead over categories"  # needs five times the dialogues to stand out from chance
MEASURES = {
    "recommend: ceiling": ("#332288", "-", "o"),
    "recommend: who sees needs only": ("#88CCEE", "-", "s"),
    "recommend: who sees behaviour only": ("#CC6677", "-", "^"),
    "elicit: ceiling": ("#117733", "-", "o"),
    "understand: words as in the catalogue": ("#DDCC77", "--", "s"),
    "understand: words the lexicon knows": ("#AA4499", "--", "^"),
    SPREAD: ("#999999", ":", "D"),
}


def knob_effects(dialogues: int, seed: int = 1) -> pd.DataFrame:
    """Measures of worlds with ``dialogues`` dialogues in which one knob differs from its default: ``knob, value, measure, score``.

    ``SPREAD`` is reported for the knob ``category_differences`` only; the worlds of this knob are five times as large.

    The measures are exact expectations under the world's own probabilities over its dialogues. No model is trained.
    """
    turned = [(knob, value) for knob, values in SETTINGS.items() for value in values]
    rows = []
    for knob, value in tqdm(turned, desc="worlds"):
        spread = knob == "category_differences"
        size = {"test": dialogues * (5 if spread else 1)}
        corpus, truth = generate(size, 2, 40, actions_per_dialogue=0.0, seed=seed, knobs=replace(Knobs(), **{knob: value}))
        rows += [(knob, value, measure, score) for measure, score in measures(corpus, truth).items() if spread or measure != SPREAD]
    return pd.DataFrame(rows, columns=["knob", "value", "measure", "score"])


def measures(corpus: Corpus, truth: Truth) -> dict[str, float]:
    """The ``MEASURES`` of one world."""
    samples = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
    chosen = samples[samples["task"] == "recommend"]
    hits = {"ceiling": [], "who sees needs only": [], "who sees behaviour only": []}
    for sample in chosen.itertuples():
        choice = truth[sample.sid, sample.seq_no].choice
        likely = dict(chosen_items(choice, sample.candidates))
        hits["ceiling"].append(max(likely.values()))
        for reader, weight in (("who sees needs only", 0.0), ("who sees behaviour only", 1.0)):
            guess = max(chosen_items(choice, sample.candidates, weight), key=lambda pair: pair[1])[0]
            hits[reader].append(likely[guess])
    lead = np.subtract(hits["who sees needs only"], hits["who sees behaviour only"])
    by_category = pd.Series(lead).groupby(chosen["domain"].to_numpy()).mean()
    found = {f"recommend: {reader}": float(np.mean(probabilities)) for reader, probabilities in hits.items()}
    found[SPREAD] = float(by_category.max() - by_category.min())
    found["elicit: ceiling"] = elicit_ceiling(samples[samples["task"] == "elicit"], truth)
    return found | wording(corpus)


def elicit_ceiling(samples: pd.DataFrame, truth: Truth) -> float:
    """The expected F1 of the best set of attributes, over all questions of the world."""
    expected = []
    for sample in samples.itertuples():
        labels = shares(truth[sample.sid, sample.seq_no].questions)
        answer = set(best_set([(CHINESE.items.join(keys), share) for keys, share in labels]).split(CHINESE.items))
        expected.append(sum(share * 2 * len(answer & set(keys)) / (len(answer) + len(set(keys))) for keys, share in labels))
    return float(np.mean(expected))


def wording(corpus: Corpus) -> dict[str, float]:
    """The share of shoppers' annotated words that are the catalogue's own, and the share that are in the lexicon at all."""
    near, known = set(), set()
    for category in WORLD_CATEGORIES:
        for attribute in category.attributes.values():
            for words in attribute.words.values():
                near.add((category.domain, words[0]))
                known |= {(category.domain, word) for word in words}
                known |= {(category.domain, frame.format(word)) for word in words for frame in attribute.avoid}
                near |= {(category.domain, frame.format(words[0])) for frame in attribute.avoid}
    annotated = [
        (dialogue.domain, attribute.value)
        for dialogue in corpus.dialogues["test"]
        for utterance in dialogue.dialogue
        for attribute in utterance.attributes
        if utterance.sender_type == "用户"
    ]
    return {
        "understand: words as in the catalogue": sum(word in near for word in annotated) / len(annotated),
        "understand: words the lexicon knows": sum(word in known for word in annotated) / len(annotated),
    }


def knob_figure(effects: pd.DataFrame) -> Figure:
    """A panel per knob, with a dotted line at its default."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    defaults = vars(Knobs())
    shown = {}
    for (knob, part), axes in zip(effects.groupby("knob", sort=False), figure.subplots(2, 3, sharey=True).flat, strict=True):
        for measure, (colour, line, marker) in MEASURES.items():
            points = part[part["measure"] == measure]
            if len(points):
                (shown[measure],) = axes.plot(points["value"], points["score"], line, color=colour, marker=marker, markersize=4)
        axes.axvline(defaults[knob], color="0.7", linestyle=":", linewidth=1)
        axes.set(title=knob, ylim=(0, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("Synthetic world: what each knob moves (expected Acc, F1 and shares; the dotted line is the default)", fontsize=11)
    return figure
