"""Stage flow: from frames files to flow files, with what failed in decode carried on."""

from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.cache import housekeeping
from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from han_core.flow.flowfile import read_flow_levels
from han_core.flow.levels import dequantize, quantize
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import resolve_backend, tvl1_flow, tvl1_quantized
from han_core.images.codec import decode_grey, encode_image
from pipeline import flow as stage
from pipeline.execution.ledger import Failure, read_failures, write_failures
from pipeline.params import Flow, load_params
from tests.make_videos import moving_frames

FRAMES = Path("data/toy/frames")
FLOW = Path("data/toy/flow")


class Project:
    """A folder as stage decode leaves it, and stage flow."""

    def __init__(self, repository: Path) -> None:
        self.params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
        self.params["dataset"].update(name="toy", kind="folder", root="videos", generate=[], allowed_failures=0)
        self.params["synthetic"] = None
        self.params["cubes"]["nets"] = "toy"
        self.params["run"].update(workers=1)
        self.params["flow"].update(backend="opencv", batch=4)
        self.params["flow"]["tvl1"].update(scales=2, warps=2, iterations=30)
        self.clips: list[Clip] = []
        self.failures: list[Failure] = []

    def clip(self, name: str, count: int, *, failed: str = "", seed: int = 0) -> None:
        """Add a clip: ``count`` frames, or a row of decode's ledger."""
        self.clips = [clip for clip in self.clips if clip.name != name]
        self.clips.append(Clip(name, f"wave/{name}.avi", "wave", 0, name, {1: "train"}, "0" * 64))
        write_clips(ClipTable(tuple(self.clips), ("wave",), (1,)), "data/toy/clips.csv")
        if failed:
            self.failures.append(Failure("wave", name, failed))
        else:
            path = FRAMES / "wave" / f"{name}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            identity = fingerprint("decode", "c0de", {"count": count, "seed": seed}, {"clip": name})
            with ClipFileWriter(path, kind="frames", clip=name, fingerprint=identity) as writer:
                images = writer.images("frames")
                for frame in moving_frames(count, seed=seed):
                    images.append(encode_image(frame, "jpeg", 95))
        write_failures(FRAMES, self.failures)

    def run(self):
        Path("params.yaml").write_text(yaml.safe_dump(self.params))
        result = CliRunner().invoke(stage.main)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture
