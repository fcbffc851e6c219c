"""An LLM behind an address: any server that speaks OpenAI's protocol is asked, without tuning, and with a CRS's help in the prompt.

The instructions are those of a tuned LLM. The address and the model's name come from the parameters, the key from the environment
(``OPENAI_API_KEY``) only. Every answer is appended to a file at once, so a call after an interruption asks for the rest.
"""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import openai
import pandas as pd
from tqdm.auto import tqdm

from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.tasks.answers import ranked_answer, text_answer
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.text.instructions import build_instructions, to_alpaca
from llmcrs_utils.text.prompts import LETTERS, Prompts, prompts_of

ANSWERS = "answers.jsonl"  # in the run's folder: a line per sample, with what the server wrote and what it cost
SECONDS, RETRIES = 120, 4  # for one answer; more attempts after a failure, with growing pauses between them
MOST_REFUSED = 5  # questions that a server may refuse before it has answered one
TOP = 20  # alternatives to a token that servers tell at most
THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
LONE, SMALL_WORD = re.compile(r"(?<![A-Za-z])[A-T](?![A-Za-z'’])"), re.compile(r"[AI]\s+[a-z]")
UNLISTED = -10.0  # added to the lowest log-probability told, for letters that are not among the alternatives


class Refused(ValueError):
    """The server has no answer to this one question: it is too long, or was filtered."""


class ServerError(RuntimeError):
    """The server cannot be reached, or what it answers is no answer. The message says what happened and the remedy."""


@dataclass(frozen=True)
class Material:
    """The data of a served LLM: as ``llm.system.Material``, with texts in place of tokens.

    Attributes:
        questions: split -> for each sample the messages that the server gets.
    """

    parameters: dict
    dataset: Dataset
    prompts: Prompts
    helped: pd.DataFrame | None
    splits: dict[str, pd.DataFrame]
    instructions: dict[str, pd.DataFrame]
    questions: dict[str, list[list[dict[str, str]]]]

    @property
    def fits(self) -> None:
        """Nothing is cut: the server has the model's tokenizer, we have not."""
        return None


def prepare(parameters: dict) -> Material:
    """Read the data and write the questions. With ``shots`` each follows that many training samples of its task with their answers."""
    prompts, dataset = prompts_of(parameters["language"]), read_dataset(parameters["dataset_dir"])
    helped = read_parquet(parameters["assistance_file"]) if parameters["assistance_file"] else None
    splits = dataset.splits(parameters["folds"], parameters["held_out_fold"])
    instructions = {name: build_instructions(part, dataset.facts, prompts, helped) for name, part in splits.items()}
    shown = examples(instructions["train"], prompts, parameters["shots"], parameters["seed"])
    questions = {name: with_examples(part, prompts, shown, parameters["shots"]) for name, part in instructions.items()}
    return Material(parameters, dataset, prompts, helped, splits, instructions, questions)


def asked(instructions: pd.DataFrame, prompts: Prompts) -> Iterator[tuple[str, dict[str, str]]]:
    """(task, the user's message) of each row."""
    for task, record in zip(instructions["task"], to_alpaca(instructions, prompts), strict=True):
        yield task, {"role": "user", "content": f"{record['instruction']}\n{record['input']}"}


def examples(instructions: pd.DataFrame, prompts: Prompts, shots: int, seed: int) -> dict[str, list[tuple[str, list[dict[str, str]]]]]:
    """Task -> one more than ``shots`` training samples: the id, and the question with its right answer as messages."""
    found: dict[str, list] = {task: [] for task in instructions["task"].unique()}
    drawn = instructions.sample(frac=1, random_state=seed).groupby("task").head(shots + 1 if shots else 0)
    for (task, message), row in zip(asked(drawn, prompts), drawn.to_dict("records"), strict=True):
        found[task].append((row["sample_id"], [message, {"role": "assistant", "content": row["output"]}]))
    return found


def with_examples(instructions: pd.DataFrame, prompts: Prompts, shown: dict[str, list], shots: int) -> list[list[dict[str, str]]]:
    """The messages of each sample: the examples of its task, then its own question. No sample is an example to itself."""
    questions = []
    for sample_id, (task, message) in zip(instructions["sample_id"], asked(instructions, prompts), strict=True):
        others = [messages for example, messages in shown.get(task, []) if example != sample_id][:shots]
        questions.append([*(one for messages in others for one in messages), message])
    return questions


def train(material: Material, output_dir: str | Path) -> pd.DataFrame:
    """Nothing is trained. Asks the server whether it has the model, so that what cannot work ends here.

    Raises:
        ServerError: if it cannot be reached or has no such model.
    """
    check_server(material.parameters["served"], material.parameters["served_model"])
    return pd.DataFrame(columns=["epoch", "train_loss", "valid_loss"])


