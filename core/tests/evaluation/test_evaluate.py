"""`evaluate` on tiny real models."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager

import pytest
import torch
from anyblock.errors import ConfigError, ExecutionError, InputError, UsageError
from anyblock.evaluation.evaluate import evaluate
from anyblock.evaluation.result import EvaluationResult


def tiny_llama(seed=0, vocabulary=258, tie=False):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tie,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {index} of a little text\n" for index in range(20)))
    return path


def expected_loss(model, ids):
    with torch.no_grad():
        losses = [float(model(input_ids=row[None], labels=row[None]).loss) for row in ids]
    return sum(losses) / len(losses)


def test_loss_and_perplexity_are_those_of_transformers(model):
    ids = torch.randint(0, 258, (5, 16), generator=torch.Generator().manual_seed(1))
    result = evaluate(model, data=ids, batch_size=2)
    assert result.loss == pytest.approx(expected_loss(model, ids), rel=1e-5)
    assert result.perplexity == math.exp(result.loss)
    assert (result.tokens, result.predicted, result.block_size) == (80, 75, 16)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.bytes == 4 * result.parameters
    assert result.tokens_per_second > 0
    assert result.teacher is result.kl_per_token is result.top1 is None


def losses_of(model, tokens, front, size, stride):
    """The negative log-likelihoods of all tokens by the definition: each window is `front` and `size` tokens."""
    starts = [*range(0, len(tokens) - size, stride), len(tokens) - size]
    losses, done = [], 0
    with torch.no_grad():
        for start in starts:
            ids = torch.cat([torch.tensor(front), tokens[start : start + size]])
            scores = model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            first = max(done, start) if front else max(done, start + 1)
            losses += [-float(scores[len(front) + t - start - 1, tokens[t]]) for t in range(first, start + size)]
            done = start + size
    return losses


@pytest.mark.parametrize("stride", [None, 31, 7])
def test_bos_is_in_front_of_every_window_and_never_predicted(model, text_file, tokenizer, stride):
    tokens = torch.tensor(tokenizer(text_file.read_text(), add_special_tokens=False, verbose=False)["input_ids"])
    result = evaluate(model, data=text_file, tokenizer=tokenizer, block_size=32, stride=stride)
    losses = losses_of(model, tokens, [0], 31, stride or 31)
    assert len(losses) == result.predicted == result.tokens == len(tokens)
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert result.bos is True
    assert result.windows.endswith(", BOS in front of each")
    child = evaluate(
        tiny_llama(seed=1), data=text_file, tokenizer=tokenizer, block_size=32, stride=stride, teacher=model
    )
    assert (child.tokens, child.predicted) == (len(tokens), len(tokens))
    assert child.teacher.loss == pytest.approx(result.loss, rel=1e-5)


def test_without_bos_text_is_cut_into_blocks(model, text_file, make_tokenizer):
    tokenizer = make_tokenizer(bos=False, eos=True)
    ids = torch.tensor(tokenizer(text_file.read_text(), add_special_tokens=False, verbose=False)["input_ids"])
    blocks = ids[: len(ids) // 32 * 32].view(-1, 32)
    result = evaluate(model, data=text_file, tokenizer=tokenizer, block_size=32)
    assert result.loss == pytest.approx(expected_loss(model, blocks), rel=1e-5)
    assert result.bos is False
    assert result.windows.endswith("without overlap, no BOS in front")
    given = evaluate(model, data=ids, block_size=32)
    assert (given.data_key, given.bos) == (result.data_key, None)
    assert given.windows.endswith("without overlap")


def test_how_much_of_a_text_is_used(model, text_file, tokenizer):
    assert evaluate(model, data=text_file, tokenizer=tokenizer).block_size == 64  # the model's own context
    result = evaluate(model, data=text_file, tokenizer=tokenizer, max_tokens=100, block_size=32)
    assert (result.tokens, result.predicted) == (100, 100)


def test_short_text_needs_no_block_size(model, tmp_path, tokenizer):
    path = tmp_path / "short.txt"
    path.write_text("short")
    result = evaluate(model, data=path, tokenizer=tokenizer)
    assert (result.block_size, result.predicted) == (6, 5)


def test_a_token_without_an_embedding_is_named(model, text_file, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["little"])
    with pytest.raises(InputError, match=r"token id 258 \('little'\) is outside the model's vocabulary of 258"):
        evaluate(model, data=text_file, tokenizer=tokenizer)


def test_strided_loss_predicts_every_token_once_with_its_window(model):
    tokens = torch.randint(0, 258, (21,), generator=torch.Generator().manual_seed(2))
    result = evaluate(model, data=tokens, block_size=8, stride=3)
    starts = [0, 3, 6, 9, 12, 13]
    losses, done = [], 1
    with torch.no_grad():
        for start in starts:
            scores = model(input_ids=tokens[None, start : start + 8]).logits[0].double().log_softmax(-1)
            losses += [-float(scores[t - start - 1, tokens[t]]) for t in range(done, start + 8)]
            done = start + 8
    assert len(losses) == result.predicted == 20
    assert result.loss == pytest.approx(sum(losses) / 20, rel=1e-5)


def test_teacher_and_child(model):
    child = tiny_llama(seed=1, tie=True)
    ids = torch.randint(0, 258, (4, 16), generator=torch.Generator().manual_seed(3))
    result = evaluate(child, teacher=model, data=ids, batch_size=3)
    with torch.no_grad():
        p, q = (m(input_ids=ids).logits.double().log_softmax(-1) for m in (model, child))
    best = p.argmax(-1, keepdim=True)
    assert result.kl_per_token == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-5)
    assert result.top1 == float((q.argmax(-1, keepdim=True) == best).double().mean())
    assert result.top5 == float((q.topk(5).indices == best).any(-1).double().mean())
    assert result.teacher.loss == pytest.approx(evaluate(model, data=ids).loss, rel=1e-6)
    assert result.parameters == sum(p.numel() for p in child.parameters()) < result.teacher.parameters


def test_a_model_equals_itself(model):
    ids = torch.randint(0, 258, (2, 16), generator=torch.Generator().manual_seed(4))
    result = evaluate(model, teacher=model, data=ids)
    assert (result.kl_per_token, result.top1, result.top5) == (0.0, 1.0, 1.0)


def test_result_survives_json(model):
    ids = torch.randint(0, 258, (2, 16), generator=torch.Generator().manual_seed(5))
    for result in (evaluate(model, data=ids), evaluate(model, teacher=model, data=ids)):
        data = json.loads(json.dumps(result.to_dict()))
        assert EvaluationResult.from_dict(data) == result
        assert data["child"]["perplexity"] == result.perplexity
    with pytest.raises(ConfigError, match="not an evaluation result"):
        EvaluationResult.from_dict({"child": data["child"], "surprise": 1})


def test_different_vocabularies(model):
    with pytest.raises(InputError, match="vocabulary of 300 tokens and the child one of 258"):
        evaluate(model, teacher=tiny_llama(vocabulary=300), data=torch.zeros(1, 4, dtype=torch.long))


def test_tokens_of_another_tokenizer(model):
    with pytest.raises(InputError, match="token id 258 is outside the model's vocabulary of 258"):
        evaluate(model, data=torch.tensor([[1, 258]]))


def test_non_finite_weights_are_located():
    broken = tiny_llama()
    with torch.no_grad():
        broken.model.embed_tokens.weight[7] = math.nan
    ids = torch.ones(4, 8, dtype=torch.long)
    ids[3, 5] = 7
    with pytest.raises(ExecutionError, match="the logits are not finite at batch 1, sequence 1, position"):
        evaluate(broken, data=ids, batch_size=2)


def test_a_loaded_model_needs_a_tokenizer_for_text(model, text_file):
    with pytest.raises(UsageError, match="needs a tokenizer"):
        evaluate(model, data=text_file)


def test_block_size_and_sequences_exclude_each_other(model):
    with pytest.raises(UsageError, match="block_size and stride"):
        evaluate(model, data=torch.zeros(1, 4, dtype=torch.long), stride=2)


def test_model_is_left_in_the_mode_it_was_in(model):
    model.train()
    try:
        evaluate(model, data=torch.ones(1, 4, dtype=torch.long))
        assert model.training
    finally:
        model.eval()


def test_progress_is_in_tokens(model):
    class Recorder:
        def __init__(self):
            self.tasks, self.done, self.notes = [], 0, []

        @contextmanager
        def task(self, description, *, total, unit):
            self.tasks.append((total, unit))
            yield self.add

        def add(self, units):
            self.done += units

        def note(self, message):
            self.notes.append(message)

    recorder = Recorder()
    evaluate(model, data=torch.ones(3, 70, dtype=torch.long), batch_size=2, progress=recorder)
    assert recorder.tasks == [(210, "tokens")]
    assert recorder.done == 210
    assert "70 tokens exceed the context of 64" in recorder.notes[0]


@pytest.mark.shared
def test_a_path_is_loaded_with_its_tokenizer(shared):
    pytest.importorskip("anyblock.checkpoint.subblocks")
    path = shared / "models" / "stories260k"
    result = evaluate(
        path, data=shared / "text" / "tinyshakespeare.txt", block_size=256, max_tokens=2_048, teacher=path
    )
    assert result.tokens == 2_048
    assert result.kl_per_token == 0.0
    assert 2.0 < result.loss < 6.0
