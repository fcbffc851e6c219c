"""Talk to a trained system as a shopper: the desk understands, asks, recommends from the catalogue and replies.

    python -m llmcrs_utils.study.chat runs/demo bcrs-allm [--shopper 3] [--seed 1]

The paper has no rule for what the desk does next. Here it asks while the system names attributes that were neither told nor asked, at most
``MOST_QUESTIONS`` times, and then recommends. With each reply it shows what the system understood, and what help it got. An empty line or the end
of the input ends the talk.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pandas as pd
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.corpus.faults import CorpusError
from llmcrs_utils.evaluation.one_dialogue import glossed
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.parameters import ParameterError, hide_notices
from llmcrs_utils.study.plan import Plan
from llmcrs_utils.study.profile import check_profile
from llmcrs_utils.study.run import FINISHED, run_name, run_of
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, System
from llmcrs_utils.tasks.collaboration import merge_assistant
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.tasks.samples import Turn, up_to_question, visible_segments
from llmcrs_utils.text.prompts import LETTERS, Prompts, parse_needs, prompts_of
from llmcrs_utils.world.english import glossary

MOST_QUESTIONS = 2
NOT_SAID = "nothing"
Ask = Callable[[pd.DataFrame, pd.DataFrame | None], pd.DataFrame]
NO_REPLY = "(no usable reply)"
SMALL = "A model this small mixes up words and contradicts itself. It shows how the parts work together, not how well a large model would do."


@dataclass
class Desk:
    """A service desk in the middle of a dialogue.

    Attributes:
        system: who answers; ``asks`` has the functions by which it, its assistant and the CRS that picks candidates are asked, by key.
        shopper: the row of a test question whose shopper this is: ``domain``, clicks before it (``history``), ``seller_id``.
        shown_history: whether products that were shown join the clicks, as in data that was built so.
        small: whether one of its models is a small one that the run trained from nothing.
    """

    system: System
    asks: dict[str, Ask]
    dataset: Dataset
    prompts: Prompts
    shopper: dict
    shown_history: bool = False
    small: bool = False
    turns: list[Turn] = field(default_factory=list)
    helped_by: dict[str, str] = field(default_factory=dict)  # task -> the help of this turn

    @property
    def known(self) -> list[tuple[str, str]]:
        """Needs that the shopper has told, as understood, each once."""
        return list(dict.fromkeys(pair for turn in self.turns if turn.by_user for pair in turn.needs))

    @property
    def asked(self) -> list[str]:
        return [attribute for turn in self.turns if turn.act == "系统提问" for attribute in turn.attributes]

    @property
    def shown(self) -> list[str]:
        """Products that were recommended."""
        return [item for turn in self.turns for item in turn.items]

    @property
    def history(self) -> list[str]:
        return [*self.shopper["history"], *(self.shown if self.shown_history else [])]

    def question(self, task: str, current: list[str], **extra) -> pd.DataFrame:
        """One sample of a task, at this point of the dialogue. Its label is not known and not read."""
        turns = self.turns[:-1] if task == "understand" else self.turns
        context, current = up_to_question(task, visible_segments(task, [turn.segments(self.prompts) for turn in turns]), current)
        empty = {"label": "", "asked": [], "items": [], "needs": [], "history": [], "candidates": []}
        domains = {name: self.shopper[name] for name in ("domain", "told_domain") if name in self.shopper}
        about = {"sample_id": f"chat:{len(self.turns)}:{task}", "split": "test", "task": task, "sid": "chat"} | domains
        return pd.DataFrame([about | {"context": context, "current": current} | empty | extra])

    def answer(self, sample: pd.DataFrame) -> pd.Series:
        """The system's answer, with its assistant's help if it has one."""
        helped, task = None, sample["task"].item()
        if self.system.assistant:
            helped = merge_assistant(sample, self.asks[self.system.assistant](sample, None))
            said = helped["ranking"].item()[:1] if task == "recommend" else [helped["text"].item()]
            self.helped_by[task] = "".join(said) or NOT_SAID
        return self.asks[self.system.key](sample, helped).iloc[0]

    def hear(self, said: str) -> str:
        """The shopper's message, and what the system understood of it."""
        self.helped_by.clear()
        self.turns.append(Turn("用户回答" if self.turns else "用户需求", len(self.turns), datetime.now(), [said]))
        understood = self.answer(self.question("understand", [self.turns[-1].spoken]))
        self.turns[-1].needs = parse_needs(understood["text"], self.prompts) if understood["valid"] else []
        return self.turns[-1].needs_text(self.prompts)

    def reply(self) -> Turn:
        """The desk's next turn: a question or a recommendation, and its words."""
        turn = self.next_question() or self.recommendation()
        extra = {"asked": turn.attributes, "items": turn.items, "needs": self.known}
        reply = self.answer(self.question("respond", turn.closing(self.prompts), **extra))
        turn.texts = [reply["text"] if reply["valid"] else NO_REPLY]
        self.turns.append(turn)
        return turn

    def next_question(self) -> Turn | None:
        """What the system would ask, without what was told or asked; ``None`` if that is nothing, or if it has asked enough."""
        if sum(turn.act == "系统提问" for turn in self.turns) >= MOST_QUESTIONS:
            return None
        named = parse_needs(self.answer(self.question("elicit", []))["text"], self.prompts)
        fresh = [attribute for attribute in dict.fromkeys(name for name, _ in named) if attribute not in {*self.asked, *dict(self.known)}]
        return Turn("系统提问", len(self.turns), datetime.now(), needs=[(attribute, "") for attribute in fresh]) if fresh else None

    def recommendation(self) -> Turn:
        """The system's best candidate that was not shown before, if there is one."""
        candidates = self.candidates()
        ranking = self.answer(self.question("recommend", [], label=candidates[0], candidates=candidates, history=self.history))["ranking"]
        best = next((item for item in ranking if item not in self.shown), ranking[0])
        return Turn("系统推荐", len(self.turns), datetime.now(), items=[best])

    def candidates(self) -> list[str]:
        """20 products to choose from, in random order as in the study.

        A CRS or a pair takes the best 20 of the whole catalogue by its CRS, which gets no help for that. An LLM alone takes those of the shop, then of
        all, with most of the told values.
        """
        crs = next((key for key in self.asks if SYSTEMS[key].family == "crs"), None)
        items = self.dataset.items
        if crs:
            some = items["item_id"].head(len(LETTERS)).tolist()
            sample = self.question("recommend", [], label=some[0], candidates=some, history=self.history)
            best = self.asks[crs](sample, None)["catalogue"].item()[: len(LETTERS)]
        else:
            values = [value for _, value in self.known if value]
            order = items.assign(
                elsewhere=items["seller_id"] != self.shopper["seller_id"], unlisted=~items["listed"] | (items["facts"] == ""),
                misses=[sum(value not in facts for value in values) for facts in items["facts"]],
            )  # fmt: skip
            best = order.sort_values(["unlisted", "elsewhere", "misses"], kind="stable")["item_id"].head(len(LETTERS)).tolist()
        random.Random(len(self.turns)).shuffle(best)
        return best


