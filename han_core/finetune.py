"""Fine-tuning one VGG-16: mini-batch SGD with momentum on one random frame, or flow stack, of a clip.

What is drawn for a sample (clip, frame, crop, flip) comes from the seed, the iteration and the sample's place in the
batch, and from nothing else: neither the number of threads that read nor an interruption changes it. The state
of a run is therefore the net, the optimizer's momentum and the number of the next iteration.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from han_core.augment import Augmentation, View, apply_views, draw_view
from han_core.clipfile import ClipFile
from han_core.errors import HanError
from han_core.two_stream import VGG16, Convention, stack_fields

_AHEAD = 2  # micro batches that are read while one is computed
_RUNNING = 20  # iterations over which the training top-1 is taken


class FinetuneError(HanError, RuntimeError):
    """Fine-tuning cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Schedule:
    """How a net is trained. Dropout is part of the net; the batch is kept whatever fits in memory."""

    iterations: int
    batch: int = 256
    """Effective batch: gradients of micro batches are summed until it is reached."""
    micro_batch: int = 32
    learning_rate: float = 0.001
    """Of weights; biases learn at twice this rate and without weight decay."""
    steps: tuple[int, ...] = ()
    """Iterations, counted from 0, from which on the learning rate is multiplied by ``gamma`` once more."""
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup: int = 0
    """Iterations over which the learning rate rises linearly from a tenth."""
    clip_gradient: float = 0.0
    """Largest norm of the whole gradient; 0 does not clip."""
    frozen: str | None = None
    """Last layer that is not trained."""
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Step:
    """What one iteration gave."""

    iteration: int
    """Counted from 1."""
    loss: float
    """Mean cross-entropy of the batch, dropout on."""
    learning_rate: float
    top1: float
    """Share of samples classified rightly over the last 20 iterations, dropout on."""


class TrainingClips(Protocol):
    """Where samples come from; :class:`FrameClips` and :class:`FlowClips` read clip files."""

    kind: Literal["frames", "flow"]
    labels: Sequence[int]

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(channels, height, width) uint8: the frame, or the stack around it, at ``moment`` in [0, 1) of a clip."""


@dataclass(frozen=True)
class FrameClips:
    """Single frames out of clip files of kind frames."""

    paths: Sequence[Path]
    labels: Sequence[int]
    kind: Literal["frames"] = "frames"

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(3, height, width) uint8 RGB."""
        with ClipFile(self.paths[clip]) as file:
            image = file.image("frames", int(moment * file.image_count("frames")))
        return image.transpose(2, 0, 1)


@dataclass(frozen=True)
class FlowClips:
    """Stacks of flow fields out of clip files of kind flow."""

    paths: Sequence[Path]
    labels: Sequence[int]
    stack: int
    kind: Literal["flow"] = "flow"

    def read(self, clip: int, moment: float) -> np.ndarray:
        """(2 * stack, height, width) uint8 levels, x and y interleaved."""
        with ClipFile(self.paths[clip]) as file:
            count = file.image_count("x")
            (fields,) = stack_fields([int(moment * (count + 1))], self.stack, count)
            read = {i: (file.image("x", i), file.image("y", i)) for i in dict.fromkeys(fields.tolist())}
        return np.stack([component for i in fields.tolist() for component in read[i]])


def finetune(
    net: VGG16,
    clips: TrainingClips,
    schedule: Schedule,
    *,
    convention: Convention,
    seed: int,
    device: torch.device | str = "cpu",
    readers: int = 2,
    on_step: Callable[[Step], object] = lambda step: None,
) -> None:
    """Train ``net`` in place and leave it in evaluation mode.

    On a CPU the same inputs and the same number of torch threads give the same bits.

    Args:
        clips: training clips only.
        convention: scale of the net's input.
        readers: threads that read and decode ahead; no influence on the result.
        on_step: called after each iteration.

    Raises:
        FinetuneError: there are no clips, or loss or weights are no longer finite.
        ValueError: ``schedule.frozen`` is no layer.
    """
    if not len(clips.labels):
        raise FinetuneError("no training clips")
    device = torch.device(device)
    net.to(device).train()
    net.freeze(schedule.frozen)
    optimizer = make_optimizer(net, schedule)
    top1: deque[float] = deque(maxlen=_RUNNING)
    with _deterministic(device), ThreadPoolExecutor(max(1, readers)) as pool:
        batches = _read_ahead(pool, clips, schedule, seed)
        for iteration in range(schedule.iterations):
            rate = learning_rate(schedule, iteration)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]
            optimizer.zero_grad(set_to_none=True)
            loss, right = 0.0, 0
            for micro in range(_micro_batches(schedule)):
                images, labels = _to_batch(next(batches), clips.kind, convention, device)
                with _seeded(seed, iteration, micro, device):
                    part, hits = accumulate(net, images, labels, schedule.batch)
                loss, right = loss + part, right + hits
            if not math.isfinite(loss):
                raise FinetuneError(_diverged(f"the loss is {loss} at iteration {iteration + 1}", rate))
            if schedule.clip_gradient:
                nn.utils.clip_grad_norm_(net.parameters(), schedule.clip_gradient)
            optimizer.step()
            top1.append(right / schedule.batch)
            on_step(Step(iteration + 1, loss, rate, sum(top1) / len(top1)))
    if not all(bool(value.isfinite().all()) for value in net.parameters()):
        raise FinetuneError(_diverged("weights are not finite after the last iteration", schedule.learning_rate))
    net.eval()


