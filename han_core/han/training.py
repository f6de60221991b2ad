"""Training a model on features at hand, and classifying with it.

One loop for HAN, its variants and all other :class:`han_core.han.learner.Learner`, and for all places the features may
be.

Everything random comes from the seed and the number of the epoch. The state of a run is therefore the model, the
optimizer and the number of epochs done: a run that was killed resumes from its last checkpoint to the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from han_core.cubes.shift import shifted
from han_core.cubes.store import PLAIN, Features, Values, glimpse_statistics, prefetched
from han_core.errors import HanError
from han_core.han.learner import Learner
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes


class TrainingError(HanError, RuntimeError):
    """Training cannot continue; the message says at which epoch and what to change."""


@dataclass(frozen=True)
class TrainingSchedule:
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
    attention_rate: float = 1.0
    """Learning rate of the weights of attention (:meth:`Learner.attention_parameters`) as a multiple of the others'."""
    standardize: bool = True
    views: tuple[str, ...] = ()
    """Names of further views of the features: of each clip and epoch one of them or the plain one is drawn."""
    shift: int = 0
    """Largest shift of a clip's cubes in regions, along each side (:func:`han_core.cubes.shift.shifted`); each clip's
    is drawn anew each epoch."""
    seed: int = 1


@dataclass(frozen=True)
class Pace:
    """How fast an epoch went; never part of a result."""

    clips_per_second: float
    waiting: float
    """Share of the time spent waiting for data."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave."""

    number: int
    loss: float
    """Mean of the model's loss over the training clips, dropout on."""
    top1: float
    """Share of training clips classified correctly while learning, dropout on."""
    validation_loss: float | None = None
    """Mean cross-entropy of the probabilities that the model gives the held out clips."""
    validation_top1: float | None = None


def train(
    model: Learner,
    features: Features,
    schedule: TrainingSchedule,
    *,
    validation: Features | None = None,
    processes: Processes | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Epoch, Pace | None], object] = lambda epoch, pace: None,
) -> None:
    """Fit ``model`` to ``features`` in place: minimise its loss, for HAN eq. 6.

    Clips are shuffled again each epoch, and of each the view is drawn that is learnt from. The last state is kept:
    nothing is selected, neither on test nor on validation clips, whose figures are only reported. Several processes
    share each batch among them and give the result of one, to rounding.

    Args:
        processes: those that train together, and the device; this one alone on the CPU by default.
        checkpoint: from where an interrupted run resumes, and where its state is kept after each epoch.
        on_epoch: called after each epoch; for those of an interrupted run, which are not run again, without a pace.

    Raises:
        TrainingError: the loss is no longer finite.
        ValueError: the features lack a view that the schedule names.
    """
    if missing := [name for name in schedule.views if name not in features.views]:
        raise ValueError(f"the features have no view {missing[0]}; they have {', '.join(features.views[1:]) or 'none'}")
    processes = processes or Processes()
    model.to(processes.device)
    if schedule.standardize:
        model.standardize(*(s.to(processes.device) for s in glimpse_statistics(features)))
    optimizer = make_optimizer(model, schedule)
    done = _restored(model, optimizer, checkpoint, processes)
    for epoch in done:
        on_epoch(epoch, None)
    for number in range(len(done) + 1, schedule.epochs + 1):
        loss, top1, pace = _one_epoch(model, optimizer, features, schedule, number, processes)
        if not math.isfinite(loss):
            kept = ""
            if checkpoint and checkpoint.path.exists():
                kept = f" The last good state is in {checkpoint.path}."
            raise TrainingError(
                f"epoch {number}: the loss is {loss}. "
                f"Lower train.optimizer.learning_rate, or set train.clip_gradient.{kept}"
            )
        done.append(Epoch(number, loss, top1, *_validate(model, validation, schedule, processes.device)))
        if checkpoint and processes.main:
            checkpoint.save(model, optimizer, {"epochs": [asdict(epoch) for epoch in done]})
        on_epoch(done[-1], pace)


def _restored(
    model: Learner, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint | None, processes: Processes
) -> list[Epoch]:
    """The epochs that an interrupted run has done."""
    progress = checkpoint.restore(model, optimizer) if checkpoint else None
    processes.barrier()  # nobody writes a checkpoint that another has yet to read
    return [Epoch(**epoch) for epoch in progress["epochs"]] if progress else []