def open_desk(folder: str | Path, key: str, seed: int = 1, shopper: int = 0) -> Desk:
    """A desk with a trained system of a finished run.

    Args:
        folder: of the run, such as ``runs/demo``.
        key: a CRS, an LLM, or a collaboration, whose assistant must be there too.
        shopper: number of a test dialogue, from 0. The talk is in its category, and its shopper's clicks are known.

    Raises:
        ParameterError: if the run is missing, has no such system, or has not finished it; or for a shopper that is not there.
    """
    folder = Path(folder)
    if not (folder / "profile.json").is_file():
        raise ParameterError(f"{folder}: no run; give the folder of a finished one, such as runs/demo after `make demo`")
    profile = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    plan = Plan(check_profile(profile, folder / "profile.json"))
    if folder.resolve() != Path(plan.folder).resolve():
        raise ParameterError(f"{folder}: its models are those of {plan.folder}; give that folder, from the project's root")
    talking = [name for name in profile["systems"] if SYSTEMS[name].family != "typical"]
    if key not in talking:
        raise ParameterError(f"{key}: no CRS, LLM or collaboration of {folder}; it has {', '.join(talking) or 'none'}")
    jobs = plan.jobs()
    runs = {job.name: run_of(job.notebook, job.parameters) for job in jobs if job.rule in ("train_crs", "tune_llm") and not job.kind}
    asks, parameters, small = {}, {}, False
    for part in filter(None, (key, SYSTEMS[key].assistant)):
        name = run_name(part, seed)
        if name not in runs:
            raise ParameterError(f"{folder}: no {name}; its runs: {', '.join(runs)}")
        parameters = runs[name].parameters
        if parameters.get("served"):
            raise ParameterError(f"{name}: answers from a server, which the talk does not ask; choose a system that was trained here")
        if not (Path(runs[name].output_dir) / FINISHED).is_file():
            raise ParameterError(f"{folder}: {name} is not trained yet; run the profile to its end")
        family = import_module(f"llmcrs_utils.{SYSTEMS[part].family}.system")  # loads torch
        asks[part] = family.asked_live(parameters)
        small = small or Path(parameters["model_name_or_path"]).is_relative_to(folder / "backbones")
    questions = read_parquet(folder / "data" / "samples.parquet").query("split == 'test' and task == 'recommend'").drop_duplicates("sid")
    if not 0 <= shopper < len(questions):
        raise ParameterError(f"shopper {shopper}: {folder} has {len(questions)} shoppers, counted from 0")
    build = next(job for job in jobs if job.rule == "build_data")
    shown_history = run_of(build.notebook, build.parameters).parameters["shown_history"]
    return Desk(SYSTEMS[key], asks, read_dataset(folder / "data"), prompts_of(parameters["language"]), questions.iloc[shopper].to_dict(), shown_history, small)