def project(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return Project(repository)


def test_flow_of_moving_frames(project):
    """The frames move one pixel to the right, and so says the flow."""
    project.clip("a", 6)
    project.params["flow"]["tvl1"].update(scales=3, warps=5, iterations=100)
    result = project.run()
    assert result.exit_code == 0, result.output
    assert "flow: 1 clips, TV-L1 by back end opencv at the frames' size, bound 20 pixels" in result.output
    verify_clip_file(FLOW / "wave/a.h5")
    with ClipFile(FLOW / "wave/a.h5") as file:
        attributes = file.attributes
    assert {name: attributes[name] for name in ("count", "width", "height", "bound", "backend", "lambda", "warps")} == {
        "count": 5, "width": 64, "height": 48, "bound": 20.0, "backend": "opencv", "lambda": 0.15, "warps": 5
    }  # fmt: skip
    pixels = dequantize(read_flow_levels(FLOW / "wave/a.h5"), 20)
    inner = pixels[:, :, 8:-8, 8:-8]
    assert np.median(inner[:, 0]) == pytest.approx(1, abs=0.16)
    assert np.median(inner[:, 1]) == pytest.approx(0, abs=0.16)


def test_equals_solver_and_quantiser(project):
    project.clip("a", 6)
    project.params["flow"]["codec"] = "png"
    project.run()
    with ClipFile(FRAMES / "wave/a.h5") as file:
        grey = np.stack([decode_grey(file.image_bytes("frames", i)) for i in range(6)])
    solver = TVL1Params(scales=2, warps=2, iterations=30)
    expected = quantize(tvl1_flow(grey[:-1], grey[1:], backend="opencv", params=solver), 20)
    np.testing.assert_array_equal(read_flow_levels(FLOW / "wave/a.h5"), expected)


def test_failures_are_carried_and_made(project):
    project.clip("a", 4)
    project.clip("lost", 0, failed="the video file is empty")
    project.clip("one", 1)
    project.clip("gone", 3)
    project.clip("bad", 3)
    (FRAMES / "wave/gone.h5").unlink()
    raw = bytearray((FRAMES / "wave/bad.h5").read_bytes())
    raw[-1] ^= 1
    (FRAMES / "wave/bad.h5").write_bytes(raw)
    project.params["dataset"]["allowed_failures"] = 4
    result = project.run()
    assert result.exit_code == 1
    assert "2 of 5 clips could not be done, through no fault of theirs" in result.output
    assert "gone.h5: cannot be opened (No such file or directory) (made by stage decode)" in result.output
    assert "bad.h5: is not a finished clip file" in result.output
    assert "Traceback" not in result.output
    assert (FLOW / "wave/a.h5").exists()
    assert not (FLOW / "failures.csv").exists(), "nothing is noted against clips whose file was lost"
    project.clip("gone", 3)
    project.clip("bad", 3)
    project.params["dataset"]["allowed_failures"] = 1
    result = project.run()
    assert "2 of 5 clips failed, 1 allowed (dataset.allowed_failures)" in result.output
    assert read_failures(FLOW) == {
        "wave/lost": "no frames: the video file is empty",
        "wave/one": "the clip has one frame; flow needs two",
    }
    project.params["dataset"]["allowed_failures"] = 2
    assert project.run().exit_code == 0


def test_damaged_picture_is_a_plain_error(project):
    project.clip("a", 1)
    path = FRAMES / "wave/a.h5"
    path.unlink()
    with ClipFileWriter(path, kind="frames", clip="a", fingerprint="f") as writer:
        images = writer.images("frames")
        images.append(b"no picture")
        images.append(b"no picture")
    project.params["dataset"]["allowed_failures"] = 1
    result = project.run()
    assert result.exit_code == 1
    assert "cannot be decoded" in result.output
    assert "through no fault of theirs" in result.output


def test_edits(project):
    for name in "abc":
        project.clip(name, 4, seed=ord(name))
    assert "0 reused, 3 computed" in project.run().output
    before = {path.name: path.read_bytes() for path in (FLOW / "wave").iterdir()}
    project.params["flow"]["batch"] = 1  # changes no result
    project.params["run"]["workers"] = 2
    assert "3 reused, 0 computed" in project.run().output
    project.params["flow"]["bound"] = 15
    assert "0 reused, 3 computed" in project.run().output
    project.params["flow"]["bound"] = 20.0
    project.clip("d", 4)
    assert "3 reused, 1 computed" in project.run().output
    assert {path.name: path.read_bytes() for path in (FLOW / "wave").iterdir() if path.stem != "d"} == before


def test_recomputing_gives_the_same_bytes(project):
    project.clip("a", 5)
    project.run()
    first = (FLOW / "wave/a.h5").read_bytes()
    for entry in housekeeping.entries(ClipCache(".han_cache")):
        entry.path.unlink()
    project.params["flow"]["batch"] = 2
    assert "0 reused, 1 computed" in project.run().output
    assert (FLOW / "wave/a.h5").read_bytes() == first


def test_size(project):
    project.clip("a", 3)
    project.params["flow"]["size"] = [32, 24]
    assert "at 32x24" in project.run().output
    assert read_flow_levels(FLOW / "wave/a.h5").shape == (2, 2, 24, 32)


class TestFingerprint:
    def test_what_matters(self):
        base = stage.flow_fingerprint(Flow(), "cpu", "f")
        same = [Flow(batch=3), Flow(batch="auto"), Flow(bound=20), Flow(backend="cpu")]
        assert {stage.flow_fingerprint(settings, "cpu", "f") for settings in same} == {base}
        other = [
            stage.flow_fingerprint(Flow(), "opencv", "f"),
            stage.flow_fingerprint(Flow(), "cpu", "g"),
            stage.flow_fingerprint(Flow(quality=90), "cpu", "f"),
            stage.flow_fingerprint(Flow(size=(10, 10)), "cpu", "f"),
            stage.flow_fingerprint(Flow(rounding="floor"), "cpu", "f"),
            stage.flow_fingerprint(Flow(tvl1={"warps": 3}), "cpu", "f"),
            stage.flow_fingerprint(Flow(codec="png"), "cpu", "f"),
        ]
        assert len({base, *other}) == 8

    def test_quality_is_jpegs(self):
        one, two = (stage.flow_fingerprint(Flow(codec="png", quality=q), "cpu", "f") for q in (50, 90))
        assert one == two


def test_backend_that_cannot_run(project, monkeypatch):
    def refuse(name):
        raise ValueError("back end 'cuda' cannot run here: torch finds no GPU")

    monkeypatch.setattr(stage, "resolve_backend", refuse)
    project.clip("a", 3)
    result = project.run()
    assert result.exit_code == 1
    assert "flow.backend: back end 'cuda' cannot run here" in result.output


def test_device_cpu_keeps_auto_off_the_gpu(project, monkeypatch):
    monkeypatch.setattr(stage, "resolve_backend", lambda name: {"auto": "cuda"}.get(name, name))
    project.params["flow"]["backend"] = "auto"
    for device, expected in (("cpu", "cpu"), ("auto", "cuda")):
        project.params["run"]["device"] = device
        Path("params.yaml").write_text(yaml.safe_dump(project.params))
        assert stage._backend(load_params()) == expected


class TestTriedApart:
    """Where there is a GPU, the back end is tried in a process of its own."""

    @pytest.fixture
    def answer(self, monkeypatch, project):
        """Takes the place of that process."""
        monkeypatch.setattr(stage, "gpus", lambda: 1)
        stage._tried_apart.cache_clear()
        yield lambda resolve: monkeypatch.setattr(stage, "local_pool", lambda workers: _Pool(resolve))
        stage._tried_apart.cache_clear()

    def backend(self, project, wanted, device="auto"):
        project.params["flow"]["backend"] = wanted
        project.params["run"]["device"] = device
        Path("params.yaml").write_text(yaml.safe_dump(project.params))
        return stage._backend(load_params())

    def test_what_it_says_counts_and_is_asked_for_once(self, project, answer):
        asked = []
        answer(lambda wanted: asked.append(wanted) or "cpu")
        assert [self.backend(project, "auto") for _ in range(2)] == ["cpu", "cpu"]
        assert asked == ["auto"]
        assert self.backend(project, "opencv") == "opencv"
        assert self.backend(project, "auto", device="cpu") == "cpu"
        assert asked == ["auto"]

    def test_a_back_end_that_cannot_run_is_an_error_before_any_work(self, project, answer):
        def refuse(wanted):
            raise ValueError(f"back end {wanted!r} of optical flow cannot run here: no compiler")

        answer(refuse)
        with pytest.raises(click.ClickException, match=r"flow.backend: back end 'cuda' .* no compiler"):
            self.backend(project, "cuda")

    def test_where_the_process_dies_auto_is_the_cpu(self, project, answer, capsys):
        def die(wanted):
            raise BrokenExecutor

        answer(die)
        assert self.backend(project, "auto") == "cpu"
        assert "the process that tried it on the GPU died; it is computed on the CPU" in capsys.readouterr().err
        with pytest.raises(click.ClickException, match=r"'cuda' of optical flow cannot run here: the process .* died"):
            self.backend(project, "cuda")


class _Pool:
    def __init__(self, resolve):
        self.resolve = resolve

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, wanted):
        assert function is resolve_backend
        future = Future()
        try:
            future.set_result(self.resolve(wanted))
        except Exception as error:
            future.set_exception(error)
        return future


def test_auto_leaves_the_number_of_pairs_to_the_back_end(project, monkeypatch):
    seen = []
    monkeypatch.setattr(stage, "write_flow", lambda *arguments, batch, **more: seen.append(batch))
    project.clip("a", 3)
    for batch in ("auto", 5):
        project.params["flow"]["batch"] = batch
        Path("params.yaml").write_text(yaml.safe_dump(project.params))
        (task,) = stage.flow_work(load_params()).tasks
        stage.flow_clip(task, Path("x.h5"))
    assert (seen[0](256, 340), seen[1]) == (16, 5)


def test_a_gpu_hands_back_levels(project, monkeypatch):
    monkeypatch.setattr(stage, "_backend", lambda params: "cuda")
    project.clip("a", 3)
    Path("params.yaml").write_text(yaml.safe_dump(project.params))
    (task,) = stage.flow_work(load_params()).tasks
    solver = stage._solver(task.arguments)
    assert solver.func is tvl1_quantized
    assert solver.keywords == {
        "params": TVL1Params(scales=2, warps=2, iterations=30),
        "bound": 20,
        "rounding": "nearest",
    }
