"""What measures the nets on a GPU runs from end to end, here on the CPU with small nets: it is not the first contact
with a GPU that finds a slip in it."""

import importlib.util
import json
import sys

import pytest
from click.testing import CliRunner

from han_core.clipfile.reader import ClipFile
from tests.small_net import SmallVGG16


class SmallPool:
    """One process with threads would compile and import everything anew; here its work is done in this process."""

    def __init__(self, processes, threads, *, initializer, initargs):
        initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *args):
        from tests.pipeline.execution.inline import InlineExecutor

        return InlineExecutor().submit(work, *args)


@pytest.fixture
def nets_gpu(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    spec = importlib.util.spec_from_file_location("nets_gpu", repository / "benchmarks" / "nets_gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "nets_gpu", module)
    spec.loader.exec_module(module)
    small = {"spatial": 3, "temporal": 2 * module.STACK}
    monkeypatch.setattr(
        module, "make_net", lambda stream: SmallVGG16(classes=module.CLASSES, in_channels=small[stream])
    )
    monkeypatch.setattr(module, "FRAMES", 2)
    monkeypatch.setattr(module, "ThreadedProcesses", SmallPool)
    monkeypatch.setattr(module, "start", lambda job: monkeypatch.setattr(module, "_station", job.open()))
    return module


def test_it_runs(nets_gpu, tmp_path):
    out = tmp_path / "out.json"
    options = "--device cpu --precision float32 --seconds 0 --clips-in-work 1 --clips 2 --length 12 --batch 2"
    options += f" --micro-batch 2 --iterations 1 --out {out}"
    ran = CliRunner().invoke(nets_gpu.main, options.split())
    assert ran.exit_code == 0, (ran.output, ran.exception)
    found = json.loads(out.read_text())
    for section, key in {"cubes": "stage_over_bare", "finetune": "ratio"}.items():
        for stream in ("spatial", "temporal"):
            assert found[section][f"{stream}, float32"].get(key, 0) > 0, found[section]
    assert all(found["cubes"][f"{stream}, reading"]["clips_s"] > 0 for stream in ("spatial", "temporal"))
    assert all(found["layouts"]["float32"][f"channels_{which}_ms"] > 0 for which in ("last", "first"))


def test_images_cost_what_those_of_video_cost(nets_gpu, tmp_path):
    sizes = {}
    for stream, name in (("spatial", "frames"), ("temporal", "x")):
        (path,) = nets_gpu.made(stream, tmp_path, 1, 30)
        with ClipFile(path) as file:
            assert file.image(name, 29).shape[:2] == (256, 340)
            sizes[stream] = sum(len(file.image_bytes(name, n)) for n in range(30)) / 30
    assert 20e3 < sizes["spatial"] < 35e3
    assert 4e3 < sizes["temporal"] < 7e3
