"""An LLM behind an address, asked at a small server of OpenAI's protocol: answers, rankings, help, and what may go wrong."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import tiny
from openai.types.chat.chat_completion import Choice

from llmcrs_utils.files.parquet import write_parquet
from llmcrs_utils.llm import served
from llmcrs_utils.llm.served import ANSWERS, ServerError
from llmcrs_utils.study import preflight
from llmcrs_utils.study.parameters import ParameterError
from llmcrs_utils.study.plan import Plan
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.study.run import conduct, run_of
from llmcrs_utils.tasks.dataset import write_dataset


class Server(ThreadingHTTPServer):
    """Says what ``say`` makes of a question; counts questions.

    ``say`` returns a text, (text, letter -> log-probability), or (text, None, log-probabilities of its tokens).
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.say, self.lock, self.keys, self.listing = [], lambda question: "价位：一百", threading.Lock(), set(), 200
        self.address = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def send(self, status, content, kind="application/json"):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.server.listing != 200:
            return self.send(self.server.listing, b"no list", "text/plain")
        self.send(200, {"object": "list", "data": [{"id": "small", "object": "model", "created": 0, "owned_by": "us"}]})

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(question)
            self.server.keys.add(self.headers["Authorization"])
        said = self.server.say(question)
        if isinstance(said, bytes):  # nonsense
            return self.send(200, said)
        if isinstance(said, int):
            return self.send(said, {"error": {"message": "not now, sk-secret", "type": "x", "code": None, "param": None}})
        text, letters, *told = said if isinstance(said, tuple) else (said, None)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "logprobs": None}
        if letters:
            top = [{"token": f" {letter}", "logprob": value, "bytes": None} for letter, value in letters.items()]
            choice["logprobs"] = {"content": [{"token": " ", "logprob": 0, "bytes": None, "top_logprobs": []}, {**top[0], "top_logprobs": top}], "refusal": None}
        if told:
            choice["logprobs"] = {"content": [{"token": "x", "logprob": value, "bytes": None, "top_logprobs": []} for value in told[0]], "refusal": None}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return self.send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [choice], "usage": usage})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(served, "RETRIES", 1)
    monkeypatch.setattr(served, "SECONDS", 2)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = Server()
    yield server
    server.shutdown()


@pytest.fixture
def run(tmp_path, server):
    """A run that asks the server, four questions at a time."""
    write_dataset(tiny.dataset(), tmp_path / "data")
    given = {"served": server.address, "served_model": "small", "system": "allm", "dataset_dir": str(tmp_path / "data"), "model_name_or_path": ""}
    return run_of("04_tune_llm", {**given, "output_dir": str(tmp_path / "run"), "predictions_file": str(tmp_path / "allm.parquet")})


def asks_to_rank(question):
    return "top_logprobs" in question


def test_every_sample_is_asked_once_and_answers_are_scored_like_any(run, server, tmp_path):
    server.say = lambda question: ("C", {"C": -0.1, "A": -2.0, "Q": -3.0, "x": -1.0}) if asks_to_rank(question) else "价位：一百"
    history, predictions = conduct(run)
    assert len(history) == 0 and len(predictions) == len(server.asked)
    ranked = predictions.merge(tiny.dataset().samples[["sample_id", "task", "candidates"]], on="sample_id").query("task == 'recommend'")
    for row in ranked.itertuples():
        assert row.ranking[:3] == [row.candidates[place] for place in (2, 0, 16)] and sorted(row.ranking) == sorted(row.candidates)
    assert predictions["valid"].all() and server.keys == {"Bearer sk-secret"}
    assert conduct(run).predictions.drop(columns="scores").equals(predictions.drop(columns="scores")) and len(predictions) == len(server.asked)
    written = "".join(path.read_text("utf-8", errors="replace") for path in (tmp_path / "run").iterdir() if path.is_file())
    assert "sk-secret" not in written
    (row,) = served.summary(run.output_dir).to_dict("records")
    assert row == {"answers": len(predictions), "refused": 0, "ranked_by_logprobs": len(ranked), "prompt_tokens": 100 * len(predictions), "completion_tokens": 5 * len(predictions)}


@pytest.mark.parametrize("listing", [404, 500])
def test_a_server_that_cannot_list_its_models_is_asked_for_a_word_before_anything_else(run, server, listing):
    server.listing, server.say = listing, lambda question: 503
    with pytest.raises(ServerError, match="status 503"):
        conduct(run)
    assert {question["max_tokens"] for question in server.asked} == {1}
    server.asked.clear()
    server.say = lambda question: "C" if asks_to_rank(question) else "价位：一百"
    assert len(conduct(run).predictions) == len(server.asked) - 1


