"""The linear-chain CRF against the sum over all sequences of tags, written out."""

from itertools import product

import pytest
import torch

from llmcrs_utils.typical.crf import LinearChainCRF

TAGS, LENGTHS = 3, (4, 1, 3, 2)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def crf():
    crf = LinearChainCRF(TAGS)
    with torch.no_grad():
        for seed, scores in enumerate(crf.parameters()):
            scores.copy_(random(*scores.shape, seed=seed))
    return crf


@pytest.fixture
def batch():
    """Emissions and mask of rows of different lengths."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return random(*mask.shape, TAGS, seed=9), mask


def enumerated(crf, emissions, length):
    """Every sequence of tags of that length, and the log-probability of each."""
    sequences = torch.tensor(list(product(range(TAGS), repeat=length)))
    weights = crf.start[sequences[:, 0]] + crf.end[sequences[:, -1]]
    for position in range(length):
        weights = weights + emissions[position, sequences[:, position]]
    for position in range(1, length):
        weights = weights + crf.transitions[sequences[:, position - 1], sequences[:, position]]
    return sequences.tolist(), weights - weights.exp().sum().log()


def padded(tags, length, filler):
    return torch.tensor([*tags, *[filler] * (length - len(tags))])


def test_every_sequence_has_the_likelihood_that_enumeration_gives(crf, batch):
    emissions, mask = batch
    for row, length in enumerate(LENGTHS):
        sequences, expected = enumerated(crf, emissions[row], length)
        tags = torch.stack([padded(sequence, mask.shape[1], -100) for sequence in sequences])
        # Beside the other rows, whose lengths differ, and by itself.
        for others in ([], [other for other in range(len(LENGTHS)) if other != row]):
            of = torch.tensor([row] * len(sequences) + others)
            all_tags = torch.cat([tags, torch.zeros(len(others), mask.shape[1], dtype=torch.long)])
            found = crf.log_likelihood(emissions[of], all_tags, mask[of])[: len(sequences)]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert expected.max() - expected.min() > 1


def test_the_best_tags_are_those_that_enumeration_finds(crf):
    found = set()
    for seed in range(30):
        emissions = random(len(LENGTHS), max(LENGTHS), TAGS, seed=seed)
        mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        expected = []
        for row, length in zip(emissions, LENGTHS, strict=True):
            sequences, likelihoods = enumerated(crf, row, length)
            expected.append(padded(sequences[likelihoods.argmax()], max(LENGTHS), 0).tolist())
        assert crf.best_tags(emissions, mask).tolist() == expected
        found.update(map(tuple, expected))
    assert len(found) > 15


def test_the_chain_can_overrule_what_each_tag_alone_would_say(crf, batch):
    emissions, mask = batch
    alone = emissions.argmax(dim=2).where(mask, 0)
    assert not torch.equal(crf.best_tags(emissions, mask), alone)
    plain = LinearChainCRF(TAGS)
    assert torch.equal(plain.best_tags(emissions, mask), alone)
    tags = random(*mask.shape, TAGS, seed=3).argmax(dim=2)
    softmax = emissions.log_softmax(dim=2).gather(2, tags[..., None]).squeeze(2).where(mask, 0).sum(dim=1)
    torch.testing.assert_close(plain.log_likelihood(emissions, tags, mask), softmax, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_enumeration_and_none_reaches_the_padding(crf, batch):
    emissions, mask = batch
    tags = torch.stack([padded([2, 0, 1, 1][:length], 4, -100) for length in LENGTHS])
    emissions.requires_grad_(True)
    of = [emissions, *crf.parameters()]
    found = torch.autograd.grad(crf.log_likelihood(emissions, tags, mask).sum(), of)
    total = torch.zeros(())
    for row, row_tags, length in zip(emissions, tags, LENGTHS, strict=True):
        sequences, likelihoods = enumerated(crf, row, length)
        total = total + likelihoods[sequences.index(row_tags[:length].tolist())]
    for mine, other in zip(found, torch.autograd.grad(total, of), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
        assert mine.isfinite().all() and mine.abs().max() > 0.1
    assert torch.equal(found[0][~mask], torch.zeros_like(found[0][~mask]))


def test_what_stands_behind_the_end_changes_nothing(crf, batch):
    emissions, mask = batch
    tags = random(*mask.shape, TAGS, seed=3).argmax(dim=2)
    other_emissions = emissions.where(mask[..., None], 1000.0)
    other_tags = tags.where(mask, (tags + 1) % TAGS)
    torch.testing.assert_close(
        crf.log_likelihood(other_emissions, other_tags, mask), crf.log_likelihood(emissions, tags, mask), rtol=1e-6, atol=0
    )
    assert torch.equal(crf.best_tags(other_emissions, mask), crf.best_tags(emissions, mask))


def test_large_scores_neither_overflow_nor_lose_their_gradient(crf, batch):
    emissions, mask = batch
    emissions = (2000 * emissions).requires_grad_(True)
    tags = crf.best_tags(emissions, mask)
    likelihood = crf.log_likelihood(emissions, tags, mask)
    torch.testing.assert_close(likelihood, torch.zeros(len(LENGTHS)), rtol=0, atol=2e-3)  # float32 at scores of thousands
    crf.log_likelihood(emissions, (tags + 1) % TAGS, mask).sum().backward()
    assert emissions.grad.isfinite().all() and emissions.grad.abs().max() > 0.5


def test_half_precision_scores_are_summed_in_full_precision(crf, batch):
    emissions, mask = batch
    tags = random(*mask.shape, TAGS, seed=3).argmax(dim=2)
    half = emissions.bfloat16()
    likelihood = crf.bfloat16().float().log_likelihood(half, tags, mask)
    assert likelihood.dtype == torch.float32
    torch.testing.assert_close(likelihood, crf.log_likelihood(half.float(), tags, mask), rtol=1e-6, atol=0)


def test_an_empty_row_is_certain_and_a_batch_of_them_too(crf, batch):
    emissions, mask = batch
    tags = torch.zeros(mask.shape, dtype=torch.long)
    mask = mask.clone()
    mask[1] = False
    emissions.requires_grad_(True)
    likelihood = crf.log_likelihood(emissions, tags, mask)
    likelihood.sum().backward()
    assert likelihood[1] == 0 and likelihood[[0, 2, 3]].max() < -0.1
    assert emissions.grad.isfinite().all() and not emissions.grad[1].any() and not crf.best_tags(emissions, mask)[1].any()
    none = torch.zeros(2, 0, TAGS), torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.bool)
    assert crf.log_likelihood(*none).tolist() == [0, 0] and crf.best_tags(none[0], none[2]).shape == (2, 0)


def test_it_learns_an_order_that_no_emission_tells():
    """Tags go round 0, 1, 2, 0 ... and end on 2; all emissions are equal."""
    crf = LinearChainCRF(TAGS)
    tags = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 0, 0]])
    mask = torch.arange(6) < torch.tensor([6, 3])[:, None]
    emissions = torch.zeros(2, 6, TAGS)
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-crf.log_likelihood(emissions, tags, mask).mean()).backward()
        optimizer.step()
    assert torch.equal(crf.best_tags(emissions, mask), tags.where(mask, 0))
    assert crf.log_likelihood(emissions, tags, mask).exp().min() > 0.8
    assert crf.best_tags(torch.zeros(1, 9, TAGS), torch.ones(1, 9, dtype=torch.bool)).tolist() == [[0, 1, 2] * 3]
