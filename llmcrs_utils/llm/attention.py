"""Where a tuned LLM looks while it writes an answer: how much of its attention goes to the help in its prompt."""

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokens_with(text: str, prompt: list[int], tokenizer: PreTrainedTokenizerBase) -> slice:
    """The shortest run of a prompt's tokens that holds ``text``; the last one, if there are several.

    Raises:
        ValueError: if the prompt does not hold it.
    """
    starts = (start for start in reversed(range(len(prompt))) if text in tokenizer.decode(prompt[start:]))
    start = next(starts, None)
    if start is None:
        raise ValueError(f"the prompt does not hold {text!r}; was it cut?")
    end = next(end for end in range(start + 1, len(prompt) + 1) if text in tokenizer.decode(prompt[start:end]))
    return slice(start, end)


@torch.no_grad()
def attention_to(model: PreTrainedModel, examples: list[dict], parts: list[slice]) -> np.ndarray:
    """Share of the attention to the prompt that goes to one part of it, while the answer is written.

    The mean is over heads and over the answer's tokens. The prompt's first token is left out of both the share and the whole: many heads
    rest on it whatever the text (the attention sink of Xiao et al. 2024).

    Args:
        model: computes attention eagerly, which alone returns the weights.
        examples: ``prompt`` and ``answer`` as token ids.
        parts: the part of each prompt.

    Returns:
        [examples, layers], from 0 to 1.
    """
    model.eval()
    shares = []
    for example, part in zip(examples, parts, strict=True):
        prompt, answer = example["prompt"], example["answer"]
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        layers = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, use_cache=False).attentions
        # The state of a position predicts the next token, so the answer is written at the places from the prompt's last on.
        given = torch.stack([layer[0, :, len(prompt) - 1 : -1, : len(prompt)].float().mean(dim=(0, 1)) for layer in layers])
        given[:, 0] = 0
        shares.append((given[:, part].sum(dim=1) / given.sum(dim=1)).cpu().numpy())
    return np.stack(shares)
