"""Fine-tuning on a GPU against the same on a CPU: ``pytest -m gpu``."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from han_core.finetune import batches as feed
from han_core.finetune.augment import Augmentation
from han_core.finetune.loop import finetune
from han_core.finetune.samples import training_samples
from han_core.finetune.sgd import SGDSchedule
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes
from tests.small_net import SmallVGG16

pytestmark = pytest.mark.gpu

SCHEDULE = SGDSchedule(iterations=4, batch=8, micro_batch=3, learning_rate=0.01, views=Augmentation())


class Noise:
    """Clips in memory, each of another size; the level of their noise tells the label."""

    labels = (0, 1, 0, 1, 1, 0)

    def __init__(self, kind: str, channels: int) -> None:
        self.kind, self.channels = kind, channels

    def read(self, clip: int, moment: float) -> np.ndarray:
        random = np.random.default_rng([clip, int(moment * 1000)])
        shape = self.channels, 180 + 20 * clip, 260
        return random.integers(100 * self.labels[clip], 100 * self.labels[clip] + 120, shape, np.uint8)


@pytest.mark.parametrize(("kind", "channels"), [("frames", 3), ("flow", 4)])
def test_batches_are_those_of_the_cpu_in_the_same_order(gpu, kind, channels):
    """Within 5e-3 of values up to 255 (flow: up to 470): bilinear sums in float32, in another order."""
    found = []
    for device in (torch.device("cpu"), gpu):
        with ThreadPoolExecutor(2) as pool:
            parts = training_samples(
                pool, Noise(kind, channels), Augmentation(), iterations=range(3), batch=8, micro_batch=3, seed=1
            )
            found.append(
                [
                    (b.iteration, b.number, b.images.cpu(), b.labels.cpu())
                    for b in feed.batches(parts, feed.StillImages(kind, "caffe"), device)
                ]
            )
    assert len(found[0]) == len(found[1]) == 9
    for cpu, cuda in zip(*found, strict=True):
        assert cpu[:2] == cuda[:2]
        torch.testing.assert_close(cuda[2], cpu[2], rtol=0, atol=5e-3)
        assert torch.equal(cuda[3], cpu[3])


def train(
    device: torch.device, schedule: SGDSchedule = SCHEDULE, dropout: tuple = (0, 0), **options: object
) -> tuple[dict, list]:
    """Without dropout, which the two devices draw from different streams."""
    net = SmallVGG16(dropout=dropout)
    curve = finetune(
        net,
        Noise("frames", 3),
        schedule,
        prepare=feed.StillImages("frames", "torchvision"),
        seed=1,
        processes=Processes(device=device),
        **options,
    )
    return {name: value.cpu() for name, value in net.state_dict().items()}, curve


def test_training_equals_the_cpus(gpu):
    """1e-3 relative: four steps of SGD pass on the rounding of float32 sums."""
    cpu, curve = train(torch.device("cpu"))
    cuda, again = train(gpu)
    for name, value in cpu.items():
        torch.testing.assert_close(cuda[name], value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose([s.loss for s in again], [s.loss for s in curve], rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fewer_bits_train_nearly_the_same(gpu, precision):
    """5 %: on a CPU, four steps of this net end 1.6 % apart in float16."""
    _, expected = train(gpu)
    _, found = train(gpu, replace(SCHEDULE, precision=precision))
    np.testing.assert_allclose([s.loss for s in found], [s.loss for s in expected], rtol=0.05)


@pytest.fixture
def refusing():
    """Operations that have no repeatable form are errors."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode(before)


class Killed(BaseException):
    pass


def kill(step: object) -> None:
    if step.iteration == 2:
        raise Killed


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_the_same_bits_each_time_and_where_it_goes_on(gpu, tmp_path, precision):
    schedule, dropout = replace(SCHEDULE, precision=precision, clip_gradient=5.0), (0.5, 0.5)
    whole, curve = train(gpu, schedule, dropout)
    again, same = train(gpu, schedule, dropout)
    assert same == curve
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    with pytest.raises(Killed):
        train(gpu, schedule, dropout, checkpoint=checkpoint, on_step=kill)
    steps: list = []
    resumed, continued = train(gpu, schedule, dropout, checkpoint=checkpoint, on_step=steps.append)
    assert [step.iteration for step in steps] == [3, 4]
    assert continued == curve
    for name, value in whole.items():
        assert torch.equal(again[name], value), name
        assert torch.equal(resumed[name], value), name
