"""Look-up exercises: they teach a small causal LM to choose among described candidates.

A published LLM can answer "which of A-T is made of leather" about a list that it reads. A small model pretrained on a corpus's
dialogues cannot, and the few recommendations of such a corpus do not teach it. Exercises do. They are lists of described
candidates, worded exactly as the instruction data, followed by questions with one right answer. The loss is on the answers alone.
One list has many questions, because reading the list is the costly part.

Candidates are invented: each has the relations of a catalogue item, with values drawn from all values of its top category. So
no list is seen twice, and lists of the catalogue's own items (``held_out_lookups``) are new to the model. Shoppers' words for a
value come from training dialogues alone (``spoken_words``).
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmcrs_utils.corpus.schema import TOP_CATEGORY, Dialogue
from llmcrs_utils.small.models import text_blocks
from llmcrs_utils.tasks.samples import merge_turns
from llmcrs_utils.text.prompts import LETTERS, Prompts
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import pretraining_collator
from llmcrs_utils.training.trainer import train

Fact = tuple[str, str]  # relation and value
Item = dict[str, str]  # relation -> value
ExercisePart = tuple[str, bool]  # text, and whether it is an answer

SIZES = (2, 3, 4, 6, 8, 12, 16, 20)  # candidates per list, in the order of training
ROUNDS = 12  # rounds of training; each is a point of the learning curve
QUESTIONS = 8  # most questions about one list
LOOKUPS = 100  # held-out questions for each length of list


@dataclass(frozen=True)
class Shelf:
    """The products and words from which exercises are made.

    Attributes:
        items: top category -> its items, each as relation -> value.
        values: (top category, relation) -> values, each as often as items have it.
        words: fact -> its possible names in a question: the catalogue's words first, then shoppers' words.
    """

    items: dict[str, list[Item]]
    values: dict[tuple[str, str], list[str]]
    words: dict[Fact, list[str]]


def make_shelf(knowledge: pd.DataFrame, dialogues: list[Dialogue], prompts: Prompts, min_support: int = 3) -> Shelf:
    """The catalogue by top category, with the words for its facts.

    Args:
        knowledge: product knowledge (``KNOWLEDGE_COLUMNS``).
        dialogues: training dialogues, for shoppers' words.
        min_support: as for ``spoken_words``.
    """
    shown = knowledge[~knowledge["relation_name"].isin(prompts.hidden_relations)]
    top = knowledge[knowledge["relation_name"] == TOP_CATEGORY].drop_duplicates("item_id_encrypt")
    category = dict(zip(top["item_id_encrypt"], top["value"], strict=True))
    of_item: dict[str, Item] = defaultdict(dict)
    values: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item, relation, value in shown[["item_id_encrypt", "relation_name", "value"]].itertuples(index=False):
        of_item[item].setdefault(relation, value)
        values[category.get(item, ""), relation].append(value)
    items: dict[str, list[Item]] = defaultdict(list)
    for item, facts in of_item.items():
        items[category.get(item, "")].append(facts)
    words = {(relation, value): [f"{relation}{prompts.pair}{value}", value] for (_, relation), some in values.items() for value in some}
    for fact, spoken in spoken_words(dialogues, of_item, prompts, min_support).items():
        words[fact] += [word for word in spoken if word not in words[fact]]
    return Shelf(dict(items), dict(values), words)


def spoken_words(dialogues: list[Dialogue], items: dict[str, Item], prompts: Prompts, min_support: int) -> dict[Fact, list[str]]:
    """Fact -> shoppers' words for it, inferred from what the staff recommended after these words.

    A need (attribute, words) and an item recommended later in its dialogue are one observation. An attribute refers to the
    relation of the same name. If there is none, it refers to the relation that its words predict best (``association``). Words
    mean the value observed most often with them, if it was observed at least ``min_support`` times, in at least half of the
    observations, and relatively more often than without the words. If such a need was a turn's only one, the whole text of
    the turn counts as words for the fact, too.
    """
    seen: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))  # attribute -> relation -> observations
    utterances: dict[tuple[str, str], list[str]] = defaultdict(list)
    for dialogue in dialogues:
        needs: dict[tuple[str, str], None] = {}
        for turn in merge_turns(dialogue):
            if turn.by_user:
                needs |= {need: None for need in turn.needs if need[1]}
                if len(turn.needs) == 1 and turn.text not in utterances[turn.needs[0]]:
                    utterances[turn.needs[0]].append(turn.text)
            for facts in (items.get(item, {}) for item in turn.items):
                for attribute, words in needs:
                    for relation, value in facts.items():
                        seen[attribute][relation][dialogue.domain, words, value] += 1
    meant: dict[Fact, list[str]] = defaultdict(list)
    for attribute, relations in seen.items():
        scores = {relation: association(counts, min_support) for relation, counts in relations.items()}
        relation = attribute if attribute in relations else max(scores, key=scores.get)
        if relation != attribute and scores[relation] <= 0:
            continue
        observed: dict[str, Counter] = defaultdict(Counter)
        for (_, words, value), count in relations[relation].items():
            observed[words][value] += count
        everywhere = sum(observed.values(), Counter())
        for words, values in observed.items():
            value, count = values.most_common(1)[0]
            share = count / values.total()
            if count >= min_support and share >= 0.5 and share > everywhere[value] / everywhere.total():
                forms = [f"{attribute}{prompts.pair}{words}", words, *utterances[attribute, words]]
                meant[relation, value] += dict.fromkeys(forms)
    return meant


def association(observations: Counter, min_support: int) -> float:
    """How well words predict values within a domain: the likelihood ratio G minus twice its expectation under independence.

    Domains are counted separately, because across domains nearly all words predict nearly all values: both depend on the
    domain. Words observed fewer than ``min_support`` times are left out.

    Args:
        observations: (domain, words, value) -> count.
    """
    tables: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for (domain, words, value), count in observations.items():
        tables[domain][words][value] += count
    score = 0.0
    for table in tables.values():
        rows = [row for row in table.values() if row.total() >= min_support]
        columns = sum(rows, Counter())
        total = columns.total()
        for row in rows:
            score += sum(2 * n * math.log(n * total / (row.total() * columns[value])) for value, n in row.items())
        score -= 2 * max(len(rows) - 1, 0) * max(len(columns) - 1, 0)
    return score


def made_up_items(shelf: Shelf, size: int, random: Random) -> list[Item]:
    """Invented items of one top category: each has the relations of a catalogue item, with newly drawn values."""
    category = random.choices(list(shelf.items), [len(items) for items in shelf.items.values()])[0]
    return [
        {relation: random.choice(shelf.values[category, relation]) for relation in random.choice(shelf.items[category])}
        for _ in range(size)
    ]


def description(item: Item, prompts: Prompts) -> str:
    return prompts.facts.join(prompts.fact.format(attribute=relation, values=value) for relation, value in item.items())


def candidate_list(items: list[Item], prompts: Prompts) -> str:
    """The line that describes the candidates in a recommendation's prompt."""
    lettered = zip(LETTERS, items, strict=False)
    described = [prompts.candidate.format(letter=letter) + description(item, prompts) for letter, item in lettered]
    return prompts.candidates + prompts.items.join(described) + "\n"


