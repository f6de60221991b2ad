"""Several processes that train one model: who this process is, and sums over all of them.

Every process holds the whole model and computes the gradient of its share of each batch; the shares are summed, so
each process takes the same step. Started by ``torchrun`` (one process a GPU, or any number on CPUs); outside of it
there is one process, and all of this does nothing.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from han_core.devices import DeviceError
from han_core.errors import HanError
from han_core.runs.parent import end_with_parent

_LARGE = 1 << 20
"""Numbers of a gradient (4 MB in float32) above which a message of its own costs less than two copies of it."""


class ProcessLost(HanError, RuntimeError):
    """A process that trains with this one has ended, or cannot be reached."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes.

        All processes must hold gradients of the same parameters. Large ones are summed where they lie; the others
        travel as one flat tensor: many small messages would cost more than they carry.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        large = [gradient for gradient in gradients if gradient.numel() >= _LARGE and gradient.is_contiguous()]
        for gradient in large:
            with _together():
                dist.all_reduce(gradient)
        apart = {id(gradient) for gradient in large}
        small = [gradient for gradient in gradients if id(gradient) not in apart]
        if not small:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in small])
        with _together():
            dist.all_reduce(flat)
        for gradient, part in zip(small, flat.split([g.numel() for g in small]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over all processes, in float64.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _together():
            dist.all_reduce(total)
            return tuple(total.tolist())

    def share(self, values: Tensor) -> Tensor:
        """This process's consecutive share of the rows of ``values``; sizes differ by one at most."""
        return values.tensor_split(self.size)[self.rank]

    def barrier(self) -> None:
        """Wait until all processes are here.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size > 1:
            with _together():
                dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """What torch says of another process that is gone, in plain words. NCCL says nothing: its watchdog ends the
    process, after ten minutes where a whole machine is gone."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines()
        raise ProcessLost(
            "another process that trains with this one has ended or cannot be reached; see its own message, on its "
            "machine. Start all of them again: they go on from the last checkpoint "
            f"({reason[0] if reason else type(error).__name__})"
        ) from error


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that ``torchrun`` started; alone outside of it.

    Args:
        device: the kind that is trained on. On GPUs each process takes the one of its number on its machine.

    Raises:
        DeviceError: this machine has fewer GPUs than processes.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Processes(device=device)
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Torchrun ends its processes unless it is killed. They would train on, beside those that are started next.
        end_with_parent(signal.SIGKILL)
    if device.type == "cuda":
        device = _own_gpu()
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Processes(dist.get_rank(), dist.get_world_size(), device)
    # Not after an error: NCCL would wait for the others, who wait for this process, in place of its end.
    dist.destroy_process_group()


def _own_gpu() -> torch.device:
    """The GPU of this process's number on its machine. Two processes on one GPU would wait for each other."""
    number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', number + 1)} processes are to train together, each on a GPU of its "
            f"own, but torch sees {count} here; lower run.processes (0 is one per GPU), or set run.device: cpu"
        )
    return torch.device("cuda", number)
