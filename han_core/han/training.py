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
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from han_core.cubes import gpu_kernels
from han_core.cubes.features import PLAIN, Features, MemoryFeatures
from han_core.cubes.moments import glimpse_statistics
from han_core.cubes.prefetch import Prefetched
from han_core.cubes.shift import shifted
from han_core.cubes.sparse import SparseCubes
from han_core.devices import arithmetic
from han_core.errors import HanError
from han_core.han.captured import CudaGraphs, StepsOnDevice
from han_core.han.learner import Learner
from han_core.han.steps import Steps
from han_core.runs.processes import Processes

if TYPE_CHECKING:
    from han_core.runs.checkpoint import Checkpoint


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
    """Share of the time in which there was neither a batch nor, on a GPU, work that was launched before."""


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


@arithmetic("float32")
def train(
    model: Learner,
    features: Features,
    schedule: TrainingSchedule,
    *,
    validation: Features | None = None,
    processes: Processes | None = None,
    checkpoint: "Checkpoint | None" = None,
    on_epoch: Callable[[Epoch, Pace | None], object] = lambda epoch, pace: None,
) -> None:
    """Fit ``model`` to ``features`` in place: minimise its loss, for HAN eq. 6.

    Clips are shuffled again each epoch, and of each the view is drawn that is learnt from. The last state is kept:
    nothing is selected, neither on test nor on validation clips, whose figures are only reported. Several processes
    share each batch among them and give the result of one, to rounding. Float32 is IEEE's, on a GPU too.

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
    steps = Steps(model, optimizer, schedule, processes)
    on_device = _steps_on_device(steps, features, processes)
    for number in range(len(done) + 1, schedule.epochs + 1):
        loss, top1, pace = _one_epoch(model, steps, on_device, features, schedule, number, processes)
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
    optimizer.zero_grad(set_to_none=True)  # a graph's own memory goes with them


def _restored(
    model: Learner, optimizer: torch.optim.Optimizer, checkpoint: "Checkpoint | None", processes: Processes
) -> list[Epoch]:
    """The epochs that an interrupted run has done."""
    progress = checkpoint.restore(model, optimizer) if checkpoint else None
    processes.barrier()  # nobody writes a checkpoint that another has yet to read
    return [Epoch(**epoch) for epoch in progress["epochs"]] if progress else []


def _steps_on_device(steps: Steps, features: Features, processes: Processes) -> StepsOnDevice | None:
    """The steps from features that lie on the GPU; None where they lie elsewhere."""
    device = processes.device
    if device.type != "cuda" or not isinstance(features, MemoryFeatures) or features.device.type != "cuda":
        return None
    # Without Triton rows are expanded by operations whose sizes the host has to read, which no graph can hold.
    reads = any(isinstance(a, SparseCubes) and not a.by_kernels for a in features.arrays.values())
    graphs = CudaGraphs(device) if processes.size == 1 and not reads else None
    return StepsOnDevice(steps, features, graphs)


def _one_epoch(
    model: Learner,
    steps: Steps,
    on_device: StepsOnDevice | None,
    features: Features,
    schedule: TrainingSchedule,
    number: int,
    processes: Processes,
) -> tuple[float, float, Pace]:
    """One pass over all clips; mean loss and share classified correctly, of all processes."""
    model.train()
    clips = len(features.labels)
    order, offsets = _drawn(features, schedule, number)
    steps.begin()
    started = time.monotonic()
    if on_device is None:
        waited = _steps_from_host(model, steps, features, schedule, order, offsets, processes)
    else:
        waited = 0.0
        numbers = order.to(processes.device)
        shifts = None if offsets is None else offsets.to(processes.device)
        for share, move, batch in _shares(numbers, shifts, schedule.batch, processes):
            _place_dropout(model, len(batch), len(share), processes)
            if len(share):
                on_device.take(share, move, len(batch))
            else:
                steps.take_none()
    loss_sum, right = processes.sum(*steps.sums.tolist())  # read once an epoch: reading waits for the GPU
    seconds = time.monotonic() - started
    return loss_sum / clips, right / clips, Pace(clips / seconds, waited / seconds)


def _drawn(features: Features, schedule: TrainingSchedule, number: int) -> tuple[Tensor, Tensor | None]:
    """All that is random in epoch ``number`` but dropout, whose seed is set: the numbers (N,) of the clips' views in
    the order in which they are learnt from, and their shifts (N, 2)."""
    clips = len(features.labels)
    state = np.random.SeedSequence([schedule.seed, number]).generate_state(2, np.uint64)
    shuffle = torch.Generator().manual_seed(int(state[0]) >> 1)
    torch.manual_seed(int(state[1]) >> 1)
    order = torch.randperm(clips, generator=shuffle)
    if schedule.views:
        views = torch.tensor([features.views.index(name) for name in (PLAIN, *schedule.views)])
        order += clips * views[torch.randint(len(views), (clips,), generator=shuffle)]
    largest = schedule.shift
    offsets = torch.randint(-largest, largest + 1, (clips, 2), generator=shuffle) if largest else None
    return order, offsets


def _shares(
    order: Tensor, offsets: Tensor | None, size: int, processes: Processes
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Of each batch: this process's share of the clips, their shifts, and the whole batch."""
    batches = order.split(size)
    moves = [None] * len(batches) if offsets is None else map(processes.share, offsets.split(size))
    for batch, move in zip(batches, moves, strict=True):
        yield processes.share(batch), move, batch