def write_exercise(items: list[Item], shelf: Shelf, prompts: Prompts, random: Random) -> list[ExercisePart]:
    """A list of candidates and questions about it, in the form of a recommendation's prompt.

    Half of the exercises name a wanted value before the list, as a dialogue does. Half of them give a ranking. Further questions
    follow the list, one per line: which candidate has this value, what does this letter name, which candidate has this
    description. If several candidates have the value, the answer is the one ranked first; without a ranking such values are
    not asked for.
    """
    holders: dict[Fact, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        for fact in item.items():
            holders[fact].append(place)
    ranking = random.sample(range(len(items)), len(items)) if random.random() < 0.5 else None
    rank = {place: number for number, place in enumerate(ranking or [])}
    answers = {
        fact: min(places, key=rank.get) if ranking else places[0] for fact, places in holders.items() if ranking or len(places) == 1
    }
    # Only half of the facts are asked for: with all of them, answers could be found by elimination.
    asked = random.sample(sorted(answers), min(QUESTIONS, (len(answers) + 1) // 2))
    opening, first = "", None
    if asked and random.random() < 0.5:
        wanted = asked.pop()
        opening, first = prompts.user + called(wanted, shelf, random) + "\n", answers[wanted]
    elif ranking:
        first = ranking[0]
    if ranking:
        opening += prompts.help["recommend"] + prompts.values.join(LETTERS[place] for place in ranking) + "\n"
    pieces = [(opening + candidate_list(items, prompts), False)]
    pieces += [(LETTERS[first], True)] if first is not None else []
    for fact in asked:
        place = random.randrange(len(items))
        kind = random.random()
        if kind < 0.8:
            question, answer = called(fact, shelf, random), LETTERS[answers[fact]]
        elif kind < 0.9 or items.count(items[place]) > 1:
            question, answer = LETTERS[place], description(items[place], prompts)
        else:
            question, answer = description(items[place], prompts), LETTERS[place]
        pieces += [(("\n" if pieces[-1][1] else "") + prompts.user + question + "\n", False), (answer, True)]
    return pieces


def called(fact: Fact, shelf: Shelf, random: Random) -> str:
    """Words for a fact, drawn at random: half of the time the catalogue's, else a shopper's if any are known."""
    words = shelf.words[fact]
    return random.choice(words[2:] if len(words) > 2 and random.random() < 0.5 else words[:2])


def encode_pieces(exercises: list[list[ExercisePart]], tokenizer: PreTrainedTokenizerBase) -> list[dict]:
    """``input_ids`` and ``labels`` (-100 except for answers) of exercises.

    They begin as prompts do, and the end token follows the last answer. If a tokenizer adds tokens between prompt and answer
    (ChatGLM's ``[gMASK] <sop>``), they come before the first answer.
    """
    # The tokens that the tokenizer adds around a prompt, without an end token: the prompt must stay open.
    marked = tokenizer("A")["input_ids"]
    (bare,) = tokenizer(["A"], add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
    before = marked[:start]
    between = [token for token in marked[start + len(bare) :] if token != tokenizer.eos_token_id]
    special = special_of(tokenizer)
    texts = [plain(text, special) for pieces in exercises for text, _ in pieces]
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    examples = []
    for pieces in exercises:
        input_ids, labels = list(before), [-100] * len(before)
        for number, (_, is_answer) in enumerate(pieces):
            tokens = [*next(ids), *(between if number == 0 else [])]
            input_ids += tokens
            labels += tokens if is_answer else [-100] * len(tokens)
        examples.append({"input_ids": [*input_ids, tokenizer.eos_token_id], "labels": [*labels, tokenizer.eos_token_id]})
    return examples


def held_out_lookups(
    shelf: Shelf, prompts: Prompts, sizes: tuple[int, ...] = (4, 8, 12, 20), count: int = LOOKUPS, seed: int = 0
) -> pd.DataFrame:
    """Questions about lists of the catalogue's own items, which exercises never show: which candidate has this value?

    The words are the catalogue's. Half of the questions come before the list, as a dialogue does, and half after it.

    Args:
        sizes: lengths of lists.
        count: number of questions for each length.

    Returns:
        Columns ``size``, ``place`` (question before or after the list), ``prompt``, ``answer`` (a letter). There are no rows for
        a size if no top category has enough items.
    """
    random = Random(f"held-out look-ups {seed}")
    rows = []
    for size in sizes:
        able = [items for items in shelf.items.values() if len(items) >= size]
        for number in range(count if able else 0):
            items = random.sample(random.choices(able, [len(items) for items in able])[0], size)
            holders = Counter(fact for item in items for fact in item.items())
            single = [(fact, place) for place, item in enumerate(items) for fact in item.items() if holders[fact] == 1]
            if not single:
                continue
            (relation, value), place = random.choice(single)
            question = f"{prompts.user}{relation}{prompts.pair}{value}\n"
            candidates = candidate_list(items, prompts)
            before = number % 2 == 0
            prompt = question + candidates if before else candidates + question
            rows.append({"size": size, "place": "before" if before else "after", "prompt": prompt, "answer": LETTERS[place]})
    return pd.DataFrame(rows, columns=["size", "place", "prompt", "answer"])


@torch.no_grad()
def lookup_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lookups: pd.DataFrame, batch_size: int = 32
) -> pd.Series:
    """Whether the model answers each of ``held_out_lookups`` correctly. Its answer is the most likely letter of the list."""
    if lookups.empty:  # the catalogue is too small for any list
        return pd.Series(dtype=bool, index=lookups.index)
    model.eval()
    pieces = [[(row.prompt, False), (row.answer, True)] for row in lookups.itertuples()]
    examples = encode_pieces(pieces, tokenizer)
    letters = torch.tensor([ids[-1] for ids in tokenizer(list(LETTERS), add_special_tokens=False)["input_ids"]])
    collate = pretraining_collator(model.config.model_type, tokenizer)
    right = [False] * len(lookups)
    order = sorted(range(len(lookups)), key=lambda i: len(examples[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([examples[i] for i in rows])
        # An example ends with the letter and the end token; the state before the letter predicts it.
        last = batch["attention_mask"].sum(dim=1) - 3
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        logits = model(**inputs).logits[torch.arange(len(rows)), last.to(model.device)][:, letters.to(model.device)].cpu()
        for i, scores in zip(rows, logits, strict=True):
            right[i] = LETTERS[int(scores[: lookups["size"].iloc[i]].argmax())] == lookups["answer"].iloc[i]
    return pd.Series(right, index=lookups.index)


def draw_exercises(
    tokenizer: PreTrainedTokenizerBase, shelf: Shelf, prompts: Prompts, sizes: tuple[int, ...], tokens: float, random: Random
) -> list[dict]:
    """Exercises with about ``tokens`` tokens in total, divided equally among the sizes of lists."""
    examples = []
    for size in sizes:
        left = tokens / len(sizes)
        while left > 0:
            drawn = [write_exercise(made_up_items(shelf, size, random), shelf, prompts, random) for _ in range(64)]
            for example in encode_pieces([pieces for pieces in drawn if any(answer for _, answer in pieces)], tokenizer):
                if left > 0:
                    examples.append(example)
                    left -= len(example["input_ids"])
    return examples


def pretrain_with_exercises(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    shelf: Shelf,
    prompts: Prompts,
    *,
    exercise_tokens: int,
    block_size: int,
    seed: int,
    num_train_epochs: float,
    learning_rate: float,
    output_dir: str | Path,
    **options,
) -> pd.DataFrame:
    """Train a new causal LM in place on ``texts`` and on look-up exercises, in rounds.

    Each round uses its share of ``num_train_epochs`` passes over the texts, and its share of ``exercise_tokens`` tokens of new
    exercises. Lists grow from 2 to 20 candidates over the first three quarters of the rounds, and shorter lists stay in use. The
    learning rate falls from round to round. A call after a kill does not repeat finished rounds. ``options`` go to
    ``trainer.train``.

    Returns:
        One row per round: ``epoch, train_loss, valid_loss`` (on the held-out texts), ``exercise_tokens`` so far, and
        ``accuracy_N``, the share of correct answers to ``held_out_lookups`` among N candidates (no column without such lists).
    """
    blocks, held_out = text_blocks(tokenizer, texts, block_size, seed)
    order = Random(f"texts {seed}")
    passes = [block for _ in range(math.ceil(num_train_epochs)) for block in order.sample(blocks, len(blocks))]
    passes = passes[: round(num_train_epochs * len(blocks))]
    collate = pretraining_collator(model.config.model_type, tokenizer)
    lookups = held_out_lookups(shelf, prompts, count=LOOKUPS)
    histories, read = [], 0
    for number in range(ROUNDS):
        part = passes[number * len(passes) // ROUNDS : (number + 1) * len(passes) // ROUNDS]
        sizes = SIZES[: 1 + int(number / (0.75 * ROUNDS) * len(SIZES))]
        drawn = draw_exercises(tokenizer, shelf, prompts, sizes, exercise_tokens / ROUNDS, Random(f"exercises {seed} {number}"))
        read += sum(len(exercise["input_ids"]) for exercise in drawn)
        history = train(
            model, part + drawn, held_out, collate, output_dir=Path(output_dir) / f"round_{number + 1}", seed=seed + number,
            num_train_epochs=1, learning_rate=learning_rate * (1 - number / ROUNDS), lr_scheduler_type="constant_with_warmup",
            label_names=["labels"], group_by_length=True, **options,
        )  # fmt: skip
        right = lookup_accuracy(model, tokenizer, lookups).groupby(lookups["size"]).mean()
        accuracies = {f"accuracy_{size}": share for size, share in right.items()}
        histories.append(history.assign(epoch=num_train_epochs * (number + 1) / ROUNDS, exercise_tokens=read, **accuracies))
    return pd.concat(histories, ignore_index=True)
