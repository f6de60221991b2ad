"""The kernels compiled for GPUs that are not here, as they are launched: what they need of a card, beside a table.

The table, ``kernel_needs.json``, is of one version of Triton. To make it anew:
``HAN_WRITE_KERNEL_NEEDS=1 pytest -n 0 tests/han_core/flow/tvl1/test_cuda_kernels.py``.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from han_core.flow.tvl1.params import TVL1Params
from tests.compiled import CAPABILITIES, compiling_for, needs_of, pointer

triton = pytest.importorskip("triton", reason="triton is not installed here")

TABLE = Path(__file__).with_name("kernel_needs.json")
LARGEST = {"sweep": 168}
"""Registers of a thread with which three warps fit on each scheduler: the sweep's speed rests on them."""


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_need_no_more_than_the_table_says(capability, table):
    from han_core.flow.tvl1 import cuda_levels, cuda_plan, cuda_sweep
    from tests.han_core.flow.tvl1.launches import launches_of

    kernels = {
        "sweep": cuda_sweep.sweep,
        "decide": cuda_plan.decide,
        "prepare": cuda_levels.prepare,
        "median": cuda_levels.median,
    }
    found = {}
    for name, _, arguments, options in launches_of(TVL1Params(median=3)):
        taken = [pointer(x.dtype) if isinstance(x, torch.Tensor) else x for x in arguments]
        with compiling_for(capability):
            found[name] = needs_of(kernels[name].warmup(*taken, **options, grid=(1,)))
    assert set(found) == set(kernels)
    if os.environ.get("HAN_WRITE_KERNEL_NEEDS"):
        written = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        written |= {"triton": triton.__version__, f"sm_{capability}": {name: vars(n) for name, n in found.items()}}
        TABLE.write_text(json.dumps(written, indent=1) + "\n")
        return
    same_version = triton.__version__ == table["triton"]
    for name, needs in found.items():
        # Each version of Triton brings its own assembler, which hands out registers a little differently.
        assert needs.spilled <= (0 if same_version else 32), name
        assert needs.registers <= LARGEST.get(name, 255), name
    assert found["sweep"].shared == 0
    if same_version:
        for name, needs in found.items():
            known = table[f"sm_{capability}"][name]
            assert known["spilled"] == 0, name
            assert needs.registers <= known["registers"], name
            assert needs.shared <= known["shared"], name
