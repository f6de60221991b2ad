"""What a pool launches, without launching it."""

from contextlib import contextmanager
from unittest import mock

import torch

from han_core.flow.tvl1 import cuda_pool

KERNELS = ("sweep", "decide", "prepare", "median")


class _Recorder:
    def __init__(self, name, launches):
        self.name, self.launches = name, launches

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.launches.append((self.name, grid, arguments, options))


@contextmanager
def recorded():
    """A list that fills with (kernel, grid, arguments, options) while the block runs."""
    launches = []
    with mock.patch.multiple(cuda_pool, **{name: _Recorder(name, launches) for name in KERNELS}):
        yield launches


def launches_of(params, height=256, width=340, slots=2):
    """The launches of one sweep and what follows it."""
    pool = cuda_pool.Pool(slots, slots, height, width, params, cuda_pool.Tuning(), torch.device("cpu"))
    with recorded() as launches:
        pool._launch()
    return launches