def _one_epoch(
    model: Learner,
    optimizer: torch.optim.Optimizer,
    features: Features,
    schedule: TrainingSchedule,
    number: int,
    processes: Processes,
) -> tuple[float, float, Pace]:
    """One pass over all clips; mean loss and share classified correctly, of all processes."""
    model.train()
    clips, device = len(features.labels), processes.device
    state = np.random.SeedSequence([schedule.seed, number]).generate_state(2, np.uint64)
    shuffle = torch.Generator().manual_seed(int(state[0]) >> 1)
    torch.manual_seed(int(state[1]) >> 1)
    order = torch.randperm(clips, generator=shuffle)
    if schedule.views:
        views = torch.tensor([features.views.index(name) for name in (PLAIN, *schedule.views)])
        order += clips * views[torch.randint(len(views), (clips,), generator=shuffle)]
    largest = schedule.shift
    offsets = torch.randint(-largest, largest + 1, (clips, 2), generator=shuffle) if largest else None
    batches = order.split(schedule.batch)
    shares = [processes.share(batch).tolist() for batch in batches]
    moves = [None] * len(batches) if offsets is None else map(processes.share, offsets.split(schedule.batch))
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # read once an epoch: reading waits for the GPU
    started = time.monotonic()
    data = _Waiting(prefetched(features, [share for share in shares if share]))
    for batch, share, move in zip(batches, shares, moves, strict=True):
        optimizer.zero_grad(set_to_none=True)
        _place_dropout(model, batch, share, processes)
        if share:
            values, labels = next(data)
            labels = labels.to(device)
            if move is not None:
                values = {stream: shifted(cubes, move) for stream, cubes in values.items()}
            learnt = model.learn(_to_device(values, device), labels)
            loss = learnt.loss / len(batch)
            loss.backward()
            sums += torch.stack([loss.detach() * len(batch), learnt.right])
        else:  # a last batch of fewer clips than processes
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        processes.sum_gradients(model.parameters())
        if schedule.clip_gradient:
            for part in model.parts():
                nn.utils.clip_grad_norm_(part, schedule.clip_gradient)
        optimizer.step()
    loss_sum, right = processes.sum(*sums.tolist())
    seconds = time.monotonic() - started
    return loss_sum / clips, right / clips, Pace(clips / seconds, data.seconds / seconds)


class _Waiting:
    """An iterator that knows how long its user waited."""

    def __init__(self, data: Iterator[tuple[dict[str, Values], Tensor]]) -> None:
        self._data = data
        self.seconds = 0.0

    def __next__(self) -> tuple[dict[str, Values], Tensor]:
        started = time.monotonic()
        values = next(self._data)
        self.seconds += time.monotonic() - started
        return values


def _place_dropout(model: Learner, batch: Tensor, share: list[int], processes: Processes) -> None:
    """Tell the model which rows of the whole batch it is about to see."""
    if processes.size == 1:
        return
    first = sum(len(part) for part in batch.tensor_split(processes.size)[: processes.rank])
    model.dropout.rows, model.dropout.batch = slice(first, first + len(share)), len(batch)


def make_optimizer(model: Learner, schedule: TrainingSchedule) -> torch.optim.Optimizer:
    """The optimiser that a schedule names."""
    rate, decay = schedule.learning_rate, schedule.weight_decay
    parameters = _with_rates(model, schedule)
    match schedule.optimizer:
        case "adadelta":
            return torch.optim.Adadelta(parameters, lr=rate, rho=schedule.rho, eps=schedule.eps, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, eps=schedule.eps, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
    raise ValueError(f"optimizer must be adadelta, adam or sgd, not {schedule.optimizer!r}")


def _with_rates(model: Learner, schedule: TrainingSchedule) -> list[nn.Parameter] | list[dict]:
    """The weights; in two groups where those of attention have a rate of their own."""
    attending = list(model.attention_parameters())
    if schedule.attention_rate == 1 or not attending:
        return list(model.parameters())
    own = set(map(id, attending))
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    return [{"params": others}, {"params": attending, "lr": schedule.learning_rate * schedule.attention_rate}]


@torch.no_grad()
def classify(
    model: Learner,
    features: Features,
    *,
    view: str = PLAIN,
    details: bool = False,
    batch: int = 32,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What a model says of every clip; of HAN eq. 5.

    Args:
        view: of each clip that is classified.
        details: also keep what the model says besides, e.g. HAN's attention maps, T x R numbers per clip.
        batch: clips at once.

    Returns:
        Probabilities (N, C), and the details (N, ..) or None; float32 on the CPU.
    """
    device = device or torch.device("cpu")
    model.to(device).eval()
    first = features.views.index(view) * len(features.labels)
    order = list(range(first, first + len(features.labels)))
    probabilities, kept = [], []
    for values, _ in prefetched(features, [order[i : i + batch] for i in range(0, len(order), batch)]):
        answer = model.answer(_to_device(values, device))
        probabilities.append(answer.probabilities.cpu())
        if details:
            kept.append(answer.details.cpu())
    return torch.cat(probabilities), torch.cat(kept) if details else None


def _validate(
    model: Learner, validation: Features | None, schedule: TrainingSchedule, device: torch.device
) -> tuple[float | None, float | None]:
    if validation is None:
        return None, None
    probabilities, _ = classify(model, validation, batch=schedule.batch, device=device)
    loss = nn.functional.nll_loss(probabilities.clamp(min=1e-12).log(), validation.labels).item()
    return loss, (probabilities.argmax(1) == validation.labels).float().mean().item()


def _to_device(values: dict[str, Values], device: torch.device) -> dict[str, Values]:
    return {stream: cube.to(device, non_blocking=True) for stream, cube in values.items()}
