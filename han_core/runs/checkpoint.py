"""The last state of a training run, so that a run that was killed resumes where it was.

DVC deletes a stage's outputs before it runs, so a checkpoint cannot be one of them: it lies beside the clip cache,
named by the fingerprint of the run (its settings and the fingerprints of its inputs). A run with any other setting
or input has another fingerprint, so it starts from the beginning.

The file is safetensors: the tensors of model and optimizer, and the progress as JSON in the header. Writing is
atomic, so a kill leaves the previous state.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Checkpoint:
    """Saves and restores one run.

    Args:
        path: of the file, normally from ``ClipCache.checkpoint``.
        seconds: least time between two saves; 0 saves whenever asked.
    """

    def __init__(self, path: str | Path, *, seconds: float = 60.0) -> None:
        self.path = Path(path)
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
        if not now and time.monotonic() - self._saved < self._seconds:
            return False
        tensors, numbers = _optimizer_state(optimizer)
        tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
        header = {"progress": json.dumps(dict(progress)), "optimizer": json.dumps(numbers)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, temporary, header)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._saved = time.monotonic()
        return True

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
            with safe_open(self.path, "pt", device=str(device)) as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress, numbers = json.loads(header["progress"]), json.loads(header["optimizer"])
            weights = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
            _check_same(model.state_dict(), weights)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            log.warning("checkpoint %s cannot be used (%s); the run starts from the beginning", self.path, error)
            return None
        model.load_state_dict(weights)
        _restore_optimizer(optimizer, tensors, numbers)
        return progress

    def discard(self) -> None:
        """Remove the file: the run is finished."""
        self.path.unlink(missing_ok=True)


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain numbers of an optimizer, by ``optimizer.<parameter's number>.<name>``."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{number}.{name}"] = value
    return tensors, numbers


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Learning rates and the like stay as they are: they come from the run's settings."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape or found[name].dtype != value.dtype:
            raise ValueError(f"its {name} is not the model's")
    if len(found) > len(expected):
        raise ValueError("it holds tensors that the model does not have")
