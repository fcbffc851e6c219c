"""How examples become a batch: one collator for each kind of model, padded to its own longest row."""

import torch


def pad(sequences: list[list[int]], value: int) -> torch.Tensor:
    """[batch, longest] int64, padded on the right."""
    longest = max(map(len, sequences))
    return torch.tensor([list(row) + [value] * (longest - len(row)) for row in sequences], dtype=torch.long)


def right_padded(rows: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, [batch, longest]."""
    lengths = torch.tensor([len(row) for row in rows])
    input_ids = pad(rows, pad_token_id)
    return {"input_ids": input_ids, "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()}


def left_padded(prompts: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` with every prompt's end in the last column, where decoding starts."""
    return {name: tensor.flip(1) for name, tensor in right_padded([prompt[::-1] for prompt in prompts], pad_token_id).items()}


def with_labels(examples: list[dict]) -> list[dict]:
    """Training examples: the loss is on the answer only."""
    return [
        {"input_ids": e["prompt"] + e["answer"], "labels": [-100] * len(e["prompt"]) + e["answer"]} for e in examples
    ]


def causal_collator(pad_token_id: int):
    """Right-padded ``input_ids``, ``attention_mask`` and ``labels``, each batch to its own longest row."""

    def collate(examples: list[dict]) -> dict:
        return {**right_padded([e["input_ids"] for e in examples], pad_token_id), "labels": pad([e["labels"] for e in examples], -100)}

    return collate


def unimind_collator(pad_token_id: int, none: int):
    """Examples -> ``generation`` and ``recommendation`` parts, each padded to its own longest row; a part may be missing."""

    def collate(examples: list[dict]) -> dict:
        text = [example for example in examples if "labels" in example]
        recommend = [example for example in examples if "gold" in example]
        batch = {}
        if text:
            batch["generation"] = {**inputs_of(text), "labels": pad([example["labels"] for example in text], -100)}
        if recommend:
            batch["recommendation"] = {
                **(states_of(recommend) if "states" in recommend[0] else inputs_of(recommend)),
                "gold": torch.tensor([example["gold"] for example in recommend]),
                "history": pad([example["history"] for example in recommend], none),
                "history_length": torch.tensor([len(example["history"]) for example in recommend]),
                "helped": torch.tensor([example["helped"] for example in recommend]),
            }
        return batch

    def inputs_of(part: list[dict]) -> dict:
        return right_padded([example["input_ids"] for example in part], pad_token_id)

    def states_of(part: list[dict]) -> dict:
        return {"states": torch.stack([example["states"] for example in part])}

    return collate
