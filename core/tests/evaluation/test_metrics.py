"""Token metrics against brute force in float64."""

from __future__ import annotations

import math

import pytest
import torch
from anyblock.errors import ExecutionError, InputError
from anyblock.evaluation.metrics import TokenMetrics, perplexity
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=50)


def brute_force(teacher, child, labels):
    """Walk over every position in plain Python floats."""
    kl, loss, teacher_loss, top1, top5, tokens, predicted = 0.0, 0.0, 0.0, 0, 0, 0, 0
    for b in range(labels.shape[0]):
        for t in range(labels.shape[1]):
            p, q = (x[b, t].double().softmax(0).tolist() for x in (teacher, child))
            if labels[b, t] != -100:
                tokens += 1
                kl += sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True) if pi > 0)
                best = p.index(max(p))
                above = int((child[b, t] > child[b, t, best]).sum())
                top1, top5 = top1 + (above < 1), top5 + (above < 5)
            if t + 1 < labels.shape[1] and labels[b, t + 1] != -100:
                predicted += 1
                loss -= math.log(q[labels[b, t + 1]])
                teacher_loss -= math.log(p[labels[b, t + 1]])
    return tokens, predicted, loss / predicted, teacher_loss / predicted, kl / tokens, top1 / tokens, top5 / tokens


def draw(seed, batch=2, length=5, vocabulary=17, dtype=torch.float64, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(batch, length, vocabulary, generator=generator, dtype=dtype) * scale
    child = teacher + torch.randn(teacher.shape, generator=generator, dtype=dtype)
    return teacher, child, torch.randint(0, vocabulary, (batch, length), generator=generator)


def measured(teacher, child, labels, **options):
    metrics = TokenMetrics()
    metrics.update(teacher, child, labels, **options)
    return metrics.result()


def as_tuple(s):
    return s.tokens, s.predicted, s.loss, s.teacher_loss, s.kl, s.top1, s.top5


@quick
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 6), st.integers(6, 40), st.integers(1, 200))
def test_equals_brute_force_for_every_chunk_size(seed, batch, length, vocabulary, chunk_elements):
    teacher, child, labels = draw(seed, batch, length, vocabulary)
    scores = measured(teacher, child, labels, chunk_elements=chunk_elements)
    assert as_tuple(scores) == pytest.approx(brute_force(teacher, child, labels), rel=1e-12)


@quick
@given(st.integers(0, 10_000), st.lists(st.booleans(), min_size=10, max_size=10))
def test_ignored_labels_are_context_only(seed, ignored):
    teacher, child, labels = draw(seed)
    labels[torch.tensor(ignored).view(2, 5)] = -100
    if bool((labels[:, 1:] == -100).all()):
        with pytest.raises(InputError, match="no tokens"):
            measured(teacher, child, labels)
        return
    assert as_tuple(measured(teacher, child, labels)) == pytest.approx(brute_force(teacher, child, labels), rel=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-5)])
def test_low_precision_logits_are_read_in_float32(dtype, tolerance):
    teacher, child, labels = draw(3, 2, 50, 300, dtype=torch.float32)
    teacher, child = teacher.to(dtype), child.to(dtype)
    scores = measured(teacher, child, labels)
    assert as_tuple(scores) == pytest.approx(brute_force(teacher, child, labels), rel=tolerance)


def test_equal_models_do_not_diverge():
    teacher, _, labels = draw(1, dtype=torch.float32)
    scores = measured(teacher, teacher.clone(), labels)
    assert (scores.kl, scores.top1, scores.top5) == (0.0, 1.0, 1.0)
    assert scores.loss == scores.teacher_loss


def test_without_a_teacher_only_the_loss_is_measured():
    teacher, child, labels = draw(2)
    alone, both = measured(None, child, labels), measured(teacher, child, labels)
    assert alone.loss == both.loss
    assert (alone.teacher_loss, alone.kl, alone.top1, alone.top5) == (None, None, None, None)
    assert alone.perplexity == math.exp(alone.loss)


def test_impossible_tokens_of_both_models_do_not_count():
    """A padded vocabulary may have logits of -inf."""
    teacher, child, labels = draw(4)
    padding = torch.full((2, 5, 3), -math.inf, dtype=torch.float64)
    padded = measured(torch.cat([teacher, padding], 2), torch.cat([child, padding], 2), labels)
    assert as_tuple(padded) == pytest.approx(as_tuple(measured(teacher, child, labels)), rel=1e-12)


def test_ties_count_as_agreement():
    teacher = torch.zeros(1, 2, 8)
    teacher[..., 6] = 1.0
    scores = measured(teacher, torch.zeros(1, 2, 8), torch.zeros(1, 2, dtype=torch.long))
    assert (scores.top1, scores.top5) == (1.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("who", ["teacher", "child"])
def test_non_finite_logits_are_located(value, who):
    teacher, child, labels = draw(5, batch=3, length=4)
    {"teacher": teacher, "child": child}[who][1, 2, 7] = value
    with pytest.raises(ExecutionError, match=rf"the {who}'s logits are not finite at batch 9, sequence 1, position 2"):
        measured(teacher, child, labels, where="batch 9", chunk_elements=40)


def test_a_token_that_only_the_child_rules_out_is_located():
    teacher, child, labels = draw(6)
    labels.fill_(0)
    child[1, 3, 9] = -math.inf
    with pytest.raises(ExecutionError, match=r"KL\(teacher \|\| child\) is not finite at sequence 1, position 3"):
        measured(teacher, child, labels)


def test_a_failed_update_adds_nothing_half():
    teacher, child, labels = draw(6)
    child[0, 0] = math.nan
    metrics = TokenMetrics()
    with pytest.raises(ExecutionError):
        metrics.update(teacher, child, labels)
    assert metrics == TokenMetrics()


def test_different_vocabularies_are_refused():
    teacher, child, labels = draw(7)
    with pytest.raises(InputError, match="vocabulary of 17 tokens and the child one of 16"):
        measured(teacher, child[..., :16], labels)


def test_shapes_are_checked():
    teacher, child, labels = draw(8)
    with pytest.raises(InputError, match="labels of shape"):
        measured(teacher, child, labels[:, :4])
    with pytest.raises(InputError, match="teacher's logits"):
        measured(teacher[:1], child, labels)


def test_a_teacher_for_some_of_the_data_only_is_refused():
    teacher, child, labels = draw(9)
    metrics = TokenMetrics()
    metrics.update(teacher, child, labels)
    metrics.update(None, child, labels)
    with pytest.raises(InputError, match="10 of 20 tokens have a teacher"):
        metrics.result()


def test_inputs_are_left_alone():
    teacher, child, labels = draw(10)
    before = teacher.clone(), child.clone(), labels.clone()
    measured(teacher.requires_grad_(), child.requires_grad_(), labels)
    assert all(torch.equal(one, other) for one, other in zip(before, (teacher, child, labels), strict=True))


def test_memory_is_that_of_a_chunk():
    """No operation of an update may allocate a tensor with as many elements as the logits have."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if not func.is_view:
                largest = max([largest, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
            return result

    teacher, child, labels = draw(11, 4, 32, 100, dtype=torch.bfloat16)
    with Watch():
        measured(teacher, child, labels, chunk_elements=800)
    assert largest == 800


def test_perplexity_overflows_to_infinity():
    assert perplexity(0.0) == 1.0
    assert perplexity(1000.0) == math.inf