def accumulate(net: nn.Module, images: Tensor, labels: Tensor, batch: int) -> tuple[float, int]:
    """Add one micro batch's share of the gradient of the mean loss over an effective ``batch``.

    Returns:
        Its share of the loss, and how many of its samples were classified rightly.
    """
    scores = net(images)
    loss = F.cross_entropy(scores, labels, reduction="sum") / batch
    loss.backward()
    return loss.item(), int((scores.argmax(1) == labels).sum())


def make_optimizer(net: VGG16, schedule: Schedule) -> torch.optim.SGD:
    """SGD over what is not frozen; biases at twice the rate (group key ``rate``) and without decay."""
    trained = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
    weights = [value for name, value in trained if not name.endswith(".bias")]
    biases = [value for name, value in trained if name.endswith(".bias")]
    return torch.optim.SGD(
        [
            {"params": weights, "rate": 1.0, "weight_decay": schedule.weight_decay},
            {"params": biases, "rate": 2.0, "weight_decay": 0.0},
        ],
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
    )


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """Learning rate of an iteration counted from 0."""
    passed = sum(step <= iteration for step in schedule.steps)
    rise = 0.1 + 0.9 * iteration / schedule.warmup if iteration < schedule.warmup else 1.0
    return schedule.learning_rate * schedule.gamma**passed * rise


@dataclass(frozen=True)
class _Sample:
    pixels: np.ndarray
    view: View
    label: int


def draw_sample(clips: TrainingClips, schedule: Schedule, seed: int, iteration: int, place: int) -> _Sample:
    """Draw and read the sample at ``place`` of the batch of an iteration."""
    clip = _clip_at(len(clips.labels), seed, iteration * schedule.batch + place)
    random = np.random.default_rng([seed, iteration, place])
    pixels = clips.read(clip, random.random())
    return _Sample(pixels, draw_view(random, *pixels.shape[1:], schedule.augmentation), clips.labels[clip])


def _clip_at(clips: int, seed: int, position: int) -> int:
    """Clip at a position of the endless row of shuffled passes over all clips."""
    epoch, place = divmod(position, clips)
    return int(_shuffled(clips, seed, epoch)[place])


@lru_cache(maxsize=4)
def _shuffled(clips: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(clips)


def _micro_batches(schedule: Schedule) -> int:
    return -(-schedule.batch // schedule.micro_batch)


def _read_ahead(
    pool: ThreadPoolExecutor, clips: TrainingClips, schedule: Schedule, seed: int
) -> Iterator[list[_Sample]]:
    """The micro batches of all iterations in order, a few being read while one is used."""
    wanted = (
        [(iteration, place) for place in range(start, min(start + schedule.micro_batch, schedule.batch))]
        for iteration in range(schedule.iterations)
        for start in range(0, schedule.batch, schedule.micro_batch)
    )

    def submit(places: list[tuple[int, int]]) -> list[Future[_Sample]]:
        return [pool.submit(draw_sample, clips, schedule, seed, iteration, place) for iteration, place in places]

    waiting = deque(submit(places) for places in islice(wanted, _AHEAD))
    try:
        while waiting:
            yield [future.result() for future in waiting.popleft()]
            waiting.extend(submit(places) for places in islice(wanted, 1))
    finally:
        for future in (future for futures in waiting for future in futures):
            future.cancel()


def _to_batch(
    samples: list[_Sample], kind: Literal["frames", "flow"], convention: Convention, device: torch.device
) -> tuple[Tensor, Tensor]:
    images = apply_views(
        [sample.pixels for sample in samples],
        [sample.view for sample in samples],
        kind=kind,
        convention=convention,
        device=device,
    )
    return images, torch.tensor([sample.label for sample in samples], device=device)


@contextmanager
def _seeded(seed: int, iteration: int, micro: int, device: torch.device) -> Iterator[None]:
    """Dropout of one micro batch from its own seed; the caller's random state is left as it was."""
    state = np.random.SeedSequence([seed, iteration, micro]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(state))
        yield


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Refuse operations whose result is not repeatable (on a GPU, max pooling's gradient has no other)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _diverged(what: str, rate: float) -> str:
    return f"{what} (learning rate {rate:g}): lower learning_rate, or set warmup or clip_gradient"
