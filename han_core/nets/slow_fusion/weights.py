"""Weights that Slow Fusion starts from: random, or a file of pre-trained ones.

[10] pre-trained on Sports-1M, whose weights were not published; who has such a net names its file. It holds the
tensors of :class:`han_core.nets.slow_fusion.net.SlowFusion`, all convolutions at least.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from han_core.nets.sealed_net import WeightsError, file_digest, knows, read_metadata, read_tensors
from han_core.nets.slow_fusion.net import SlowFusion
from han_core.nets.slow_fusion.net_file import check_tensors, empty_net, with_tensors

Trained = Literal["all", "top", "top3"]
"""Which layers are trained: all, fc8, or fc6 to fc8; the rows of table 3 of [10]."""

LAST_FROZEN: dict[Trained, str | None] = {"all": None, "top3": "conv5", "top": "fc7"}


def weights_identity(weights: str) -> str:
    """What an initial net's weights are, as a string that changes when they do: part of the net's fingerprint."""
    return "random: NumPy PCG64" if weights == "random" else f"sha256: {file_digest(weights)}"


def initial_net(
    weights: str,
    *,
    classes: int,
    fc_size: int,
    trained: Trained = "all",
    dropout: tuple[float, float] = (0.5, 0.5),
    seed: int = 1,
) -> SlowFusion:
    """A net as it is before training.

    Args:
        weights: ``random`` or the path of a safetensors file, whose fully connected layers may be missing.
        trained: the layers that will be trained; of the others the file must hold the weights.
        seed: draws the layers that the weights do not hold, and fc8 unless the number of classes is the same.

    Raises:
        WeightsError: the file cannot be read, does not fit, or lacks a layer that is not trained.
    """
    net = empty_net(classes=classes, fc_size=fc_size, dropout=dropout)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    given = {} if weights == "random" else _fitted(weights, shapes)
    net.freeze(LAST_FROZEN[trained])
    lacking = [name for name, value in net.named_parameters() if not value.requires_grad and name not in given]
    net.freeze(None)
    if lacking:
        raise WeightsError(f"{weights}: lacks {lacking[0]}, which `trained: {trained}` would leave random")
    drawn = {name: _draw(name, shape, seed, alone=not given) for name, shape in shapes.items() if name not in given}
    return with_tensors(net, given | drawn)


def knows_classes(weights: str, classes: Sequence[str]) -> bool:
    """Whether the last layer of an initial net tells these classes apart: only if a file says that it learnt them."""
    return weights != "random" and knows(read_metadata(weights), classes)


def _draw(name: str, shape: tuple[int, ...], seed: int, *, alone: bool) -> Tensor:
    """Draw one tensor; biases are 0, fc8 is small so that all classes start nearly equal.

    Where nothing is given (``alone``) the deviation is half of what He's rule says, which is near the 0.01 of
    Krizhevsky et al. (2012) and suits any width. He's rule keeps the size of the input, and pixels minus their mean are
    large (60): with scores made of 4096 such units, or with a first layer small enough to take them down at once, the
    first steps at the paper's rate of 1e-3 diverge. Halved in each layer, they arrive at fc7 at 0.4.

    NumPy draws, because its stream is the same on every machine; each tensor has its own, so that one layer's shape
    does not change another layer's values.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape)
    random = np.random.default_rng([seed, *name.encode()])
    deviation = 0.5 * math.sqrt(2 / math.prod(shape[1:])) if alone and not name.startswith("fc8") else 0.01
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32)).mul_(deviation)


def _fitted(weights: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a file as far as they go into a net of these shapes."""
    given = {name: tensor.float() for name, tensor in read_tensors(weights).items()}
    if missing := [name for name in shapes if name.startswith("conv") and name not in given]:
        raise WeightsError(f"{weights}: lacks {missing[0]}; all convolutions of slow fusion are needed")
    for layer in ("fc6", "fc7"):
        held = given.get(f"{layer}.weight")
        if held is not None and held.ndim == 2 and len(held) != shapes[f"{layer}.bias"][0]:
            raise WeightsError(
                f"{weights}: fc6 and fc7 have {len(held)} units; set fc_size to that, not to {shapes['fc6.bias'][0]}"
            )
    fc8 = given.get("fc8.weight")
    if fc8 is not None and tuple(fc8.shape) != shapes["fc8.weight"]:
        given = {name: tensor for name, tensor in given.items() if not name.startswith("fc8.")}
    check_tensors(weights, given, shapes, whole=False)
    return given