def talk(desk: Desk, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer the shopper's lines until one is empty."""
    english = glossary() if not desk.prompts.space else {}
    facts = desk.dataset.facts
    for line in lines:
        if not line.strip():
            return
        start = time.monotonic()
        understood = desk.hear(line.strip())
        turn = desk.reply()
        show(f"  understood: {glossed(understood, english) or NOT_SAID}")
        if turn.items:
            show(f"  recommends: {turn.items[0]} ({glossed(facts.get(turn.items[0], ''), english) or 'not described'})")
        else:
            show(f"  asks for: {glossed(desk.prompts.items.join(turn.attributes), english)}")
        for task, help in desk.helped_by.items():
            known = facts.get(help, "") if task == "recommend" else ""
            show(f"  help to {task}, by {SYSTEMS[desk.system.assistant].name}: {glossed(help, english)}{f' ({glossed(known, english)})' if known else ''}")
        show(f"desk> {turn.text}   [{time.monotonic() - start:.1f} s]")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.study.chat", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="of a finished run, such as runs/demo")
    parser.add_argument("system", help="a CRS, an LLM or a collaboration of that run, such as bcrs-allm")
    parser.add_argument("--shopper", type=int, default=0, help="number of the test dialogue whose shopper you are (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the trained system (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    hide_notices()
    disable_progress_bar()  # of the loading of weights
    try:
        desk = open_desk(chosen.folder, chosen.system, chosen.seed, chosen.shopper)
        domain = desk.shopper.get("told_domain", desk.shopper["domain"])
        print(f"The desk is {desk.system.name}, in {CATEGORIES.get(domain, domain)} ({domain}). You are a shopper with {len(desk.history)} clicks.{f' {SMALL}' if desk.small else ''}")
        if sys.stdin.isatty():
            print("Type as the shopper; an empty line ends the talk.")
        talk(desk, prompted() if sys.stdin.isatty() else sys.stdin, lambda line: print(line, flush=True))
    except (ParameterError, CorpusError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0


def prompted() -> Iterable[str]:
    """Lines that somebody types."""
    while True:
        try:
            yield input("you> ")
        except EOFError:
            return


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main())