def _steps_from_host(
    model: Learner,
    steps: Steps,
    features: Features,
    schedule: TrainingSchedule,
    order: Tensor,
    offsets: Tensor | None,
    processes: Processes,
) -> float:
    """The steps of an epoch from features that come batch by batch; seconds waited for them."""
    shares = list(_shares(order, offsets, schedule.batch, processes))
    wanted = [share.tolist() for share, _, _ in shares if len(share)]
    with Prefetched(features, wanted, processes.device) as data:
        for share, move, batch in shares:
            _place_dropout(model, len(batch), len(share), processes)
            if not len(share):
                steps.take_none()
                continue
            values, labels = next(data)
            if move is not None:
                values = {stream: shifted(cubes, move) for stream, cubes in values.items()}
            steps.take(values, labels, len(batch))
        return data.waited


def _place_dropout(model: Learner, batch: int, share: int, processes: Processes) -> None:
    """Tell the model which rows of the whole batch it is about to see."""
    if processes.size == 1:
        return
    first = sum(len(part) for part in torch.arange(batch).tensor_split(processes.size)[: processes.rank])
    model.dropout.rows, model.dropout.batch = slice(first, first + share), batch


def make_optimizer(model: Learner, schedule: TrainingSchedule) -> torch.optim.Optimizer:
    """The optimiser that a schedule names. On a GPU its steps can be captured as part of a CUDA graph."""
    rate, decay = schedule.learning_rate, schedule.weight_decay
    parameters = _with_rates(model, schedule)
    first = next(model.parameters())
    on_gpu = first.is_cuda
    at_once = {"weight_decay": decay, "foreach": on_gpu or None}
    match schedule.optimizer:
        case "adadelta":
            options = {"rho": schedule.rho, "eps": schedule.eps, "capturable": on_gpu}
            kind = torch.optim.Adadelta
            if gpu_kernels.by_kernels(first.device) and all(p.dtype == torch.float32 for p in model.parameters()):
                from han_core.han.adadelta import Adadelta as kind
            optimizer = kind(parameters, lr=rate, **options, **at_once)
        case "adam":
            optimizer = torch.optim.Adam(parameters, lr=rate, eps=schedule.eps, capturable=on_gpu, **at_once)
        case "sgd":
            optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, **at_once)
        case _:
            raise ValueError(f"optimizer must be adadelta, adam or sgd, not {schedule.optimizer!r}")
    optimizer._warned_capturable_if_run_uncaptured = True  # torch would warn of the first step, which never is captured
    return optimizer


def _with_rates(model: Learner, schedule: TrainingSchedule) -> list[nn.Parameter] | list[dict]:
    """The weights; in two groups where those of attention have a rate of their own."""
    attending = list(model.attention_parameters())
    if schedule.attention_rate == 1 or not attending:
        return list(model.parameters())
    own = set(map(id, attending))
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    return [{"params": others}, {"params": attending, "lr": schedule.learning_rate * schedule.attention_rate}]


@torch.no_grad()
@arithmetic("float32")
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
    with Prefetched(features, [order[i : i + batch] for i in range(0, len(order), batch)], device) as data:
        for values, _ in data:
            answer = model.answer(values)
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
