"""HAN against an independent loop in float64 NumPy, written from the paper's equations."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from han_core.han import model as model_module
from han_core.han.config import HANConfig, span_forget_bias
from han_core.han.model import HAN, every_kth
from han_core.han.variants import VARIANTS

CONFIG = HANConfig(
    streams=("spatial", "temporal"),
    classes=3,
    channels=5,
    regions=6,
    lstm_size=4,
    layers=2,
    skip=2,
    dropout=0.0,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, h, c, w_x, w_h, b):
    """Eq. 2, gate by gate."""
    gates = w_x @ x + w_h @ h + b
    size = len(h)
    i, f, o = (sigmoid(gates[n * size : (n + 1) * size]) for n in range(3))
    g = np.tanh(gates[3 * size :])
    c = f * c + i * g
    return o * np.tanh(c), c


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def numpy_han(weights, config, cubes, length, attention):
    """One clip: cubes {stream: (T, D, R)}. Returns probabilities (C,) and maps (T, R), by loops and nothing else."""

    def cell(stream, layer, x, h, c):
        name = f"cells.{stream}.{layer}"
        return lstm(
            x,
            h,
            c,
            weights[f"{name}.input.weight"],
            weights[f"{name}.recurrent.weight"],
            weights[f"{name}.input.bias"],
        )

    zero = np.zeros(config.lstm_size)
    h = dict.fromkeys(config.streams, zero)
    c = dict.fromkeys(config.streams, zero)
    history = {s: [] for s in config.streams}
    maps = []
    for t in range(length):
        joint = np.concatenate([h[s] for s in config.streams])
        if attention:
            scores = np.array([weights["attention.regions.weight"][i] @ joint for i in range(config.regions)])
            l = softmax(scores)  # noqa: E741, the paper's symbol
        else:
            l = np.full(config.regions, 1 / config.regions)  # noqa: E741
        maps.append(l)
        for n, s in enumerate(config.streams):
            glimpse = sum(l[i] * cubes[s][t][:, i] for i in range(config.regions))
            glimpse = (glimpse - weights["mean"][n]) / weights["deviation"][n]
            h[s], c[s] = cell(s, 0, glimpse, h[s], c[s])
            history[s].append(h[s])
    final = []
    for s in config.streams:
        sequence = history[s]
        final.append(sequence[-1])
        for layer in range(1, config.layers):
            chosen = [sequence[j - 1] for j in range(config.skip, len(sequence) + 1, config.skip)]
            sequence = chosen or [sequence[-1]]
            hidden, memory = zero, zero
            out = []
            for x in sequence:
                hidden, memory = cell(s, layer, x, hidden, memory)
                out.append(hidden)
            sequence = out
            final.append(sequence[-1])
    scores = weights["classifier.weight"] @ np.concatenate(final) + weights["classifier.bias"]
    return softmax(scores), np.array(maps)


def make(config, seed=0):
    torch.manual_seed(seed)
    model = HAN(config).double()
    model.standardize(
        torch.rand(len(config.streams), config.channels).double(),
        0.5 + torch.rand(len(config.streams), config.channels).double(),
    )
    return model


def random_cubes(config, clips, frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        s: torch.rand(clips, frames, config.channels, config.regions, generator=generator, dtype=torch.float64)
        for s in config.streams
    }


def numpy_weights(model):
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("streams", "attention", "layers", "skip", "frames"),
    [
        (("spatial", "temporal"), "location", 2, 2, 7),
        (("spatial", "temporal"), "location", 3, 2, 9),
        (("spatial", "temporal"), "location", 1, 5, 4),
        (("spatial", "temporal"), "location", 2, 5, 3),
        (("spatial", "temporal"), "uniform", 2, 3, 6),
        (("spatial",), "location", 2, 1, 5),
        (("temporal",), "location", 2, 2, 5),
    ],
)
def test_forward_equals_the_equations(streams, attention, layers, skip, frames, fast):
    config = dataclasses.replace(CONFIG, streams=streams, attention=attention, layers=layers, skip=skip)
    model = make(config).eval()
    cubes = random_cubes(config, 3, frames)
    output = model(cubes, fast=fast)
    for clip in range(3):
        probabilities, maps = numpy_han(
            numpy_weights(model),
            config,
            {s: cubes[s][clip].numpy() for s in streams},
            frames,
            attention == "location",
        )
        np.testing.assert_allclose(output.logits[clip].softmax(0).detach().numpy(), probabilities, atol=1e-12)
        np.testing.assert_allclose(output.attention[clip].detach().numpy(), maps, atol=1e-12)


@pytest.mark.parametrize("fast", [True, False])
def test_gradient_equals_finite_differences_of_the_equations(fast):
    """Eq. 6: the gradient of -log p(y | v), for some entries of every parameter."""
    model = make(CONFIG)
    cubes = random_cubes(CONFIG, 1, 5)
    label = 1
    torch.nn.functional.cross_entropy(model(cubes, fast=fast).logits, torch.tensor([label])).backward()
    weights = numpy_weights(model)
    clip = {s: cubes[s][0].numpy() for s in CONFIG.streams}
    step = 1e-6
    for name, parameter in model.named_parameters():
        flat = parameter.grad.flatten()
        for index in {0, flat.numel() // 2, int(flat.abs().argmax())}:
            losses = []
            for sign in (1, -1):
                moved = {**weights, name: weights[name].copy()}
                moved[name].flat[index] += sign * step
                losses.append(-np.log(numpy_han(moved, CONFIG, clip, 5, True)[0][label]))
            assert flat[index].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-8), name


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_frames_past_a_clips_length_change_nothing(length):
    model = make(CONFIG).eval()
    cubes = random_cubes(CONFIG, 2, 6)
    alone = model({s: c[:1, :length] for s, c in cubes.items()})
    padded = model(cubes, torch.tensor([length, 6]))
    torch.testing.assert_close(padded.logits[:1], alone.logits)
    torch.testing.assert_close(padded.attention[:1, :length], alone.attention)
    assert padded.attention[0, length:].abs().sum() == 0


def test_attention_sums_to_one_and_starts_uniform():
    output = make(CONFIG).eval()(random_cubes(CONFIG, 2, 4))
    torch.testing.assert_close(output.attention.sum(2), torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(output.attention[:, 0], torch.full((2, 6), 1 / 6, dtype=torch.float64))


@pytest.mark.parametrize(("steps", "k", "expected"), [(7, 2, [2, 4, 6]), (6, 3, [3, 6]), (5, 5, [5]), (3, 5, [3])])
def test_layer_two_sees_states_k_2k_(steps, k, expected):
    states = torch.arange(1.0, steps + 1).view(1, -1, 1)
    picked, lengths = every_kth(states, torch.tensor([steps]), k)
    assert picked.flatten().tolist() == expected
    assert lengths.item() == len(expected)


def test_permuting_regions_with_w_permutes_the_map():
    model = make(CONFIG).eval()
    cubes = random_cubes(CONFIG, 2, 4)
    before = model(cubes)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    with torch.no_grad():
        model.attention.regions.weight.copy_(model.attention.regions.weight[order])
    after = model({s: c[..., order] for s, c in cubes.items()})
    torch.testing.assert_close(after.attention, before.attention[..., order])
    torch.testing.assert_close(after.logits, before.logits)


def test_the_order_of_frames_matters():
    model = make(CONFIG).eval()
    cubes = random_cubes(CONFIG, 1, 4)
    backwards = model({s: c.flip(1) for s, c in cubes.items()})
    assert (model(cubes).logits - backwards.logits).abs().max() > 1e-4


def test_standardizing_the_glimpse_equals_standardizing_the_cube():
    model = make(CONFIG).eval()
    cubes = random_cubes(CONFIG, 2, 4)
    expected = model(cubes).logits
    whitened = {
        s: (cubes[s] - model.mean[n][:, None]) / model.deviation[n][:, None] for n, s in enumerate(CONFIG.streams)
    }
    model.standardize(torch.zeros_like(model.mean), torch.ones_like(model.deviation))
    torch.testing.assert_close(model(whitened).logits, expected)


def test_the_mean_over_regions_may_be_taken_beforehand_without_attention():
    config = dataclasses.replace(CONFIG, attention="uniform")
    model = make(config).eval()
    cubes = random_cubes(config, 2, 4)
    pooled = {s: c.mean(3, keepdim=True) for s, c in cubes.items()}
    torch.testing.assert_close(model(pooled).logits, model(cubes).logits)


@pytest.mark.parametrize("fast", [True, False])
def test_dropout_leaves_the_recurrent_connections_alone(fast, monkeypatch):
    """With everything but h_{t-1} -> h_t dropped (rate ~ 1), the states still follow the recurrence from the biases."""
    config = dataclasses.replace(CONFIG, dropout=1.0, attention="uniform", layers=1)
    model = make(config).train()
    seen = []
    dropped = model_module._dropped
    noting = lambda values, masks: seen.append(values) or dropped(values, masks)  # noqa: E731
    monkeypatch.setattr(model_module, "_dropped", noting)
    output = model(random_cubes(config, 1, 3), fast=fast)
    torch.testing.assert_close(output.logits[0], model.classifier.bias)
    weights = numpy_weights(model)
    expected = []
    for stream in config.streams:
        h = c = np.zeros(config.lstm_size)
        for _ in range(3):
            name = f"cells.{stream}.0"
            zero = np.zeros(config.channels)
            h, c = lstm(
                zero,
                h,
                c,
                weights[f"{name}.input.weight"],
                weights[f"{name}.recurrent.weight"],
                weights[f"{name}.input.bias"],
            )
        expected.append(h)
    h_f = seen[-1]  # what went into the last dropout, before the classifier
    np.testing.assert_allclose(h_f[0, 0].detach().numpy(), np.concatenate(expected), atol=1e-12)


@pytest.mark.parametrize(
    ("attention", "initial"), list(itertools.product(["location", "content", "uniform"], ["zeros", "mean"]))
)
def test_every_parameter_of_every_option_is_used(attention, initial):
    config = dataclasses.replace(CONFIG, attention=attention, initial_state=initial)
    model = make(config)
    model(random_cubes(config, 2, 5)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_content_attention_follows_a_region_that_moves():
    """Location-only attention cannot follow content: permuting the regions alone leaves its maps as they are."""
    cubes = random_cubes(CONFIG, 1, 1)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    model = make(dataclasses.replace(CONFIG, attention="content")).eval()
    moved = model({s: c[..., order] for s, c in cubes.items()}).attention
    torch.testing.assert_close(moved, model(cubes).attention[..., order])
    assert (moved - model(cubes).attention).abs().max() > 1e-3


def test_wrong_input_is_refused_by_name():
    model = make(CONFIG)
    cubes = random_cubes(CONFIG, 1, 2)
    with pytest.raises(ValueError, match="temporal are missing"):
        model({"spatial": cubes["spatial"]})
    with pytest.raises(ValueError, match=r"spatial cubes must be \(clips, frames, 5, 6\)"):
        model({**cubes, "spatial": cubes["spatial"][..., :3]})
    with pytest.raises(ValueError, match="layers must be at least 1"):
        dataclasses.replace(CONFIG, layers=0)


def test_table_1_has_five_rows():
    assert list(VARIANTS)[:5] == ["han", "no_attention", "fc_features", "spatial", "temporal"]
    assert [len(v.streams) for v in VARIANTS.values()] == [2, 2, 2, 1, 1, 1]


def test_the_baseline_that_attends_is_one_lstm_that_sees_content():
    variant = VARIANTS["soft_attention_lstm"]
    config = dataclasses.replace(CONFIG, streams=variant.streams, **variant.fixed)
    assert (config.attention, config.layers, config.initial_state) == ("content", 1, "mean")
    assert make(config)(random_cubes(config, 2, 3)).logits.shape == (2, 3)


def test_span_forget_bias_remembers_the_whole_sequence():
    first, second = span_forget_bias(frames=25, layers=2, skip=5)
    for bias, steps in ((first, 25), (second, 5)):
        kept = sigmoid(bias)
        assert 1 / (1 - kept) == pytest.approx(steps), "time constant"
    assert span_forget_bias(frames=1, layers=2, skip=5) == (0.0, 0.0)


def test_the_forget_bias_reaches_the_forget_gate_and_no_other():
    torch.manual_seed(0)
    plain = HAN(CONFIG).state_dict()
    torch.manual_seed(0)
    biased = HAN(dataclasses.replace(CONFIG, forget_bias=(3.0, 1.0))).state_dict()
    size = CONFIG.lstm_size
    for name in plain:
        difference = biased[name] - plain[name]
        if name.endswith("input.bias"):
            expected = torch.zeros(4 * size)
            expected[size : 2 * size] = 3.0 if ".0." in name else 1.0
            torch.testing.assert_close(difference, expected)
        else:
            assert difference.abs().sum() == 0, name
    with pytest.raises(ValueError, match="one value for each of 2 layers"):
        dataclasses.replace(CONFIG, forget_bias=(1.0,))
