"""Runs that are interrupted, spread over processes, or computed in fewer bits: what stays equal, and how equal."""

import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as spawned

from han_core.finetune import batches as feed
from han_core.finetune import loop as loop
from han_core.finetune.augment import Augmentation
from han_core.finetune.loop import FinetuneError, Step, finetune
from han_core.finetune.sgd import SGDSchedule
from han_core.nets.crops import View
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes, processes
from tests.small_net import SmallVGG16

FRAMES = feed.StillImages("frames", "torchvision")
SCHEDULE = SGDSchedule(iterations=6, batch=4, micro_batch=2, learning_rate=0.01)


class Noise:
    """Training clips in memory: noisy frames whose brightest channel tells the label."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def read(self, clip: int, moment: float) -> np.ndarray:
        frame = np.random.default_rng([clip, int(moment * 1000)]).integers(0, 120, (3, 40, 48), np.uint8)
        frame[self.labels[clip] % 3] += 100
        return frame


CLIPS = Noise([0, 1, 0, 1, 1, 0])


def shrink(size: int = 32) -> None:
    """Images of 32x32: a VGG-16 at 224x224 takes a second per image, and nothing here depends on the size."""
    whole = feed.apply_views
    feed.apply_views = lambda *args, **options: whole(*args, **options, size=size)


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(feed, "apply_views", feed.apply_views)  # put back afterwards
    shrink()


net = SmallVGG16


def train(schedule: SGDSchedule = SCHEDULE, **options: object) -> tuple[dict[str, torch.Tensor], list[Step]]:
    model = net()
    curve = finetune(model, CLIPS, schedule, prepare=FRAMES, seed=1, **options)
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_train_6_equals_train_3_kill_and_resume_3_bit_for_bit(tmp_path, precision, caplog):
    schedule = SGDSchedule(iterations=6, batch=4, micro_batch=2, learning_rate=0.01, precision=precision, warmup=5)
    whole, curve = train(schedule)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    with pytest.raises(Killed):
        train(schedule, checkpoint=checkpoint, on_step=kill_after(3))
    steps: list[Step] = []
    with caplog.at_level(logging.INFO):
        resumed, again = train(schedule, checkpoint=checkpoint, on_step=steps.append)
    assert "resumes after iteration 3" in caplog.text
    assert [step.iteration for step in steps] == [4, 5, 6]
    assert again == curve
    assert equal(resumed, whole)
    finished, last = train(schedule, checkpoint=checkpoint)  # killed once more, after the last iteration
    assert last == curve
    assert equal(finished, whole)


def test_momentum_is_part_of_what_is_restored(tmp_path, monkeypatch):
    """Breaks when a resumed run starts with momentum 0, which only the last bits would tell otherwise."""
    whole, _ = train()
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=kill_after(3))
    restore = Checkpoint.restore

    def forgetful(self, model, optimizer):
        progress = restore(self, model, optimizer)
        optimizer.state.clear()
        return progress

    monkeypatch.setattr(Checkpoint, "restore", forgetful)
    assert not equal(train(checkpoint=checkpoint)[0], whole)


def test_the_scale_of_float16_is_part_of_what_is_restored(tmp_path, monkeypatch):
    schedule = replace(SCHEDULE, precision="float16")
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    with monkeypatch.context() as patch:
        update = torch.amp.GradScaler.update
        patch.setattr(torch.amp.GradScaler, "update", lambda self: update(self, 8.0))  # as after many overflows
        with pytest.raises(Killed):
            train(schedule, checkpoint=checkpoint, on_step=kill_after(3))
    scales, step = [], torch.amp.GradScaler.step
    monkeypatch.setattr(torch.amp.GradScaler, "step", lambda self, o: scales.append(self.get_scale()) or step(self, o))
    train(schedule, checkpoint=checkpoint)
    assert scales == [8.0, 8.0, 8.0]


def test_a_damaged_checkpoint_starts_afresh(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"half a file")
    assert equal(train(checkpoint=Checkpoint(path))[0], train()[0])


@pytest.mark.parametrize(("precision", "closeness"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_fewer_bits_train_nearly_the_same(precision, closeness):
    """bfloat16 keeps 8 bits of a number, float16 11: a loss near 0.7 may differ by some units of the last."""
    exact, curve = train(SGDSchedule(iterations=3, batch=4, micro_batch=2, learning_rate=0.001))
    fewer, rounded = train(SGDSchedule(iterations=3, batch=4, micro_batch=2, learning_rate=0.001, precision=precision))
    np.testing.assert_allclose([s.loss for s in rounded], [s.loss for s in curve], rtol=closeness)
    assert all(value.dtype == torch.float32 for value in fewer.values())
    assert not equal(exact, fewer)


def test_float16_scales_the_loss_and_skips_steps_that_overflow(monkeypatch):
    scales = []
    step = torch.amp.GradScaler.step

    def watched(self, optimizer):
        scales.append(self.get_scale())
        for value in optimizer.param_groups[0]["params"]:
            value.grad[:] = float("inf") if len(scales) == 1 else value.grad
        optimizer_state = self._per_optimizer_states[id(optimizer)]
        optimizer_state["found_inf_per_device"] = {torch.device("cpu"): torch.tensor(float(len(scales) == 1))}
        return step(self, optimizer)

    monkeypatch.setattr(torch.amp.GradScaler, "step", watched)
    seen: list[torch.Tensor] = []
    model = net()
    finetune(
        model,
        CLIPS,
        SGDSchedule(iterations=2, batch=4, micro_batch=4, learning_rate=0.01, precision="float16"),
        prepare=FRAMES,
        seed=1,
        on_step=lambda _: seen.append(model.classifier[6].weight.clone()),
    )
    assert scales == [65536.0, 32768.0]
    assert torch.equal(seen[0], net().classifier[6].weight)
    assert not torch.equal(seen[1], seen[0])


def test_the_gradient_is_clipped_by_its_own_norm_not_by_the_scaled_one():
    schedule = replace(
        SCHEDULE, iterations=1, precision="float16", learning_rate=1.0, momentum=0, weight_decay=0, clip_gradient=0.01
    )
    before = net().state_dict()
    after, _ = train(schedule)
    rates = {name: 2 if name.endswith("bias") else 1 for name in before}
    norm = sum(float(((after[name] - before[name]) / rates[name]).square().sum()) for name in before) ** 0.5
    assert norm == pytest.approx(0.01, rel=1e-3)


# Several processes


def one_of(rank: int, port: int, size: int, folder: Path, micro_batches: tuple[int, ...]) -> None:
    """One process among several, as torchrun starts them."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    shrink()
    with processes(torch.device("cpu")) as group:
        for micro_batch in micro_batches:
            found = train(_spread(micro_batch), processes=group, validation=CLIPS)
            torch.save(found, folder / f"{rank}-{micro_batch}.pt")
        checkpoint = Checkpoint(folder / "run.safetensors", seconds=0)
        train(_spread(1), processes=group, checkpoint=checkpoint)
        group.barrier()
        found = train(replace(_spread(1), iterations=4), processes=group, checkpoint=checkpoint)
        torch.save(found, folder / f"{rank}-resumed.pt")