def test_without_log_probabilities_the_letter_that_is_written_counts(run, server):
    server.say = lambda question: 400 if asks_to_rank(question) else "我选 D。" if "候选" in question["messages"][-1]["content"] else "嗯"
    predictions = conduct(run).predictions.merge(tiny.dataset().samples[["sample_id", "task", "candidates"]], on="sample_id")
    ranked = predictions[predictions["task"] == "recommend"]
    assert all(row.ranking == [row.candidates[3], *row.candidates[:3], *row.candidates[4:]] for row in ranked.itertuples())
    assert served.summary(run.output_dir)["ranked_by_logprobs"][0] == 0
    assert predictions.loc[predictions["task"] == "respond", "valid"].all()


@pytest.mark.parametrize(
    ("raw", "letter"),
    [
        ("D", "D"), (" D. ", "D"), ("我选 D。", "D"), ("答案是I", "I"), ("I recommend D.", "D"), ("The answer is C", "C"), ("Answer: D", "D"),
        ("Candidate B", "B"), ("Option A is the best", "A"), ("D. A great choice", "D"), ("I'd take it", None), ("I think so", None), ("不知道", None),
        ("<think>\nOkay, A or B?</think>\nT", "T"), ("<think> A is good, but", None), ("A或B，选B", "B"), ("HI NO", None), ("Z", None),
    ],
)  # fmt: skip
def test_a_letter_is_read_where_it_stands_alone(raw, letter):
    assert served.written_letter(raw) == letter


def test_confidence_is_the_mean_of_what_the_server_tells_and_missing_where_it_tells_nothing(run, server):
    def say(question):
        if asks_to_rank(question):
            return "C"
        return "价位：一百", None, [-0.5, -1.5]

    server.say = say
    predictions = conduct(run).predictions.merge(tiny.dataset().samples[["sample_id", "task"]], on="sample_id")
    ranked = predictions["task"] == "recommend"
    assert predictions.loc[ranked, "confidence"].isna().all() and set(predictions.loc[~ranked, "confidence"]) == {-1.0}


def test_a_server_that_tells_no_log_probabilities_is_asked_without(run, server):
    server.say = lambda question: 400 if "logprobs" in question else "A"
    predictions = conduct(run).predictions
    assert predictions["confidence"].isna().all() and predictions["text"].astype(bool).all()


def test_a_thought_has_no_confidence():
    told = {"content": [{"token": "x", "logprob": -9.0, "bytes": None, "top_logprobs": []}], "refusal": None}
    choice = Choice(index=0, finish_reason="stop", message={"role": "assistant", "content": "<think>嗯</think>好"}, logprobs=told)
    assert served.confidence_of(choice) is None


def test_an_answer_without_a_letter_is_unusable(run, server):
    server.say = lambda question: "不知道"
    predictions = conduct(run).predictions.merge(tiny.dataset().samples[["sample_id", "task"]], on="sample_id")
    assert not predictions.loc[predictions["task"] == "recommend", "valid"].any()


def test_examples_come_first_and_a_crs_stands_in_the_question(run, server, tmp_path):
    samples = tiny.dataset().samples
    write_parquet(tiny.help_for(samples), tmp_path / "help.parquet")
    parameters = run.parameters | {"shots": 2, "assistance_file": str(tmp_path / "help.parquet")}
    material = served.prepare(parameters)
    for name, questions in material.questions.items():
        for task, messages, instruction in zip(material.splits[name]["task"], questions, material.instructions[name].to_dict("records"), strict=True):
            assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
            assert "对话式推荐系统" in messages[-1]["content"] and instruction["instruction"] in messages[-1]["content"]
            known = set(material.instructions["train"].query("task == @task")["output"])
            assert {messages[1]["content"], messages[3]["content"]} <= known
            assert messages[-1] not in messages[:-1]  # no sample is an example to itself
    assert served.prepare(parameters).questions == material.questions
    keys = [run_of("04_tune_llm", run.parameters | changes).key() for changes in ({}, {"learning_rate": 1.0, "served": "http://other/v1"}, {"shots": 1})]
    assert keys[0] == keys[1] != keys[2]


def fails_after(count, how, server):
    """The first answers are right, then ``how`` answers."""

    def say(question):
        return "价位：一百；A" if len(server.asked) <= count else how(question)

    return say


