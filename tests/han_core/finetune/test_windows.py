"""The loop on Slow Fusion: windows of frames instead of images, everything else as for a VGG-16."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as spawned

from han_core.finetune.loop import Step, finetune
from han_core.finetune.samples import draw_sample
from han_core.finetune.sgd import SGDSchedule, make_optimizer
from han_core.nets.slow_fusion.inputs import SquareViews, prepare
from han_core.nets.slow_fusion.net import LAYERS
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes, processes
from tests.small_slow_fusion import SmallSlowFusion

VIEWS = SquareViews(flip=False)
SCHEDULE = SGDSchedule(
    iterations=4, batch=4, micro_batch=2, learning_rate=0.01, bias_rate=1, bias_decay=1, views=SquareViews()
)


class Fades:
    """Clips in memory that grow darker (0) or brighter (1), with noise, from any brightness.

    Of a single frame both look the same.
    """

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def read(self, clip: int, moment: float) -> np.ndarray:
        random = np.random.default_rng([clip, int(moment * 1000)])
        slope = 20 if self.labels[clip] else -20
        level = random.integers(95, 145) + slope * (np.arange(10) - 4.5)
        frames = level[:, None, None, None] + random.normal(0, 10, (10, 3, 40, 48))
        return frames.clip(0, 255).astype(np.uint8).reshape(30, 40, 48)


CLIPS = Fades([0, 1, 0, 1, 1])


def net(**options: object) -> SmallSlowFusion:
    return SmallSlowFusion(**options)


def train(
    schedule: SGDSchedule = SCHEDULE, model: SmallSlowFusion | None = None, clips: Fades = CLIPS, **options: object
) -> tuple[dict[str, torch.Tensor], list[Step]]:
    model = model or net()
    curve = finetune(model, clips, schedule, prepare=prepare, seed=1, **options)
    return model.state_dict(), curve


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def kill_after(iteration: int):
    def on_step(step: Step) -> None:
        if step.iteration == iteration:
            raise Killed

    return on_step


def test_it_learns_which_way_the_light_goes():
    """One frame does not tell; and clips that were not trained on are told apart, too."""
    learnt, unseen = Fades([0, 1] * 10), Fades([1, 0] * 10)
    schedule = SGDSchedule(iterations=14, batch=8, micro_batch=8, learning_rate=0.03, views=VIEWS, validate_every=14)
    _, curve = train(schedule, net(fc_size=32, dropout=(0, 0)), learnt, validation=unseen)
    assert curve[-1].loss < 0.5 * curve[0].loss
    assert curve[-1].validation > 0.9


def test_a_micro_batch_is_windows_of_one_view_each():
    sample = draw_sample(CLIPS, SquareViews(), 4, 1, 0, 2)
    assert sample.pixels.shape == (30, 34, 34)
    assert (sample.view.height, sample.view.width) == (34, 34)
    drawn = [draw_sample(CLIPS, SquareViews(), 4, 1, 0, place) for place in range(4)]
    assert len({sample.pixels.tobytes() for sample in drawn}) == 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, precision):
    schedule = SGDSchedule(**{**vars(SCHEDULE), "precision": precision, "steps": (3,)})
    whole, curve = train(schedule)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    with pytest.raises(Killed):
        train(schedule, checkpoint=checkpoint, on_step=kill_after(2))
    steps: list[Step] = []
    resumed, again = train(schedule, checkpoint=checkpoint, on_step=steps.append)
    assert [step.iteration for step in steps] == [3, 4]
    assert again == curve
    assert equal(resumed, whole)
    assert not equal(whole, net().state_dict())


def test_any_number_of_readers_gives_the_same_bits():
    assert equal(train(readers=1)[0], train(readers=3)[0])


@pytest.mark.parametrize(("frozen", "trained"), [("conv5", LAYERS[5:]), ("fc7", LAYERS[7:])])
def test_only_the_top_is_trained(frozen, trained):
    before = net().state_dict()
    after, _ = train(SGDSchedule(**{**vars(SCHEDULE), "frozen": frozen}))
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == set(trained)


def test_layers_have_rates_of_their_own():
    optimizer = make_optimizer(net(), SGDSchedule(iterations=1, rates={"conv": 0.1, "conv5": 2}, bias_rate=1))
    rates = {group["rate"]: len(group["params"]) for group in optimizer.param_groups if group["weight_decay"]}
    assert rates == {0.1: 4, 2: 1, 1: 3}


# Several processes


def one_of(rank: int, port: int, folder: Path) -> None:
    """One process of two, as torchrun starts them."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as group:
        torch.save(train(processes=group, validation=CLIPS), folder / f"{rank}.pt")


@pytest.mark.long
def test_two_processes_equal_one(tmp_path, free_port):
    """Sums of gradients are rounded in another order: a few units of float32's last place a step."""
    spawned.spawn(one_of, (free_port, tmp_path), nprocs=2)
    expected, curve = train(validation=CLIPS)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    assert equal(found[0][0], found[1][0])
    for name, value in expected.items():
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(curve, found[0][1], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert (one.top1, one.validation) == (other.top1, other.validation)
    assert Processes().size == 1
    moved = sum(float((expected[name] - value).abs().max()) > 1e-3 for name, value in net().state_dict().items())
    assert moved > 8  # the tolerance is far below what training moved