def client_of(address: str, retries: int, seconds: float) -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=retries, timeout=seconds)


def check_server(address: str, model: str) -> None:
    """Check that the server answers and, if it lists its models, that it has this one.

    A server that lists none may still answer (``transformers serve`` on a machine without a hub cache). It is asked for a word.

    Raises:
        ServerError: if a check fails.
    """
    try:
        try:
            names = [listed.id for listed in client_of(address, retries=1, seconds=10).models.list().data]
        except (openai.NotFoundError, openai.InternalServerError):
            names, word = [], [{"role": "user", "content": "Hello"}]
            client_of(address, retries=1, seconds=SECONDS).chat.completions.create(model=model, messages=word, max_tokens=1)
    except Exception as error:  # whatever a server may send instead of a list or a word
        raise ServerError(f"{address}: {reason(error)}; start the server, or correct served") from None
    if names and model not in names:
        raise ServerError(f"{address}: has no model {model!r}; it has {', '.join(names[:5])}: correct served_model")


def reason(error: Exception) -> str:
    """One line of what went wrong. It never holds the key."""
    if isinstance(error, openai.APITimeoutError):
        return "no answer in time"
    if isinstance(error, openai.APIConnectionError):
        return "no server answers there"
    if isinstance(error, openai.APIStatusError):
        key = os.environ.get("OPENAI_API_KEY")
        said = error.message.replace(key, "(key)") if key else error.message  # some servers repeat it
        return f"the server refused with status {error.status_code} ({' '.join(said.split())[:120]})"
    return f"this is no answer of OpenAI's protocol ({type(error).__name__})"


def answer(material: Material, output_dir: str | Path, splits: list[str]) -> pd.DataFrame:
    """Predictions for these splits, without system and seed. What the file ``ANSWERS`` holds is not asked again.

    Raises:
        ServerError: for the first sample that got no answer; all answers before it are kept.
    """
    parts = []
    for name in splits:
        samples = material.splits[name]
        given = ask_all(material, samples, material.questions[name], Path(output_dir) / ANSWERS)
        rows = [prediction(sample, given[sample["sample_id"]], material.prompts) for sample in samples.to_dict("records")]
        parts.append(pd.concat([samples[["split", "sample_id"]].reset_index(drop=True), pd.DataFrame(rows)], axis=1))
    return pd.concat(parts)


def ask_all(material: Material, samples: pd.DataFrame, questions: list[list[dict]], file: Path) -> dict[str, dict]:
    """Sample id -> what the server said, for all samples. New answers are appended to the file as they come."""
    parameters, given = material.parameters, kept_answers(file)
    client = client_of(parameters["served"], RETRIES, SECONDS)
    todo = [(row, question) for row, question in zip(samples.to_dict("records"), questions, strict=True) if row["sample_id"] not in given]

    def ask(pair: tuple[dict, list[dict]]) -> dict:
        row, question = pair
        try:
            said = ask_one(client, parameters["served_model"], question, row["task"] == "recommend", parameters["max_new_tokens"])
        except Refused as error:
            said = {"raw": "", "letters": None, "refused": str(error)}
        except Exception as error:
            raise ServerError(f"{parameters['served']}: sample {row['sample_id']}: {reason(error)}; run it again, which asks for the rest only") from None
        return {"sample_id": row["sample_id"], **said}

    failed, held_back = None, []  # refusals are held back until something was answered: before that, all may be refused
    with ThreadPoolExecutor(parameters["served_requests"]) as pool, file.open("a", encoding="utf-8") as kept:
        kept.write("\n" if file.stat().st_size else "")  # a kill may have cut the last line short
        waiting = [pool.submit(ask, pair) for pair in todo]
        try:
            for future in tqdm(as_completed(waiting), total=len(waiting), desc="asked", disable=not waiting):
                if future.cancelled():
                    continue
                try:
                    said = future.result()
                except ServerError as error:  # no further questions, but the answers that are on their way are kept
                    failed = failed or error
                    for other in waiting:
                        other.cancel()
                    continue
                held_back.append(said)
                if "refused" in said and all("refused" in other for other in given.values()):
                    if len(held_back) >= MOST_REFUSED:
                        break
                    continue
                for said in held_back:
                    given[said["sample_id"]] = said
                    kept.write(json.dumps(said) + "\n")
                kept.flush()
                held_back = []
        finally:
            for future in waiting:  # after an interrupt nothing more is asked
                future.cancel()
    if held_back and not failed:
        failed = ServerError(f"{parameters['served']}: sample {held_back[0]['sample_id']}: {held_back[0]['refused']}; nothing was answered so far, so it is not asked on")
    if failed:
        raise failed
    return given