FAILURES = {
    "slow": (lambda question: time.sleep(6) or "x", "no answer in time"),
    "nonsense": (lambda question: b"<html>Bad gateway</html>", "no answer of OpenAI's protocol"),
    "empty": (lambda question: b'{"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}', "no answer of OpenAI's protocol"),
    "broken": (lambda question: 500, "the server refused with status 500"),
    "no key": (lambda question: 401, "the server refused with status 401"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_server_that_fails_costs_no_answer_already_had(run, server, kind):
    how, message = FAILURES[kind]
    server.say = fails_after(9, how, server)
    with pytest.raises(ServerError, match=message) as error:
        conduct(run)
    assert "\n" not in str(error.value) and "sk-secret" not in str(error.value) and "run it again" in str(error.value)
    kept = served.kept_answers(served_file(run))
    assert len(kept) == 9
    with served_file(run).open("ab") as file:
        file.write('{"sample_id": "价'.encode()[:-1])  # a kill in the middle of a line, and of a character
    server.say, server.asked = lambda question: "价位：一百；A", []
    predictions = conduct(run).predictions
    assert len(server.asked) == len(predictions) - 9 and len(served.kept_answers(served_file(run))) == len(predictions)


def test_a_question_that_is_refused_is_an_unusable_answer_unless_all_are(run, server):
    server.say = lambda question: 400 if "候选" in question["messages"][-1]["content"] else "嗯\u2028嗯"
    predictions = conduct(run).predictions.merge(tiny.dataset().samples[["sample_id", "task"]], on="sample_id")
    ranked = predictions["task"] == "recommend"
    assert not predictions.loc[ranked, "valid"].any() and predictions.loc[predictions["task"] == "respond", "valid"].all()
    assert served.summary(run.output_dir)["refused"][0] == ranked.sum()
    server.asked = []
    assert len(conduct(run).predictions) == len(predictions) and not server.asked  # a line separator in an answer ends no line


def test_a_server_that_refuses_everything_ends_the_run(run, server):
    server.say = lambda question: 400
    with pytest.raises(ServerError, match=r"status 400 \(.*\); nothing was answered so far"):
        conduct(run)


def served_file(run):
    return Path(run.output_dir) / ANSWERS


def test_a_server_that_is_down_or_lacks_the_model_is_told_before_anything_runs(run, server, tmp_path):
    profile = {
        "profile": "mine", "extends": "demo", "systems": ["bcrs", "gpt", "bcrs-gpt"],
        "models": {"gpt": {"name": "GPT", "family": "llm", "served": server.address, "served_model": "small"}},
    }  # fmt: skip

    def check(**changes):
        (tmp_path / "mine.yaml").write_text(json.dumps(profile | {"models": {"gpt": profile["models"]["gpt"] | changes}}))
        return preflight.check(str(tmp_path / "mine.yaml"), {})[0]

    jobs = {job.name: job for job in Plan(check()).jobs() if job.rule == "tune_llm"}
    assert set(jobs) == {"gpt", "bcrs-gpt"} and all(job.parameters["model_name_or_path"] == "" for job in jobs.values())
    for changes, message in (
        ({"served": "http://127.0.0.1:9/v1"}, "no server answers there; start the server"),
        ({"served_model": "large"}, "has no model 'large'; it has small"),
        ({"served_model": ""}, "served needs served_model"),
        ({"ranking": "candidates"}, "write ranking: letter for gpt"),
        ({"merge_adapter": True}, "write merge_adapter: False for gpt"),
        ({"shots": -1}, "shots -1: give 0 or more"),
        ({"served_requests": 0}, "served_requests 0: give 1 or more"),
        ({"served": server.address.replace("http://", "http://me:sk-1@")}, "OPENAI_API_KEY only"),
        ({"served": "localhost:8000"}, "served is no address"),
    ):
        with pytest.raises(ParameterError, match=message) as error:
            check(**changes)
        assert "\n" not in str(error.value)
    profile |= {"systems": ["gpt"], "01_build_data": {"train_dialogues": 0, "valid_dialogues": 0}}
    assert check()["systems"] == ["gpt"], "what is not trained needs test dialogues alone"
    profile["01_build_data"]["test_dialogues"] = 0
    with pytest.raises(ParameterError, match="there are no dialogues in test"):
        check()
    assert load_profile(tmp_path / "mine.yaml")["profile"] == "mine" and isinstance(served.summary(tmp_path), pd.DataFrame)
