"""Where an LLM looks while it answers."""

import numpy as np
import pandas as pd
import pytest
import tiny

from llmcrs_utils.checkpoints.loading import load_causal, load_tokenizer
from llmcrs_utils.evaluation.analysis_figures import attention_figure
from llmcrs_utils.llm.attention import attention_to, tokens_with


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny.backbone("llama"))


@pytest.fixture
def model():
    model = load_causal(tiny.backbone("llama"))
    model.set_attn_implementation("eager")
    return model


def test_the_help_is_found_where_it_stands_last(tokenizer):
    prompt = tokenizer("品类：面霜。提示：面霜，补水\n回答：")["input_ids"]
    found = tokens_with("面霜，补水", prompt, tokenizer)
    assert "面霜，补水" in tokenizer.decode(prompt[found]) and len(tokenizer.decode(prompt[found])) <= len("：面霜，补水\n")
    assert found.start > len(tokenizer("品类：面霜。")["input_ids"]) - 1
    with pytest.raises(ValueError, match="does not hold '手机'; was it cut"):
        tokens_with("手机", prompt, tokenizer)


def test_the_shares_of_all_parts_add_up_and_even_attention_is_shared_evenly(model):
    prompt, answer = list(range(10, 30)), [40, 41, 42]
    everything, half = slice(0, 20), slice(0, 10)
    whole, first = (attention_to(model, [{"prompt": prompt, "answer": answer}], [part])[0] for part in (everything, half))
    second = attention_to(model, [{"prompt": prompt, "answer": answer}], [slice(10, 20)])[0]
    assert whole == pytest.approx(np.ones(len(whole)), rel=1e-6) and first + second == pytest.approx(whole, rel=1e-6)
    for layer in model.model.layers:  # every score is 0: attention is even over all tokens before
        layer.self_attn.q_proj.weight.data.zero_()
    even = attention_to(model, [{"prompt": prompt, "answer": answer}], [slice(15, 20)])[0]
    assert even == pytest.approx(np.full(len(even), 5 / 19), rel=1e-4)  # the first of 20 tokens does not count


def test_the_answer_changes_only_the_places_from_which_it_is_written(model):
    one = attention_to(model, [{"prompt": list(range(10, 30)), "answer": [40]}], [slice(10, 20)])
    other = attention_to(model, [{"prompt": list(range(10, 30)), "answer": [41]}], [slice(10, 20)])
    assert one == pytest.approx(other, rel=1e-6)  # one token is written from the prompt's last place, whatever it is


def test_the_figure_has_a_panel_per_task_and_says_both_means():
    rows = [(kind, task, layer, share, 0.1, 7) for kind, share in (("in-sample", 0.4), ("cross-fitted", 0.2)) for task in ("understand", "elicit") for layer in (1, 2)]
    figure = attention_figure(pd.DataFrame(rows, columns=["help", "task", "layer", "share", "tokens", "n"]), "a corpus")
    assert "40% when trained with in-sample help, 20% when trained with cross-fitted help" in figure.get_suptitle()
    assert len(figure.axes) == 2 and "(n = 7)" in figure.axes[0].get_title() and len(figure.legends[0].get_texts()) == 3
