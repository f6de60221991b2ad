"""The last state of a training run, so that a run that was killed resumes where it was.

DVC deletes a stage's outputs before it runs, so a checkpoint cannot be one of them: it lies beside the clip cache,
named by the fingerprint of the run (its settings and the fingerprints of its inputs). A run with any other setting
or input has another fingerprint, so it starts from the beginning.

The file is sealed safetensors: the tensors of model and optimizer, and the progress as JSON in the header. Writing is
atomic, so a kill leaves the previous state. A file that is damaged or does not fit is told of and not used.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from han_core.tensorfile.file import read_tensors, write_tensors

log = logging.getLogger(__name__)


class Checkpoint:
    """Saves and restores one run.

    Args:
        path: of the file, normally from ``ClipCache.checkpoint``.
        seconds: least time between two saves; 0 saves whenever asked.
        temporary: the file that is written before it is renamed to ``path``, on the same file system; by default one
            beside it.
    """

    def __init__(self, path: str | Path, *, seconds: float = 60.0, temporary: Path | None = None) -> None:
        self.path = Path(path)
        self._temporary = temporary or self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        self._seconds = seconds
        self._saved = time.monotonic()

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Mapping[str, Any],
        *,
        now: bool = False,
    ) -> bool:
        """Write the state, unless the last save is younger than ``seconds``.

        Args:
            progress: anything JSON can hold; floats come back bit for bit.
            now: write however young the last save is.

        Returns:
            Whether it was written.
        """
        if not now and not self.due():
            return False
        self.write(*state_of(model, optimizer, progress))
        return True

    def due(self) -> bool:
        """Whether the last save is old enough for another one."""
        return time.monotonic() - self._saved >= self._seconds

    @property
    def always(self) -> bool:
        """Whether another one is due at any time."""
        return self._seconds == 0

    def write(self, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
        """Write what :func:`state_of` found."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_tensors(self._temporary, tensors, header)
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load the state into ``model`` and ``optimizer``.

        Returns:
            The progress that was saved with it; None if there is no checkpoint or it cannot be used (logged), in which
            case nothing was changed.
        """
        if not self.path.is_file():
            return None
        device = next(model.parameters()).device
        try:
            tensors, header = read_tensors(self.path, device)
            progress, numbers = json.loads(header["progress"]), json.loads(header["optimizer"])
            if header["kind"] != type(optimizer).__name__ or not isinstance(progress, dict):
                raise ValueError("it is of another kind of run")
            weights = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
            _check_same(model.state_dict(), weights)
            state = _optimizer_states({n: v for n, v in tensors.items() if not n.startswith("model.")}, numbers)
            _check_fits(optimizer, state)
        # A KeyError's text is the key alone; the others of json, of torch and of the checks here say what it is.
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            log.warning("checkpoint %s cannot be used (%s); the run starts from the beginning", self.path, error)
            return None
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        model.load_state_dict(weights)
        return progress

    def discard(self) -> None:
        """Remove the file: the run is finished."""
        self.path.unlink(missing_ok=True)


def state_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a checkpoint. The tensors are the model's and the optimizer's own: the next step changes
    them."""
    tensors, numbers = _optimizer_state(optimizer)
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    header = {
        "kind": type(optimizer).__name__,
        "optimizer": json.dumps(numbers),
        "progress": json.dumps(dict(progress)),
    }
    return tensors, header


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain numbers of an optimizer, by ``optimizer.<parameter's number>.<name>``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{number}.{name}"] = value
    return tensors, numbers


def _optimizer_states(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """What :func:`_optimizer_state` took apart: number of the parameter -> name -> value.

    Learning rates and the like stay as they are: they come from the run's settings.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        part, number, name = key.split(".", 2)
        if part != "optimizer":
            raise ValueError(f"it holds {key}, which belongs to nothing")
        state.setdefault(int(number), {})[name] = value
    return state


def _check_fits(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise ValueError where the state is not one of the optimizer's parameters: then nothing is restored at all."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if state and len({frozenset(values) for values in state.values()}) > 1:
        raise ValueError("its optimizer does not keep the same of each weight")
    for number, values in state.items():
        if not 0 <= number < len(parameters):
            raise ValueError(f"its optimizer has a weight number {number}")
        for name, value in values.items():
            if isinstance(value, Tensor):
                fits = value.shape in (parameters[number].shape, torch.Size([]))
            else:
                fits = value is None or isinstance(value, (int, float))
            if not fits:
                raise ValueError(f"its optimizer's {name} is not one of weight number {number}")


def _check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape or found[name].dtype != value.dtype:
            raise ValueError(f"its {name} is not the model's")
    if len(found) > len(expected):
        raise ValueError("it holds tensors that the model does not have")
