"""What is particular to the back end ``cpu``: threads, vector widths, and the cache of compiled code."""

import os
import platform
import subprocess
import sys

import numba
import numpy as np
import pytest

from han_core.flow.tvl1 import cpu, cpu_kernels
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import tvl1_flow

PARAMS = TVL1Params(scales=2, warps=2, iterations=30)

SOLVE = """
import sys
import numpy as np
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1 import cpu_kernels
from han_core.flow.tvl1.solver import tvl1_flow
first, second = np.load("pairs.npy")
np.save("flow.npy", tvl1_flow(first, second, backend="cpu", params=TVL1Params(scales=2, warps=2, iterations=30)))
print(cpu_kernels.LANES)
"""

WITHOUT = """
import llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
for name in features:
    if name.startswith({prefixes}):
        features[name] = False
llvmlite.binding.get_host_cpu_features = lambda: features
"""


@pytest.fixture
def solve_elsewhere(pairs, tmp_path, repository):
    """Run a prologue, then solve the pairs, in a process of its own: (flow, what it printed)."""

    def solve(prologue, **environment):
        np.save(tmp_path / "pairs.npy", np.stack(pairs))
        variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(repository)} | environment
        run = subprocess.run(
            [sys.executable, "-c", prologue + SOLVE],
            cwd=tmp_path,
            env=os.environ | variables,
            timeout=120,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return np.load(tmp_path / "flow.npy"), run.stdout.strip()

    return solve


def test_threads_give_the_same_bytes(pairs):
    one = tvl1_flow(*pairs, backend="cpu", params=PARAMS, threads=1)
    for threads in (2, 3, 8):
        assert np.array_equal(tvl1_flow(*pairs, backend="cpu", params=PARAMS, threads=threads), one)


def test_memory_of_one_pair_does_not_reach_the_next(pairs):
    """One workspace solves many pairs in turn; each must find it as new."""
    order = [2, 0, 1, 0, 2]
    flow = tvl1_flow(pairs[0][order], pairs[1][order], backend="cpu", params=PARAMS, threads=1)
    assert np.array_equal(flow[0], flow[4])
    assert np.array_equal(flow[1], flow[3])
    assert np.array_equal(flow[2], tvl1_flow(pairs[0][1:2], pairs[1][1:2], backend="cpu", params=PARAMS)[0])


@pytest.mark.skipif(cpu_kernels.LANES < 16, reason="needs a CPU with AVX-512 to leave it unused")
@pytest.mark.parametrize(("prefixes", "lanes"), [("'avx512'", "8"), ("('avx', 'fma', 'f16c', 'xop')", "4")])
def test_cpus_with_narrower_vectors_get_the_same_flow(pairs, solve_elsewhere, prefixes, lanes):
    flow, printed = solve_elsewhere(WITHOUT.format(prefixes=prefixes))
    assert printed == lanes
    assert np.abs(flow - tvl1_flow(*pairs, backend="cpu", params=PARAMS)).max() < 1e-2


def test_works_where_no_compiled_code_can_be_kept(pairs, solve_elsewhere, tmp_path):
    """A read-only installation and no home: Numba finds no folder for its cache, and the code stays in memory."""
    prologue = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"
    flow, _ = solve_elsewhere(prologue)
    assert not (tmp_path / "cache").exists()
    assert np.array_equal(flow, tvl1_flow(*pairs, backend="cpu", params=PARAMS))


def test_compiled_code_is_kept_for_the_next_process(solve_elsewhere, tmp_path):
    solve_elsewhere("")
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*.nbc"))
    assert {name.split(".")[1].split("-")[0] for name in kept} == {"iterate", "linearise", "fill_quads"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.nbc")}
    solve_elsewhere("")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.nbc")} == before


def test_iterate_tells_the_last_iteration_from_convergence(pairs):
    level = cpu._Level(60, 84)
    cpu_kernels.fill_quads(pairs[1][0].astype(np.float32), level.quads)
    step = 0.25 / 0.3
    cpu_kernels.linearise(pairs[0][0].astype(np.float32), level.quads, level.state, level.data, step)

    def iterate(limit, count):
        return cpu_kernels.iterate(
            level.state.copy(), level.data, 84, 0.25, step**2 * 0.15 * 0.3, limit * step**2 * 60 * 84, count
        )

    assert iterate(0.0, 7) == (7, False)
    assert iterate(1e9, 7) == (1, True)
    done, converged = iterate(0.01**2, 300)
    assert converged
    assert 5 < done < 300
    assert iterate(0.01**2, done) == (done, True)
    assert iterate(0.01**2, done - 1) == (done - 1, False)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for instructions of x86")
def test_the_inner_loop_is_vector_code():
    """A loop that fell back to one float at a time would be many times slower, and no other test would see it."""
    iterate = numba.njit(error_model="numpy", fastmath=True)(cpu_kernels.iterate.py_func)
    floats = numba.types.Array(numba.float32, 3, "C")
    iterate.compile((floats, floats, *[numba.int64], *[numba.float64] * 3, numba.int64))
    (assembly,) = iterate.inspect_asm().values()
    register = {16: "%zmm", 8: "%ymm", 4: "%xmm"}[cpu_kernels.LANES]
    for instruction in ("sqrtps", "addps", "minps"):
        assert any(instruction in line and register in line for line in assembly.splitlines()), instruction