def _spread(micro_batch: int) -> SGDSchedule:
    return SGDSchedule(
        iterations=2, batch=4, micro_batch=micro_batch, learning_rate=0.01, clip_gradient=5, validate_every=2
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """Folder of what two processes found, by rank and micro batch."""
    folder = tmp_path_factory.mktemp("two")
    spawned.spawn(one_of, (free_port(), 2, folder, (1, 3, 4)), nprocs=2)
    return folder


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_two_processes_equal_one(two_processes, micro_batch):
    """Micro batches of 1 are dealt 2 and 2, of 3 one and one smaller, of 4 one to the first process and none to the
    other. Sums of gradients are rounded in another order: a few units of float32's last place a step."""
    expected, curve = train(_spread(micro_batch), validation=CLIPS)
    found = [torch.load(two_processes / f"{rank}-{micro_batch}.pt", weights_only=False) for rank in range(2)]
    assert equal(found[0][0], found[1][0])
    for name, value in expected.items():
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(curve, found[0][1], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert (one.top1, one.validation) == (other.top1, other.validation)
    moved = sum(float((expected[n] - v).abs().max()) > 1e-3 for n, v in net().state_dict().items())
    assert moved > 10  # the tolerance is far below what training moved


def test_two_processes_go_on_where_they_were(two_processes):
    expected, curve = train(replace(_spread(1), iterations=4))
    for rank in range(2):
        weights, again = torch.load(two_processes / f"{rank}-resumed.pt", weights_only=False)
        assert [step.iteration for step in again] == [1, 2, 3, 4]
        assert [step.loss for step in again] == pytest.approx([step.loss for step in curve], rel=1e-4)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_processes_that_see_different_checkpoints_stop(tmp_path):
    class Two(Processes):
        def sum(self, *values: float) -> tuple[float, ...]:
            return tuple(value + other for value, other in zip(values, (3.0, 9.0), strict=True))

    with pytest.raises(FinetuneError, match="HAN_CACHE on a disk that all machines see"):
        train(processes=Two(0, 2), checkpoint=Checkpoint(tmp_path / "none.safetensors"))


# Validation


def test_validation_is_reported_and_changes_nothing():
    plain, curve = train()
    held_out = Noise([0, 1, 1])
    schedule = SGDSchedule(iterations=6, batch=4, micro_batch=2, learning_rate=0.01, validate_every=4)
    looked, again = train(schedule, validation=held_out)
    assert equal(plain, looked)
    assert [step.iteration for step in again if step.validation is not None] == [4, 6]
    assert all(step.validation in (0, 1 / 3, 2 / 3, 1) for step in again if step.validation is not None)
    assert all(step.validation is None for step in curve)


def test_validation_looks_at_the_centre_of_the_middle_frame_without_dropout():
    asked = []

    class Watched(Noise):
        def read(self, clip: int, moment: float) -> np.ndarray:
            asked.append((clip, moment))
            return super().read(clip, moment)

    model, held_out = net(dropout=(0.9, 0.9)).train(), Watched([0, 1, 1, 0, 1])
    schedule = SGDSchedule(iterations=1, micro_batch=2, views=Augmentation())
    with ThreadPoolExecutor(1) as pool:
        share = loop.validation_top1(model, held_out, schedule, pool, prepare=FRAMES, processes=Processes())
    assert sorted(asked) == [(clip, 0.5) for clip in range(5)]
    assert model.training
    crops = [held_out.read(clip, 0.5)[:, :, 4:44] for clip in range(5)]
    images = feed.apply_views(crops, [View(0, 0, 40, 40)] * 5, kind="frames", convention="torchvision")
    right = model.eval()(images).argmax(1) == torch.tensor(held_out.labels)
    assert share == int(right.sum()) / 5
