"""Maps of a net summed along tracks, under the two normalisations of Wang, Qiao and Tang (2015), section 3.3.

``st``, over space and time: each channel is divided by its maximum over all places and frames of the clip. ``ch``,
over channels: each place of each frame is divided by its maximum over the channels. Where the maximum is 0, 0 stays 0.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from han_core.baselines.tdd.channels import NORMALISATIONS
from han_core.baselines.tdd.tracks import Tracks
from han_core.errors import ClipError


class PooledMaps:
    """Sums of one layer's maps along tracks; the maps come frame by frame and are not kept.

    The maxima of ``st`` are known after the last frame only, but they are the same for all points of a track, so the
    sums are divided by them in the end.

    Args:
        tracks: n of them.
        rows, columns: of the maps, which lie over the whole image.
        channels: C. Values are not negative (maps are taken after a ReLU).
        device: where the maps come from and the sums are kept: 8 n C bytes.
    """

    def __init__(
        self, tracks: Tracks, rows: int, columns: int, channels: int, device: torch.device | str = "cpu"
    ) -> None:
        self._tracks, self._device = tracks, torch.device(device)
        self._cells = tracks.cells(rows, columns)
        self._shape = rows, columns, channels
        self._raw = torch.zeros(len(tracks), channels, device=device)
        self._by_channel = torch.zeros(len(tracks), channels, device=device)
        self._largest = torch.zeros(channels, device=device)

    @torch.inference_mode()
    def add(self, maps: Tensor, frames: Iterable[int]) -> None:
        """Take in the maps of one frame.

        Args:
            maps: (rows, columns, C), floating point.
            frames: the frames of the clip whose points these maps serve.
        """
        if maps.shape != self._shape:
            raise ValueError(f"maps of shape {tuple(maps.shape)} where {self._shape} were announced")
        places = maps.flatten(0, 1).float()
        self._largest = torch.maximum(self._largest, places.amax(0))
        divisors = _never_zero(places.amax(1, keepdim=True))
        for frame in frames:
            which, step = self._tracks.crossing(frame)
            if not len(which):
                continue
            cells, tracks = self._there(self._cells[which, step]), self._there(which)
            # A track has one point in a frame, so no sum is added to twice at once: the order is that of the frames.
            values = places[cells]
            self._raw.index_add_(0, tracks, values)
            self._by_channel.index_add_(0, tracks, values.div_(divisors[cells]))

    def _there(self, numbers: np.ndarray) -> Tensor:
        """On the device; a GPU fetches them by itself when it comes to them."""
        tensor = torch.from_numpy(numbers)
        if self._device.type == "cuda" and torch.cuda.is_available():
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    @torch.inference_mode()
    def descriptors(self) -> dict[str, Tensor]:
        """{normalisation: (n, C) float32} the roots of the sums, as they are encoded.

        Raises:
            ClipError: a map held a number that is not finite.
        """
        if not self._largest.isfinite().all():
            raise ClipError(
                "the net's activations are not finite: its weights, its input scale (`input`) or its precision are not "
                "right"
            )
        by_place = self._raw / _never_zero(self._largest)
        return {name: sums.sqrt() for name, sums in zip(NORMALISATIONS, (by_place, self._by_channel), strict=True)}


def _never_zero(maxima: Tensor) -> Tensor:
    """Maxima to divide by; 1 where there is nothing to divide."""
    return torch.where(maxima > 0, maxima, 1)
