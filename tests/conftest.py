"""Fixtures shared by all tests."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

# Many small operations on two shared cores: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# cuBLAS reads it when a process uses it first; without it no two runs of a training on a GPU are the same.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Hundreds of processes are started; each would compile the project's modules anew, which takes it three seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Of what a shell starts in the background Ctrl-C is ignored, and so it would be of all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# By processor time. Three files share a first run of the DVC graph, which test_repro.py makes; the two that would have
# to wait for it come after others.
LONGEST = (
    "test_repro.py",
    "test_repro_odd_videos.py",
    "test_two_machines.py",
    "test_train_runs.py",
    "test_runner.py",
    "test_select.py",
    "test_graph.py",
    "test_hand_over.py",
    "test_side_by_side.py",
    "test_remotes.py",
    "test_repro_trust.py",
    "test_cuda.py",
    "test_browser.py",
    "test_equality.py",
)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """The order below is by time: else xdist deals the files with most tests first, and the longest ones last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first: files are dealt to processes, and the others fit beside them. Tests marked ``slow`` run
    only with ``-m slow``, and of the others those marked ``long`` only with ``-m long``."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    asked = config.getoption("-m")
    items[:] = [item for item in items if (mark := _duration(item)) is None or mark in asked]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """``$HAN_NO_TEST_AFTER``: seconds since 1970 after which no further test begins; the rest is skipped."""
    last = os.environ.get("HAN_NO_TEST_AFTER")
    if last and time.time() > float(last):
        pytest.skip("began too late: the time for tests is over (HAN_NO_TEST_AFTER)")


def _duration(item: pytest.Item) -> str | None:
    return next((mark for mark in ("slow", "long") if item.get_closest_marker(mark)), None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos and weights (``$HAN_TEST_DATA``, else beside the checkout); skips where absent."""
    folder = Path(os.environ.get("HAN_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here; set HAN_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def shared_cases(shared_data: Path) -> Path:
    """Folder of files on which the project once failed, beside the real data; skips where absent."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("no folder of cases here")
    return folder


@pytest.fixture(scope="session")
def shared_tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of this run of the tests see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> "torch.device":
    """The GPU; without one the test skips, but fails where GPU tests were asked for (``pytest -m gpu``)."""
    import torch

    if not torch.cuda.is_available():
        without = pytest.fail if "gpu" in request.config.getoption("-m").split() else pytest.skip
        without("torch finds no CUDA device")
    return torch.device("cuda")
