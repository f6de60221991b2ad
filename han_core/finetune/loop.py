"""Fine-tuning one net: mini-batch SGD with momentum on a random frame, flow stack or window of frames of a clip.

What is drawn for a sample comes from the seed, the iteration and the sample's place in the batch
(:mod:`han_core.finetune.samples`), and dropout from the seed, the iteration and the number of the micro batch. The
state of a run is therefore the net, the optimizer's momentum, the curve so far and the number of the next iteration,
which is what a checkpoint holds; and several processes that deal the micro batches among themselves compute what one
process does.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

import torch

from han_core.devices import NO_MEMORY, arithmetic, autocast, gpu_fault
from han_core.errors import HanError
from han_core.finetune.batches import Prepare, batches
from han_core.finetune.samples import centre_samples, training_samples
from han_core.finetune.sgd import SGDSchedule, learning_rate, make_optimizer, train_step
from han_core.nets.clip_inputs import TrainingClips
from han_core.nets.layered import LayeredNet
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes
from han_core.runs.saving import SavedBeside

log = logging.getLogger(__name__)

_RUNNING = 20  # iterations over which the training top-1 is taken


class FinetuneError(HanError, RuntimeError):
    """Fine-tuning cannot continue; the message says why and what to do."""


@dataclass(frozen=True)
class Step:
    """What one iteration gave."""

    iteration: int
    """Counted from 1."""
    loss: float
    """Mean cross-entropy of the batch, dropout on."""
    learning_rate: float
    top1: float
    """Share of samples classified correctly over the last 20 iterations, dropout on."""
    validation: float | None = None
    """Share of validation clips classified correctly by the centre crop of their middle, dropout off; None at
    iterations at which nobody looked. It is reported; nothing is chosen by it."""


def finetune(
    net: LayeredNet,
    clips: TrainingClips,
    schedule: SGDSchedule,
    *,
    prepare: Prepare,
    seed: int,
    processes: Processes | None = None,
    readers: int = 2,
    validation: TrainingClips | None = None,
    checkpoint: Checkpoint | None = None,
    on_resume: Callable[[list[Step]], object] = lambda steps: None,
    on_step: Callable[[Step], object] = lambda step: None,
) -> list[Step]:
    """Train ``net`` in place and leave it in evaluation mode.

    The same inputs, the same kind of device, the same number of torch threads and of processes give the same bits, also
    if the run was interrupted. Another number of processes sums gradients in another order, which changes their last
    bits.

    Args:
        clips: training clips only.
        prepare: makes the net's input of what ``clips`` reads.
        processes: those that train together, and the device; this one on the CPU by default.
        readers: threads that read and decode ahead; no influence on the result.
        validation: clips held out of the training clips.
        checkpoint: where the run is saved now and then, beside its steps, and from where it resumes. Its owner
            discards it.
        on_resume: called once, before the first iteration, with the steps of the run that is resumed, if any.
        on_step: called after each iteration, in every process.

    Returns:
        The training curve from iteration 1 on.

    Raises:
        FinetuneError: there are no clips, a GPU has too little memory, or loss or weights are no longer finite.
        ValueError: ``schedule.frozen`` is not a layer.
    """
    if not len(clips.labels):
        raise FinetuneError("no training clips")
    processes = processes or Processes()
    device = processes.device
    net.to(device).train()
    net.freeze(schedule.frozen)
    optimizer = make_optimizer(net, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "float16")
    progress = _restore(net, optimizer, scaler, checkpoint, processes)
    if progress.curve:
        on_resume([Step(*row) for row in progress.curve])
    with ExitStack() as stack:
        stack.enter_context(repeatable(device))
        stack.enter_context(arithmetic(schedule.precision))
        saved = stack.enter_context(SavedBeside(checkpoint if processes.main else None))
        pool = stack.enter_context(ThreadPoolExecutor(max(1, readers)))
        parts = training_samples(
            pool,
            clips,
            schedule.views,
            iterations=range(len(progress.curve), schedule.iterations),
            batch=schedule.batch,
            micro_batch=schedule.micro_batch,
            seed=seed,
            rank=processes.rank,
            size=processes.size,
            readers=readers,
        )
        feed = stack.enter_context(closing(batches(parts, prepare, device)))
        for iteration in range(len(progress.curve), schedule.iterations):
            rate = learning_rate(schedule, iteration)
            try:
                loss, right = train_step(net, optimizer, scaler, feed, schedule, rate, seed, processes)
            except RuntimeError as error:
                if gpu_fault(error) != NO_MEMORY:
                    raise
                raise FinetuneError(
                    f"{device} has no memory for {schedule.micro_batch} samples at once: lower micro_batch; the "
                    f"effective batch stays {schedule.batch}"
                ) from None
            if not math.isfinite(loss):
                raise FinetuneError(_diverged(f"the loss is {loss} at iteration {iteration + 1}", rate))
            seen = None
            if validation is not None and _is_time(schedule, iteration + 1):
                seen = validation_top1(
                    net, validation, schedule, pool, prepare=prepare, processes=processes, readers=readers
                )
            step = progress.add(loss, rate, right / schedule.batch, seen)
            saved.save(net, optimizer, progress.to_json(scaler))
            on_step(step)
    if not all(bool(value.isfinite().all()) for value in net.parameters()):
        raise FinetuneError(_diverged("weights are not finite after the last iteration", schedule.learning_rate))
    net.eval()
    return [Step(*row) for row in progress.curve]


@dataclass
class _Progress:
    """How far a run has come: what its checkpoint holds beside the tensors."""

    curve: list[list[float | None]] = field(default_factory=list)
    """The fields of each :class:`Step`."""
    recent: list[float] = field(default_factory=list)
    """Share of right samples in each of the last iterations."""

    def add(self, loss: float, rate: float, right: float, validation: float | None) -> Step:
        self.recent = [*self.recent, right][-_RUNNING:]
        step = Step(len(self.curve) + 1, loss, rate, sum(self.recent) / len(self.recent), validation)
        self.curve.append(list(astuple(step)))
        return step

    def to_json(self, scaler: torch.amp.GradScaler) -> dict[str, Any]:
        return {"curve": self.curve, "recent": self.recent, "scaler": scaler.state_dict()}


def _restore(
    net: LayeredNet,
    optimizer: torch.optim.SGD,
    scaler: torch.amp.GradScaler,
    checkpoint: Checkpoint | None,
    processes: Processes,
) -> _Progress:
    """Go on from the checkpoint, if there is one, in all processes alike.

    Raises:
        FinetuneError: the processes do not see the same checkpoint.
    """
    saved = checkpoint.restore(net, optimizer) if checkpoint is not None else None
    done = len(saved["curve"]) if saved else 0
    total, squares = processes.sum(float(done), float(done) ** 2)
    if processes.size * squares != total**2:  # true only if all are equal
        raise FinetuneError(
            f"process {processes.rank} has a checkpoint of {done} iterations and others have another: "
            "put HAN_CACHE on a disk that all machines see, or remove its folder checkpoints"
        )
    if not saved:
        return _Progress()
    for value, state in optimizer.state.items():
        if state.get("momentum_buffer") is not None:  # laid out as the weights are: quicker to add
            state["momentum_buffer"] = torch.empty_like(value).copy_(state["momentum_buffer"])
    if saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])
    log.info("fine-tuning resumes after iteration %d", done)
    return _Progress(saved["curve"], saved["recent"])


@torch.no_grad()
def validation_top1(
    net: LayeredNet,
    clips: TrainingClips,
    schedule: SGDSchedule,
    pool: ThreadPoolExecutor,
    *,
    prepare: Prepare,
    processes: Processes,
    readers: int = 0,
) -> float:
    """Share of clips that the net classifies correctly by the centre crop of their middle."""
    net.eval()
    parts = centre_samples(
        pool,
        clips,
        schedule.views,
        micro_batch=schedule.micro_batch,
        rank=processes.rank,
        size=processes.size,
        readers=readers,
    )
    right = 0
    for batch in batches(parts, prepare, processes.device):
        with autocast(schedule.precision, processes.device):
            right += int((net(batch.images).argmax(1) == batch.labels).sum())
    net.train()
    (total,) = processes.sum(float(right))
    return total / len(clips.labels)


def _is_time(schedule: SGDSchedule, iteration: int) -> bool:
    """Whether the validation clips are looked at after an iteration counted from 1; always after the last one."""
    every = schedule.validate_every
    return bool(every) and (iteration % every == 0 or iteration == schedule.iterations)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Take operations whose result is the same each time. On a CPU one that has no such form is refused; on a GPU,
    where torch could know of one that nobody here has met, it is told, and a run that takes days goes on."""
    before, filled = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    if device.type == "cuda":
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" or before == 2 else "warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # new memory is written to before it is read
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _diverged(what: str, rate: float) -> str:
    return f"{what} (learning rate {rate:g}): lower learning_rate, or set warmup or clip_gradient"