def ask_one(client: openai.OpenAI, model: str, question: list[dict], ranks: bool, max_new_tokens: int) -> dict:
    """What the server writes (``raw``), the log-probabilities of letters and the text's mean (``confidence``) if it tells them, and
    the tokens it counted.

    Raises:
        Refused: if it has no answer to this question.
        openai.OpenAIError, ValueError: if it does not answer, or with something else.
    """

    def create(**options):
        return client.chat.completions.create(model=model, messages=question, max_tokens=max_new_tokens, temperature=0, **options)

    try:
        try:
            done = create(logprobs=True, top_logprobs=TOP) if ranks else create(logprobs=True)
        except openai.BadRequestError:
            done = create()  # some servers tell no log-probabilities
    except openai.BadRequestError as error:
        raise Refused(reason(error)) from None
    if not done.choices:
        raise ValueError("no choices")
    choice = done.choices[0]
    if not isinstance(choice.message.content, str):
        raise Refused(f"no text ({choice.finish_reason})")
    usage = done.usage
    cost = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else {}
    return {"raw": choice.message.content, "letters": letters_of(choice) if ranks else None, "confidence": confidence_of(choice), **cost}


def written_letter(raw: str) -> str | None:
    """The letter A-T that an answer names: the last one that stands alone. ``None`` if there is none.

    A thought in <think> is no answer. ``I`` before a small word is none, and ``A`` only if there is no other letter.
    """
    text = THOUGHT.sub("", raw)
    found = [(match.group(), bool(SMALL_WORD.match(text, match.start()))) for match in LONE.finditer(text)]
    named = [letter for letter, is_word in found if not is_word] or [letter for letter, _ in found if letter == "A"]
    return named[-1] if named else None


def confidence_of(choice) -> float | None:
    """The mean log-probability of the tokens; ``None`` if the server tells none, or if a thought is among them."""
    told = (choice.logprobs.content if choice.logprobs else None) or []
    return sum(token.logprob for token in told) / len(told) if told and not THOUGHT.search(choice.message.content) else None


def letters_of(choice) -> dict[str, float] | None:
    """Letter -> log-probability, where the answer's letter is written; ``None`` if the server tells none."""
    letter = written_letter(choice.message.content)
    tokens = [token for token in (choice.logprobs.content if choice.logprobs else None) or [] if token.token.strip() == letter]
    if letter is None or not tokens:
        return None
    found: dict[str, float] = {}
    for other in [tokens[-1], *(tokens[-1].top_logprobs or [])]:
        name = other.token.strip()
        if len(name) == 1 and name in LETTERS:
            found[name] = max(other.logprob, found.get(name, other.logprob))
    return found


def prediction(sample: dict, said: dict, prompts: Prompts) -> dict:
    """The answer to one sample. A recommendation that names no letter A-T is unusable.

    Without log-probabilities the item that was named is first, and the others follow as they are given: Hit@5 and MRR@5 then say
    little more than Acc.
    """
    raw = THOUGHT.sub("", said["raw"])
    if sample["task"] != "recommend":
        return text_answer(sample["task"], raw, prompts, confidence=said.get("confidence"))
    candidates, letters, written = list(sample["candidates"]), said["letters"], written_letter(raw)
    if written is None:
        return {"text": "", "ranking": [], "scores": [], "raw": said["raw"], "valid": False, "confidence": None, "catalogue": []}
    if letters:
        low = min(letters.values()) + UNLISTED
        scores = [letters.get(letter, low) for letter in LETTERS[: len(candidates)]]
    else:
        scores = [float(letter == written) for letter in LETTERS[: len(candidates)]]
    order = sorted(range(len(candidates)), key=lambda place: -scores[place])
    return ranked_answer(candidates, order, [scores[place] for place in order], said["raw"])


def kept_answers(file: Path) -> dict[str, dict]:
    """Sample id -> what was said. A last line that a kill cut short is left out."""
    given = {}
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        given[said["sample_id"]] = said
    return given


def summary(output_dir: str | Path) -> pd.DataFrame:
    """One row: answers, refusals, rankings by log-probabilities (the others are by the letter written), and tokens."""
    given = kept_answers(Path(output_dir) / ANSWERS).values()
    ranked = [said for said in given if said["letters"] is not None]
    tokens = {name: sum(said.get(name, 0) for said in given) for name in ("prompt_tokens", "completion_tokens")}
    refused = sum("refused" in said for said in given)
    return pd.DataFrame([{"answers": len(given), "refused": refused, "ranked_by_logprobs": len(ranked), **tokens}])
