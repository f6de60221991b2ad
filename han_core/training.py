"""Training and scoring of HAN on features at hand. One loop for all variants and all places the features may be."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from han_core.cubestore import Features, glimpse_statistics, prefetched
from han_core.errors import HanError
from han_core.han import HAN


class TrainingError(HanError, RuntimeError):
    """Training cannot go on; the message says at which epoch and what to change."""


@dataclass(frozen=True)
class Schedule:
    """How a model is trained. Adadelta's constants are Zeiler's; PyTorch's rho would be 0.9."""

    epochs: int = 100
    batch: int = 128
    optimizer: Literal["adadelta", "adam", "sgd"] = "adadelta"
    learning_rate: float = 1.0
    rho: float = 0.95
    """Adadelta only."""
    eps: float = 1e-6
    """Adadelta and Adam."""
    weight_decay: float = 0.0
    clip_gradient: float = 0.0
    standardize: bool = True
    seed: int = 1


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave."""

    number: int
    loss: float
    """Mean cross-entropy over the training clips, dropout on."""
    top1: float
    """Share of training clips classified rightly while learning, dropout on."""
    validation_loss: float | None = None
    validation_top1: float | None = None


def train(
    model: HAN,
    features: Features,
    schedule: Schedule,
    *,
    validation: Features | None = None,
    device: torch.device | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> None:
    """Fit ``model`` to ``features`` in place, eq. 6.

    Clips are shuffled anew each epoch; shuffling and dropout come from ``schedule.seed`` alone. The last state is kept:
    nothing is selected, neither on test nor on validation clips, whose figures are only reported.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    device = device or torch.device("cpu")
    model.to(device)
    if schedule.standardize:
        model.standardize(*(s.to(device) for s in glimpse_statistics(features)))
    torch.manual_seed(schedule.seed)
    shuffle = torch.Generator().manual_seed(schedule.seed)
    optimizer = make_optimizer(model, schedule)
    clips = len(features.labels)
    for number in range(1, schedule.epochs + 1):
        model.train()
        loss_sum, right = 0.0, 0
        order = torch.randperm(clips, generator=shuffle).tolist()
        batches = [order[i : i + schedule.batch] for i in range(0, clips, schedule.batch)]
        for values, labels in prefetched(features, batches):
            labels = labels.to(device)
            logits = model(_to_device(values, device)).logits
            loss = cross_entropy(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if schedule.clip_gradient:
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_gradient)
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"epoch {number}: the loss is {loss_sum}. "
                "Lower train.optimizer.learning_rate, or set train.clip_gradient."
            )
        on_epoch(Epoch(number, loss_sum / clips, right / clips, *_validate(model, validation, schedule, device)))


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimiser that a schedule names."""
    rate, decay = schedule.learning_rate, schedule.weight_decay
    match schedule.optimizer:
        case "adadelta":
            return torch.optim.Adadelta(
                model.parameters(), lr=rate, rho=schedule.rho, eps=schedule.eps, weight_decay=decay
            )
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=rate, eps=schedule.eps, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    raise ValueError(f"optimizer must be adadelta, adam or sgd, not {schedule.optimizer!r}")


@torch.no_grad()
def score(model: HAN, features: Features, *, batch: int = 32, device: torch.device | None = None) -> Tensor:
    """Probabilities of eq. 5 for every clip: (N, C) float32 on the CPU."""
    device = device or torch.device("cpu")
    model.to(device).eval()
    order = list(range(len(features.labels)))
    chunks = [order[i : i + batch] for i in range(0, len(order), batch)]
    rows = [
        torch.softmax(model(_to_device(values, device)).logits.float(), dim=1).cpu()
        for values, _ in prefetched(features, chunks)
    ]
    return torch.cat(rows)


def _validate(
    model: HAN, validation: Features | None, schedule: Schedule, device: torch.device
) -> tuple[float | None, float | None]:
    if validation is None:
        return None, None
    probabilities = score(model, validation, batch=schedule.batch, device=device)
    loss = nn.functional.nll_loss(probabilities.clamp(min=1e-12).log(), validation.labels).item()
    return loss, (probabilities.argmax(1) == validation.labels).float().mean().item()


def _to_device(values: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {stream: cube.to(device, non_blocking=True) for stream, cube in values.items()}
