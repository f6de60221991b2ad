"""The training loop: its arithmetic, what it draws, and that it learns."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from han_core.clipfile.writer import ClipFileWriter
from han_core.finetune import batches as feed
from han_core.finetune import loop as module
from han_core.finetune.augment import Augmentation
from han_core.finetune.loop import FinetuneError, finetune
from han_core.finetune.samples import MicroBatch, draw_sample, training_samples
from han_core.finetune.sgd import SGDSchedule, accumulate, learning_rate, make_optimizer
from han_core.nets.clip_inputs import FlowClips, FrameClips
from han_core.nets.vgg16 import LAYERS, LEARNT, VGG16
from han_core.nets.weights import initial_net

PLAIN = Augmentation(scales=(1.0,), corner_crops=False, flip=False)
FRAMES = feed.StillImages("frames", "torchvision")


class Memory:
    """Training clips in memory; each frame has one colour, by its label."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def read(self, clip: int, moment: float) -> np.ndarray:
        frame = np.zeros((3, 32, 32), np.uint8)
        frame[self.labels[clip] % 3] = 200 + clip
        return frame


CLIPS = Memory([0, 1, 0, 1])


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """A VGG-16 at 224x224 takes a second per image in training; nothing here depends on the size."""
    whole = feed.apply_views
    monkeypatch.setattr(feed, "apply_views", lambda *args, **options: whole(*args, **options, size=32))


def net(**options: object) -> VGG16:
    return initial_net("random", **({"classes": 2, "fc_size": 8, "dropout": (0.0, 0.0)} | options))


def train(
    model: VGG16,
    schedule: SGDSchedule,
    clips: Memory = CLIPS,
    prepare: feed.Prepare = FRAMES,
    **options: object,
) -> list[module.Step]:
    steps: list[module.Step] = []
    finetune(model, clips, schedule, prepare=prepare, seed=1, on_step=steps.append, **options)
    return steps


def weights(model: VGG16) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(first: dict, second: dict) -> None:
    assert all(torch.equal(first[name], second[name]) for name in first)


def with_biases_of_a_half(model: VGG16) -> None:
    """Random nets have no biases, which would hide their decay."""
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(value, 0.5)


