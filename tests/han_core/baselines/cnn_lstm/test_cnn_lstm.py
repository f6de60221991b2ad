"""The two-stream CNN + LSTM against its equations written out, one number after the other, in float64."""

import math

import numpy as np
import pytest
import torch

from han_core.baselines.cnn_lstm.model import (
    CNNLSTM,
    CNNLSTMConfig,
    clip_probabilities,
    frame_losses,
    frame_weights,
)
from han_core.han.config import span_forget_bias
from han_core.nets.sampling import sample_frames

BOTH = ("spatial", "temporal")
CLIPS, FRAMES, CHANNELS, UNITS, CLASSES = 3, 6, 5, 4, 3


@pytest.fixture
def model():
    torch.manual_seed(1)
    made = CNNLSTM(CNNLSTMConfig(BOTH, CLASSES, CHANNELS, UNITS, layers=5, dropout=0.5, forget_bias=1.5))
    made.standardize(torch.rand(2, CHANNELS), 0.5 + torch.rand(2, CHANNELS))
    return made.double().eval()


def features(frames=FRAMES, seed=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {s: torch.randn(CLIPS, frames, CHANNELS, 1, generator=generator, dtype=dtype) for s in BOTH}


LABELS = torch.tensor([2, 0, 1])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def scores_of(model, stream, clip):
    """(T, C) lists: every gate of every cell by itself. ``clip`` (T, D)."""
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    place = model.config.streams.index(stream)
    mean, deviation = model.mean[place].numpy(), model.deviation[place].numpy()
    sequence = [[(x - m) / d for x, m, d in zip(frame, mean, deviation, strict=True)] for frame in clip.numpy()]
    for layer in range(model.config.layers):
        w, b, u = (weights[f"cells.{stream}.{layer}.{n}"] for n in ("input.weight", "input.bias", "recurrent.weight"))
        h, c, above = [0.0] * UNITS, [0.0] * UNITS, []
        for x in sequence:
            rows = []
            for row in range(4 * UNITS):
                total = b[row]
                total += sum(w[row][d] * x[d] for d in range(len(x)))
                total += sum(u[row][j] * h[j] for j in range(UNITS))
                rows.append(total)
            i, f, o, g = (rows[n * UNITS : (n + 1) * UNITS] for n in range(4))
            c = [sigmoid(f[n]) * c[n] + sigmoid(i[n]) * math.tanh(g[n]) for n in range(UNITS)]
            h = [sigmoid(o[n]) * math.tanh(c[n]) for n in range(UNITS)]
            above.append(h)
        sequence = above
    w, b = weights[f"classifiers.{stream}.weight"], weights[f"classifiers.{stream}.bias"]
    return [[b[n] + sum(w[n][j] * h[j] for j in range(UNITS)) for n in range(CLASSES)] for h in sequence]


def softmax(scores):
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def test_scores_loss_and_answer_are_those_of_the_equations(model):
    given = features()
    scores = np.array([[scores_of(model, s, given[s][n, :, :, 0]) for n in range(CLIPS)] for s in BOTH])
    np.testing.assert_allclose(model(given).detach().numpy(), scores, rtol=1e-10, atol=1e-12)
    g = [t / (FRAMES - 1) for t in range(FRAMES)]
    answers = np.zeros((CLIPS, 2, CLASSES))
    loss = 0.0
    for s in range(2):
        for n in range(CLIPS):
            each = [softmax(scores[s, n, t]) for t in range(FRAMES)]
            loss += sum(g[t] * -math.log(each[t][LABELS[n]]) for t in range(FRAMES)) / sum(g)
            answers[n, s] = [sum(g[t] * each[t][k] for t in range(FRAMES)) / sum(g) for k in range(CLASSES)]
    learnt, answer = model.learn(given, LABELS), model.answer(given)
    assert learnt.loss.item() == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(answer.details.detach(), answers, rtol=1e-6)
    np.testing.assert_allclose(answer.probabilities.detach(), answers.mean(1), rtol=1e-6)
    assert learnt.right == (answers.mean(1).argmax(1) == LABELS.numpy()).sum()


def test_the_layers_are_those_of_torch_with_a_bias_of_its_own(model):
    """PyTorch's order of the gates is i, f, g, o."""
    given = features()
    reference = torch.nn.LSTM(CHANNELS, UNITS, 5, batch_first=True).double()
    order = torch.arange(4 * UNITS).view(4, UNITS)[[0, 1, 3, 2]].flatten()
    state = {}
    for layer, cell in enumerate(model.cells["temporal"]):
        w, u, b = cell.parameters_in_order()
        state |= {f"weight_ih_l{layer}": w[order], f"weight_hh_l{layer}": u[order], f"bias_ih_l{layer}": b[order]}
        state |= {f"bias_hh_l{layer}": torch.zeros_like(b)}
    reference.load_state_dict(state)
    x = (given["temporal"].squeeze(3) - model.mean[1]) / model.deviation[1]
    expected = model.classifiers["temporal"](reference(x)[0])
    torch.testing.assert_close(model(given)[1], expected, rtol=1e-10, atol=1e-12)


def test_frames_count_more_and_more_from_0_to_1():
    assert frame_weights(5, torch.tensor([5])).tolist() == [[0, 0.25, 0.5, 0.75, 1]]
    assert frame_weights(5, torch.tensor([3, 2, 1])).tolist() == [[0, 0.5, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert frame_weights(1, torch.tensor([1])).tolist() == [[1]], "a single frame is the first and the last"


def test_a_clip_of_one_frame_is_learnt_from_and_answered(model):
    given = features(frames=1)
    expected = torch.softmax(model(given), dim=3)[:, :, 0].transpose(0, 1)
    torch.testing.assert_close(model.answer(given).details.double(), expected, rtol=1e-6, atol=1e-7)
    assert model.learn(given, LABELS).loss > 0


def test_the_first_frame_is_not_blamed_at_all_and_the_last_most():
    torch.manual_seed(0)
    logits = torch.zeros(2, CLIPS, FRAMES, CLASSES).requires_grad_()
    frame_losses(logits, LABELS, frame_weights(FRAMES, torch.full((CLIPS,), FRAMES))).sum().backward()
    assert torch.equal(logits.grad[:, :, 0], torch.zeros(2, CLIPS, CLASSES))
    blame = logits.grad.abs().sum(dim=(0, 1, 3))
    torch.testing.assert_close(blame / blame[-1], torch.linspace(0, 1, FRAMES))


def test_what_the_first_frame_shows_is_seen_all_the_same(model):
    given = features()
    given["spatial"].requires_grad_()
    model.learn(given, LABELS).loss.backward()
    assert (given["spatial"].grad[:, 0] != 0).any()


def test_padding_changes_nothing(model):
    """Whatever lies behind a clip's last frame: loss, answer and gradient are those of the clip alone."""
    lengths = torch.tensor([2, FRAMES, 1])
    padded = {s: torch.cat([x, 100 * torch.randn(CLIPS, 3, CHANNELS, 1).double()], 1) for s, x in features().items()}
    learnt = model.learn(padded, LABELS, lengths)
    answer = model.answer(padded, lengths)
    learnt.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    alone = 0.0
    for n, length in enumerate(lengths.tolist()):
        clip = {s: x[n : n + 1, :length] for s, x in padded.items()}
        alone = alone + model.learn(clip, LABELS[n : n + 1]).loss
        torch.testing.assert_close(answer.details[n : n + 1], model.answer(clip).details)
    alone.backward()
    torch.testing.assert_close(learnt.loss, alone)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("count", range(1, 12))
def test_short_clips_of_this_project_are_stretched_and_not_padded(count):
    """So every one of their T frames stands for an instant, and its weight is the instant's place in the clip."""
    frames = 12
    taken = sample_frames(count, frames)
    weights = frame_weights(frames, torch.tensor([frames]))[0].numpy()
    place = taken / max(count - 1, 1)
    assert np.abs(place - weights).max() <= (0.5 / (count - 1) if count > 1 else 1) + 1e-6


def test_averages_are_over_frames_and_probabilities_sum_to_one():
    logits = torch.randn(2, CLIPS, FRAMES, CLASSES, generator=torch.Generator().manual_seed(3))
    weights = frame_weights(FRAMES, torch.tensor([FRAMES, 3, 1]))
    found = clip_probabilities(logits, weights)
    assert found.shape == (CLIPS, 2, CLASSES)
    torch.testing.assert_close(found.sum(2), torch.ones(CLIPS, 2))
    torch.testing.assert_close(found[2], torch.softmax(logits[:, 2, 0], dim=1))


def test_every_forget_gate_starts_at_the_bias_and_not_at_twice_that():
    span = span_forget_bias(25, 1, 1)[0]
    assert span == pytest.approx(math.log(24))
    torch.manual_seed(0)
    model = CNNLSTM(CNNLSTMConfig(BOTH, CLASSES, 64, 64, forget_bias=span))
    for stream in BOTH:
        for cell in model.cells[stream]:
            biases = [p for name, p in cell.named_parameters() if name.endswith("bias")]
            assert len(biases) == 1
            i, f, o, g = biases[0].chunk(4)
            assert (f - span).abs().max() <= 1 / 8 + 1e-6, "nn.Linear's own start lies within 1 / sqrt(64)"
            assert torch.cat([i, o, g]).abs().max() <= 1 / 8


def test_dropout_lies_between_the_layers_and_only_while_learning():
    torch.manual_seed(0)
    whole = {s: torch.randn(1, 4, 64, 1) for s in BOTH}
    for layers, differs in ((1, False), (2, True)):
        model = CNNLSTM(CNNLSTMConfig(BOTH, CLASSES, 64, 8, layers=layers, dropout=0.5)).train()
        assert torch.equal(model(whole), model(whole)) != differs
        model.eval()
        assert torch.equal(model(whole), model(whole))


def test_the_streams_share_nothing(model):
    spatial, temporal = model.parts()
    frame_losses(model(features())[:1], LABELS, torch.ones(CLIPS, FRAMES)).sum().backward()
    assert all(parameter.grad.any() for parameter in spatial)
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in temporal)
    assert sorted(map(id, [*spatial, *temporal])) == sorted(map(id, model.parameters())), "each weight is in one part"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("temporal"), "temporal are missing"),
        (lambda f: f.update(spatial=f["spatial"][:, :, :3]), r"must be \(clips, frames, 5, 1\)"),
        (lambda f: f.update(spatial=f["spatial"].expand(-1, -1, -1, 4)), r"must be \(clips, frames, 5, 1\)"),
        (lambda f: f.update(spatial=f["spatial"].squeeze(3)), r"must be \(clips, frames, 5, 1\)"),
        (lambda f: f.update(temporal=f["temporal"][:, 1:]), r"have \(3, 5\) clips and frames, not \(3, 6\)"),
    ],
)
def test_features_of_another_shape_are_refused(model, change, words):
    given = features()
    change(given)
    with pytest.raises(ValueError, match=words):
        model(given)


@pytest.mark.parametrize("change", [{"classes": 0}, {"units": 0}, {"streams": ()}, {"streams": ("spatial",) * 2}])
def test_a_config_that_is_no_model_is_refused(change):
    with pytest.raises(ValueError, match="must"):
        CNNLSTMConfig(**{"streams": BOTH, "classes": 2, **change})
