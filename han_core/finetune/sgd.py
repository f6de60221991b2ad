"""One step of mini-batch SGD on a net, whatever its batch is cut into and however many processes share it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from han_core.devices import Precision, autocast
from han_core.finetune.augment import Augmentation, Views
from han_core.finetune.batches import Batch
from han_core.finetune.samples import micro_batches
from han_core.nets.layered import LayeredNet
from han_core.runs.processes import Processes


@dataclass(frozen=True)
class SGDSchedule:
    """How a net is trained. Dropout is part of the net; the batch is kept whatever fits in memory."""

    iterations: int
    batch: int = 256
    """Effective batch: gradients of micro batches are summed until it is reached."""
    micro_batch: int = 32
    learning_rate: float = 0.001
    """Of weights; of single layers and of biases see ``rates`` and ``bias_rate``."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Multiples of the learning rate by the start of a layer's name, of which the longest counts: ``{"conv": 0.1,
    "conv5_3": 1}`` lets all convolutions but the last learn at a tenth."""
    bias_rate: float = 2.0
    """Learning rate of a layer's biases as a multiple of its weights'."""
    bias_decay: float = 0.0
    """Weight decay of biases as a multiple of the weights'."""
    steps: tuple[int, ...] = ()
    """Iterations, counted from 0, from which on the learning rate is multiplied by ``gamma`` once more."""
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup: int = 0
    """Iterations over which the learning rate rises linearly, the last of them being the first at the full rate."""
    clip_gradient: float = 0.0
    """Largest norm of the whole gradient; 0 does not clip."""
    frozen: str | None = None
    """Last layer that is not trained."""
    precision: Precision = "float32"
    """Arithmetic of convolutions and fully connected layers; weights and their updates stay float32. The gradients
    of ``float16`` are scaled, and a step whose gradient overflows is left out."""
    validate_every: int = 0
    """Iterations between two looks at the validation clips; 0 never looks."""
    views: Views = field(default_factory=Augmentation)


def make_optimizer(net: LayeredNet, schedule: SGDSchedule) -> torch.optim.SGD:
    """SGD over what is not frozen, a group for each multiple of the learning rate (key ``rate``) and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in net.named_parameters():
        if value.requires_grad:
            module, kind = name.rsplit(".", 1)
            bias_rate, bias_decay = (schedule.bias_rate, schedule.bias_decay) if kind == "bias" else (1.0, 1.0)
            rate = layer_rate(net.learnt[module], schedule.rates) * bias_rate
            groups.setdefault((rate, schedule.weight_decay * bias_decay), []).append(value)
    return torch.optim.SGD(
        [{"params": values, "rate": rate, "weight_decay": decay} for (rate, decay), values in groups.items()],
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
    )


def layer_rate(layer: str, rates: Mapping[str, float]) -> float:
    """Multiple of the learning rate of a layer: that of the longest start of its name, 1 where there is none."""
    return rates.get(max((start for start in rates if layer.startswith(start)), key=len, default=""), 1.0)


def learning_rate(schedule: SGDSchedule, iteration: int) -> float:
    """Learning rate of an iteration counted from 0."""
    passed = sum(step <= iteration for step in schedule.steps)
    rise = (iteration + 1) / schedule.warmup if iteration < schedule.warmup else 1.0
    return schedule.learning_rate * schedule.gamma**passed * rise


def train_step(
    net: LayeredNet,
    optimizer: torch.optim.SGD,
    scaler: torch.amp.GradScaler,
    feed: Iterator[Batch],
    schedule: SGDSchedule,
    rate: float,
    seed: int,
    processes: Processes,
) -> tuple[float, int]:
    """One iteration.

    Args:
        scaler: of float16's gradients; disabled for other precisions.
        feed: gives this process's micro batches of the iteration next.
        rate: learning rate.
        seed: of dropout, with the iteration and the micro batch.

    Returns:
        The loss of the whole batch, and how many of its samples were classified correctly; in all processes the same.
        Where the loss is not finite, no step was taken.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    # With fewer micro batches than processes some have nothing to add, but must take part in the sum.
    optimizer.zero_grad(set_to_none=processes.size == 1)
    if processes.size > 1:
        for value in net.parameters():
            if value.requires_grad and value.grad is None:
                value.grad = torch.zeros_like(value)
    loss, right = torch.zeros((), device=processes.device), torch.zeros((), device=processes.device)
    own = range(processes.rank, micro_batches(schedule.batch, schedule.micro_batch), processes.size)
    for batch in islice(feed, len(own)):
        with _seeded(seed, batch.iteration, batch.number, processes.device):
            part, hits = accumulate(
                net, batch.images, batch.labels, schedule.batch, precision=schedule.precision, scaler=scaler
            )
        loss, right = loss + part, right + hits
    processes.sum_gradients(net.parameters())
    # The only wait for a GPU in an iteration.
    total_loss, total_right = processes.sum(*torch.stack([loss, right]).tolist())
    if math.isfinite(total_loss):
        scaler.unscale_(optimizer) if scaler.is_enabled() else None
        if schedule.clip_gradient:
            nn.utils.clip_grad_norm_(net.parameters(), schedule.clip_gradient)
        scaler.step(optimizer)
        scaler.update()
    return total_loss, round(total_right)


def accumulate(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    batch: int,
    *,
    precision: Precision = "float32",
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Tensor, Tensor]:
    """Add one micro batch's share of the gradient of the mean loss over an effective ``batch``.

    Args:
        scaler: multiplies the loss, and so the gradient.

    Returns:
        Its share of the loss (not multiplied), and how many of its samples were classified correctly; both on the
        device, so that nothing waits for it.
    """
    with autocast(precision, images.device):
        scores = net(images)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    loss = F.cross_entropy(scores, labels, reduction="sum") / batch
    (scaler.scale(loss) if scaler else loss).backward()
    return loss.detach(), (scores.argmax(1) == labels).sum()


@contextmanager
def _seeded(seed: int, iteration: int, micro: int, device: torch.device) -> Iterator[None]:
    """Dropout of one micro batch from its own seed; the caller's random state is left as it was."""
    state = np.random.SeedSequence([seed, iteration, micro]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(state))
        yield