def test_gradients_of_4_times_8_equal_1_times_32():
    """In float64, so that only a wrong weighting of the parts can differ."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.standard_normal((32, 3, 8, 8)))
    labels = torch.from_numpy(random.integers(0, 2, 32))
    found = []
    for size in (32, 8, 12):  # 12: the last part is smaller
        model.zero_grad()
        parts = [
            accumulate(model, images[start : start + size], labels[start : start + size], 32)
            for start in range(0, 32, size)
        ]
        totals = [sum(values) for values in zip(*parts, strict=True)]
        found.append(([value.grad.clone() for value in model.parameters()], totals))
    for gradients, totals in found[1:]:
        torch.testing.assert_close(gradients, found[0][0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(totals, found[0][1])


def test_the_effective_batch_does_not_depend_on_the_micro_batch():
    results = []
    for micro in (4, 2, 3):
        model = net()
        train(model, SGDSchedule(iterations=2, batch=4, micro_batch=micro, learning_rate=0.01, views=PLAIN))
        results.append(weights(model))
    for result in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(result[name], value, rtol=1e-4, atol=1e-6)


def test_it_learns_what_can_be_learnt():
    steps = train(net(), SGDSchedule(iterations=12, batch=4, micro_batch=4, learning_rate=0.01, views=PLAIN))
    assert [step.iteration for step in steps] == list(range(1, 13))
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert steps[-1].top1 > 0.5


def test_one_step_is_sgd_with_momentum_decay_and_twice_the_rate_for_biases():
    schedule = SGDSchedule(
        iterations=2, batch=4, micro_batch=4, learning_rate=0.01, momentum=0.8, weight_decay=0.1, views=PLAIN
    )
    model, twin = net(), net()
    with_biases_of_a_half(model)
    with_biases_of_a_half(twin)
    train(model, schedule)
    speed: dict[str, torch.Tensor] = {}
    for iteration in range(2):
        samples = tuple(draw_sample(CLIPS, PLAIN, 4, 1, iteration, place) for place in range(4))
        parts = iter([MicroBatch(iteration, 0, samples)])
        (batch,) = feed.batches(parts, FRAMES, torch.device("cpu"))
        twin.zero_grad()
        nn.functional.cross_entropy(twin(batch.images), batch.labels).backward()
        with torch.no_grad():
            for name, value in twin.named_parameters():
                bias = name.endswith("bias")
                change = value.grad + (0 if bias else 0.1) * value
                speed[name] = 0.8 * speed.get(name, 0) + change
                value -= (0.02 if bias else 0.01) * speed[name]
    for name, value in weights(twin).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-4, atol=1e-6)


def test_layers_and_biases_have_rates_and_decay_of_their_own():
    """One step from a gradient of 1 everywhere moves each value by its rate times 1 + its decay times the value."""
    rates = {"conv": 0.5, "conv5": 0.25, "conv5_3": 2, "fc8": 10}
    schedule = SGDSchedule(
        iterations=1, learning_rate=0.01, momentum=0, weight_decay=0.1, rates=rates, bias_rate=3, bias_decay=0.5
    )
    model = net()
    with_biases_of_a_half(model)
    model.freeze("conv1_1")
    optimizer = make_optimizer(model, schedule)
    before = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate * group["rate"]
        for value in group["params"]:
            value.grad = torch.ones_like(value)
    optimizer.step()
    multiples = {"features.0": 0, "features.2": 0.5, "features.24": 0.25, "features.28": 2}
    multiples |= {"classifier.0": 1, "classifier.3": 1, "classifier.6": 10}
    for layer, multiple in multiples.items():
        for kind, rate, decay in (("weight", 0.01 * multiple, 0.1), ("bias", 0.03 * multiple, 0.05)):
            old = before[f"{layer}.{kind}"]
            torch.testing.assert_close(model.state_dict()[f"{layer}.{kind}"], old - rate * (1 + decay * old))


def test_each_layer_with_weights_has_a_name():
    modules = {name.rsplit(".", 1)[0] for name, _ in net().named_parameters()}
    assert set(LEARNT) == modules
    assert set(LEARNT.values()) == {layer for layer in LAYERS if not layer.startswith("pool")} | {"fc8"}


def test_learning_rate_steps_and_warm_up():
    schedule = SGDSchedule(iterations=30, learning_rate=0.4, steps=(10, 20), gamma=0.5, warmup=4)
    found = [learning_rate(schedule, i) for i in (0, 1, 2, 3, 4, 9, 10, 19, 20)]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1])


def test_gradients_are_clipped_by_their_whole_norm():
    schedule = SGDSchedule(
        iterations=1,
        batch=4,
        micro_batch=4,
        learning_rate=1.0,
        momentum=0,
        weight_decay=0,
        clip_gradient=0.01,
        views=PLAIN,
    )
    model = net()
    before = weights(model)
    train(model, schedule)
    after = weights(model)
    rates = {name: 2.0 if name.endswith("bias") else 1.0 for name in before}
    norm = sum(float(((after[n] - before[n]) / rates[n]).square().sum()) for n in before) ** 0.5
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_frozen_layers_stay_and_keep_no_graph():
    model = net()
    before = weights(model)
    seen = {}
    model.features[23].register_forward_hook(lambda *call: seen.update(upto=call[2].requires_grad))
    model.features[24].register_forward_hook(lambda *call: seen.update(beyond=call[2].requires_grad))
    schedule = SGDSchedule(iterations=2, batch=4, micro_batch=4, learning_rate=0.1, frozen="pool4", views=PLAIN)
    train(model, schedule)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    trained = {f"features.{i}.weight" for i in (24, 26, 28)} | {f"classifier.{i}.weight" for i in (0, 3, 6)}
    assert {name for name in changed if name.endswith("weight")} == trained
    assert seen == {"upto": False, "beyond": True}
    assert sum(len(group["params"]) for group in make_optimizer(model, schedule).param_groups) == 12


def test_dropout_is_on_while_training_and_off_after():
    model = net(dropout=(0.9, 0.9))
    rates: list[bool] = []
    model.classifier[2].register_forward_hook(lambda module, *_: rates.append(module.training))
    train(model, SGDSchedule(iterations=1, batch=2, micro_batch=2, views=PLAIN))
    assert rates == [True]
    assert not model.training
    assert (model.classifier[2].p, model.classifier[5].p) == (0.9, 0.9)


def test_two_runs_and_any_number_of_readers_give_the_same_bits():
    schedule = SGDSchedule(iterations=3, batch=4, micro_batch=2, learning_rate=0.01)
    results = []
    for readers in (1, 1, 3):
        model = net(dropout=(0.5, 0.5))
        torch.rand(readers)  # the caller's random state must not matter
        results.append((train(model, schedule, readers=readers), weights(model)))
    for steps, result in results[1:]:
        assert steps == results[0][0]
        assert_equal(result, results[0][1])
    other = net(dropout=(0.5, 0.5))
    finetune(other, CLIPS, schedule, prepare=FRAMES, seed=2)
    assert not torch.equal(weights(other)["features.0.weight"], results[0][1]["features.0.weight"])


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_callers_settings_are_left_as_they_were(deterministic):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        train(net(), SGDSchedule(iterations=1, batch=2, micro_batch=2))
        assert torch.equal(torch.rand(3), expected)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
    finally:
        torch.use_deterministic_algorithms(before)


def test_every_clip_is_drawn_once_a_pass_in_a_new_order():
    clips = Memory(list(range(10)))
    labels = [[draw_sample(clips, PLAIN, 5, 7, i, place).label for place in range(5)] for i in range(4)]
    assert sorted(labels[0] + labels[1]) == sorted(labels[2] + labels[3]) == list(range(10))
    assert labels[0] + labels[1] != labels[2] + labels[3]


def test_draws_differ_between_samples_and_iterations():
    class Moments(Memory):
        def read(self, clip: int, moment: float) -> np.ndarray:
            return np.full((3, 40, 40), int(moment * 255), np.uint8)

    clips = Moments([0] * 3)
    samples = [draw_sample(clips, Augmentation(), 3, 1, i, place) for i in range(9) for place in range(3)]
    assert len({int(sample.pixels[0, 0, 0]) for sample in samples}) > 20
    assert len({sample.view for sample in samples}) > 10
    again = draw_sample(clips, Augmentation(), 3, 1, 4, 2)
    assert again.view == samples[4 * 3 + 2].view


def test_a_loss_that_is_not_finite_stops_with_advice():
    schedule = SGDSchedule(iterations=30, batch=4, micro_batch=4, learning_rate=1e9, views=PLAIN)
    with pytest.raises(FinetuneError, match="lower learning_rate, or set warmup or clip_gradient"):
        train(net(), schedule)


def test_too_little_memory_names_the_setting_that_helps(monkeypatch):
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(module, "train_step", full)
    with pytest.raises(FinetuneError, match=r"no memory for 2 samples at once: lower micro_batch; .* stays 4"):
        train(net(), SGDSchedule(iterations=1, batch=4, micro_batch=2))


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(FinetuneError, match="no training clips"):
        train(net(), SGDSchedule(iterations=1), Memory([]))


# Clip files


def frames_file(path: Path, count: int) -> Path:
    with ClipFileWriter(path, kind="frames", clip=path.stem, fingerprint="f" * 64) as file:
        images = file.images("frames")
        for i in range(count):
            image = np.zeros((24, 32, 3), np.uint8)
            image[..., 2] = 10 * i  # OpenCV's red
            images.append(cv2.imencode(".png", image)[1])
    return path


def flow_file(path: Path, count: int) -> Path:
    with ClipFileWriter(path, kind="flow", clip=path.stem, fingerprint="f" * 64) as file:
        for name, offset in (("x", 0), ("y", 100)):
            images = file.images(name)
            for i in range(count):
                images.append(cv2.imencode(".png", np.full((24, 32), offset + i, np.uint8))[1])
    return path


def test_frames_are_rgb_and_span_the_clip(tmp_path):
    clips = FrameClips([frames_file(tmp_path / "a.h5", 5)], [0])
    frames = [clips.read(0, moment) for moment in (0.0, 0.39, 0.41, 0.999)]
    assert [frame.shape for frame in frames] == [(3, 24, 32)] * 4
    assert [frame[:, 3, 3].tolist() for frame in frames] == [[0, 0, 0], [10, 0, 0], [20, 0, 0], [40, 0, 0]]


def test_stacks_lie_around_the_frame_x_before_y(tmp_path):
    clips = FlowClips([flow_file(tmp_path / "a.h5", 9)], [0], stack=4)  # frames 0 to 9
    middle, first, last = (clips.read(0, moment)[:, 3, 3].tolist() for moment in (0.55, 0.0, 0.999))
    assert middle == [3, 103, 4, 104, 5, 105, 6, 106]
    assert first == [0, 100, 0, 100, 0, 100, 1, 101]
    assert last == [7, 107, 8, 108, 8, 108, 8, 108]


def test_training_on_stacks(tmp_path):
    files = [flow_file(tmp_path / f"{i}.h5", 3 + i) for i in range(2)]
    prepare = feed.StillImages("flow", "torchvision")
    schedule = SGDSchedule(iterations=1, batch=2, micro_batch=2)
    steps = train(net(in_channels=4), schedule, FlowClips(files, [0, 1], 2), prepare)
    assert len(steps) == 1


class Rendezvous:
    """Clips of which none can be read before so many are being read at once."""

    labels = (0, 1)

    def __init__(self, readers: int) -> None:
        self.readers = threading.Barrier(readers, timeout=10)

    def read(self, clip: int, moment: float) -> np.ndarray:
        self.readers.wait()
        return np.zeros((3, 40, 50), np.uint8)


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
def test_every_reader_has_something_to_read_however_small_the_micro_batches_are(micro_batch):
    with ThreadPoolExecutor(16) as pool:
        parts = training_samples(
            pool,
            Rendezvous(16),
            Augmentation(),
            iterations=range(4),
            batch=64,
            micro_batch=micro_batch,
            seed=1,
            readers=16,
        )
        assert len(next(parts).samples) == micro_batch
        for _ in parts:
            pass
