"""One step of training: the gradient of a batch, summed over the processes, and what the optimiser makes of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from han_core.cubes.features import Values
from han_core.han.learner import Learner
from han_core.runs.processes import Processes

if TYPE_CHECKING:
    from han_core.han.training import TrainingSchedule


class Steps:
    """The steps of a run. On a GPU the host launches them and waits for nothing.

    Attributes:
        sums: (2,) float64 on the model's device: of the losses of the clips that this process learnt from since
            :meth:`begin`, and how many of them were classified correctly.
    """

    def __init__(
        self, model: Learner, optimizer: torch.optim.Optimizer, schedule: "TrainingSchedule", processes: Processes
    ) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=processes.device)
        self._model = model
        self._optimizer = optimizer
        self._clip = schedule.clip_gradient
        self._processes = processes

    def begin(self) -> None:
        """An epoch begins."""
        self.sums.zero_()

    def take(self, values: Mapping[str, Values], labels: Tensor, whole: int) -> None:
        """Learn from this process's share of a batch of ``whole`` clips.

        Args:
            values: {stream: (B, T, D, R)} and labels (B,) int64, both where the model is.
        """
        self._optimizer.zero_grad(set_to_none=True)
        learnt = self._model.learn(values, labels)
        loss = learnt.loss / whole
        loss.backward()
        self.sums += torch.stack([loss.detach() * whole, learnt.right])
        self._finish()

    def take_none(self) -> None:
        """Take part in a batch of fewer clips than processes."""
        for parameter in self._model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._finish()

    def _finish(self) -> None:
        self._processes.sum_gradients(self._model.parameters())
        if self._clip:
            for part in self._model.parts():
                nn.utils.clip_grad_norm_(part, self._clip, foreach=self.sums.is_cuda or None)
        self._optimizer.step()
