"""From frames and flow to the rows hog, hof, mbh, idt, sfv and idt_sfv: trajectories, codebooks, vectors and SVMs."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.baselines.fisher.fisherfile import read_vector
from han_core.baselines.fisher.stacked_file import read_stacked
from han_core.baselines.trajectories.trajectoryfile import read_facts
from han_core.clips import Clip, ClipTable, write_clips
from han_core.flow.flowfile import write_flow
from han_core.flow.levels import FlowFormat
from han_core.images.frames import write_frames
from han_core.predictions import probabilities_file, read_left_out, read_predictions
from pipeline import adopt, codebook, fisher, fisher_svm, stacked, stacked_model, stacked_svm, trajectories
from pipeline.execution import local
from pipeline.execution.code import stage_code
from pipeline.execution.ledger import Failure, read_failures, write_failures

SPEED = {"across": (3.0, 0.0), "down": (0.0, 3.0)}
SIDE, FRAMES = 96, 20
ROWS = ("hog", "hof", "mbh", "idt")


def moving_square(speed: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a textured square that moves over a still wall (n, H, W, 3), and the exact flow (n - 1, 2, H, W)."""
    random = np.random.default_rng(seed)
    wall = random.integers(0, 256, (SIDE, SIDE), np.uint8)
    square = random.integers(0, 256, (40, 40), np.uint8)
    frames = np.repeat(wall[None], FRAMES, axis=0)
    fields = np.zeros((FRAMES - 1, 2, SIDE, SIDE), np.float32)
    start = random.integers(0, 8, 2)
    for t in range(FRAMES):
        x, y = (int(place + t * v) % (SIDE - 40) for place, v in zip(start, speed, strict=True))
        frames[t, y : y + 40, x : x + 40] = square
        if t < FRAMES - 1:
            fields[t, :, y : y + 40, x : x + 40] = np.array(speed)[:, None, None]
    return np.repeat(frames[..., None], 3, axis=3), fields


class Project:
    """A folder as stages decode and flow leave it."""

    def __init__(self, repository: Path) -> None:
        self.params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
        self.params["dataset"].update(name="toy", kind="folder", root="videos", generate=[], allowed_failures=0)
        self.params["synthetic"] = None
        self.params["cubes"]["nets"] = "toy"
        self.params["run"].update(workers=1)
        self.params["fisher"].update(gaussians=4, samples=2000, iterations=5)
        self.params["stacked"].update(
            splits=[1], samples=2000, local_dimensions=8, gaussians=4, reduced=4, second_gaussians=2, iterations=5,
            frames=[12, 16], least=5, epochs=2, subvolumes=20, clips_per_dimension=1, clips_per_gaussian=1,
        )  # fmt: skip
        self.clips: list[Clip] = []

    def clip(self, name: str, class_name: str, role: str, *, still: bool = False, failed: str = "") -> None:
        label = sorted(SPEED).index(class_name)
        self.clips.append(Clip(name, f"{class_name}/{name}.avi", class_name, label, name, {1: role}, "0" * 64))
        if failed:
            write_failures(Path("data/toy/frames"), [Failure(class_name, name, failed)])
            return
        images, fields = moving_square(SPEED[class_name], sum(name.encode()))
        if still:
            images, fields = np.repeat(images[:1], FRAMES, axis=0), fields * 0
        paths = [Path("data/toy", kind, class_name, f"{name}.h5") for kind in ("frames", "flow")]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        identity = {"clip": name, "fingerprint": "ab" * 32}
        write_frames(images, paths[0], **identity, quality=95, attributes=lambda: {"fps": 25.0})
        given = iter(fields)
        solver = lambda first, second: np.stack([next(given) for _ in first])  # noqa: E731
        write_flow(*paths, **identity, solver=solver, form=FlowFormat(20.0), batch=4)

    def usual(self, train: int = 2) -> None:
        for class_name in SPEED:
            for n in (*range(train), "test"):
                self.clip(f"{class_name}_{n}", class_name, "test" if n == "test" else "train")

    def write(self) -> None:
        clips = tuple(sorted(self.clips, key=lambda clip: clip.key))
        write_clips(ClipTable(clips, tuple(sorted(SPEED)), (1,)), "data/toy/clips.csv")
        Path("params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")

    def run(self, stage, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(stage.main, list(arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == code, done.output
        return done.output

    def all(self) -> str:
        self.write()
        said = self.run(trajectories)
        for stage in (codebook, fisher):
            said += self.run(stage, "--split", "1")
        return said + self.run(fisher_svm, "--split", "1")

    def stack(self) -> str:
        return "".join(self.run(stage, "--split", "1") for stage in (stacked_model, stacked, stacked_svm))

    def predicted(self, row: str) -> dict[str, np.ndarray]:
        family = "fisher" if row in ROWS else "stacked"
        return read_predictions(probabilities_file(Path(f"data/toy/predictions/{family}-1"), row), sorted(SPEED))


class Threads(ThreadPoolExecutor):
    """In place of worker processes, which take seconds to start; tests/pipeline/execution has those."""

    _processes = None


@pytest.fixture
def project(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "local_pool", lambda workers, gpus: Threads(workers))
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return Project(repository)


def test_the_direction_of_a_motion_is_told(project):
    project.usual()
    said = project.all()
    for row in ("hof", "idt"):
        found = project.predicted(row)
        assert {key: values.argmax() for key, values in found.items()} == {"across/across_test": 0, "down/down_test": 1}
        np.testing.assert_allclose([values.sum() for values in found.values()], 1)
    assert "6 computed" in said
    assert read_left_out(Path("data/toy/predictions/fisher-1")) == {}


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(project):
    project.usual()
    project.all()
    before = {
        path: path.read_bytes() for path in Path().glob("*/toy/**/*") if path.is_file() and "logs" not in path.parts
    }
    said = project.all()
    assert said.count("6 reused, 0 computed") == 2
    assert "codebook 1: reused" in said
    assert {path: path.read_bytes() for path in before} == before


def test_a_test_clip_never_touches_the_codebook(project):
    project.usual()
    project.all()
    codebook_file = Path("models/toy/codebooks/fisher-1.safetensors")
    before = codebook_file.read_bytes()
    project.clip("across_test", "across", "test", still=True)
    project.clips.pop()
    project.all()
    assert codebook_file.read_bytes() == before
    project.clip("across_1", "across", "train", still=True)
    project.clips.pop()
    project.all()
    assert codebook_file.read_bytes() != before, "a training clip does"


def test_a_clip_without_trajectories_is_classified_all_the_same(project):
    project.usual()
    project.clip("still", "down", "test", still=True)
    project.all()
    assert read_facts(Path("data/toy/trajectories/down/still.h5")).count == 0
    for channel in ("trajectory", "hog", "hof", "mbhx", "mbhy"):
        assert not read_vector(Path("data/toy/fisher/1/down/still.h5"), channel).any()
    for row in ROWS:
        assert np.isfinite(project.predicted(row)["down/still"]).all()


def test_a_clip_that_failed_is_carried_on_with_its_reason(project):
    project.usual()
    project.clip("broken", "down", "test", failed="cannot be decoded")
    project.params["dataset"]["allowed_failures"] = 1
    project.all()
    reasons = {
        folder: read_failures(Path("data/toy") / folder)["down/broken"] for folder in ("trajectories", "fisher/1")
    }
    assert reasons["trajectories"] == "no frames: cannot be decoded"
    assert reasons["fisher/1"] == "no trajectories: no frames: cannot be decoded"
    assert "down/broken" not in project.predicted("idt")


def test_a_damaged_trajectory_file_is_named_and_blamed_on_its_stage(project):
    project.usual()
    project.all()
    path = Path("data/toy/trajectories/down/down_0.h5")
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[:-1])
    said = project.run(fisher, "--split", "1", code=1)
    assert "down_0.h5" in said
    assert "made by stage trajectories" in said


def test_a_row_whose_channel_is_not_encoded_is_left_out_with_the_reason(project):
    project.usual()
    project.params["fisher"]["channels"] = ["hof", "mbhx"]
    project.all()
    left_out = read_left_out(Path("data/toy/predictions/fisher-1"))
    assert left_out == {
        "hog": "channel hog is not among fisher.channels",
        "mbh": "channel mbhy is not among fisher.channels",
    }
    assert project.predicted("idt").keys() == project.predicted("hof").keys()


def test_the_cost_of_errors_reaches_the_svm(project):
    project.usual()
    project.all()
    before = project.predicted("idt")
    project.params["svm"]["c"] = 0.01
    project.write()
    project.run(fisher_svm, "--split", "1")
    assert not np.allclose(np.stack(list(before.values())), np.stack(list(project.predicted("idt").values())))


def test_a_class_with_one_clip(project):
    project.clip("across_0", "across", "train")
    for n in range(3):
        project.clip(f"down_{n}", "down", "train")
    project.clip("0_across", "across", "test")  # the same frames and flow: they are drawn by the letters of the name
    project.all()
    for row in ROWS:
        assert project.predicted(row)["across/0_across"].argmax() == 0


def test_no_training_clip_has_a_trajectory(project):
    project.clip("a", "across", "train", still=True)
    project.clip("b", "down", "test")
    project.write()
    project.run(trajectories)
    said = project.run(codebook, "--split", "1", code=1)
    assert "codebook 1: no training clip has a trajectory" in said
    assert "stacked_model 1: no training clip has a trajectory" in project.run(stacked_model, "--split", "1", code=1)


def test_files_of_equal_code_are_kept(project):
    project.usual()
    project.all()
    project.stack()
    stages = {"trajectories": "trajectories", "fisher": "fisher", "stacked": "fisher"}
    for stage, kind in stages.items():
        for path in Path(".han_cache", kind).glob(f"*/*-{stage_code(stage)}.h5"):
            path.rename(path.with_name(path.name.replace(stage_code(stage), "0123456789abcdef")))
    said = project.run(adopt, *stages, "--sample", "2")
    assert said.count("adopted") == 3
    for stage, arguments in ((trajectories, ()), (fisher, ("--split", "1")), (stacked, ("--split", "1"))):
        assert "6 reused, 0 computed" in project.run(stage, *arguments)


def test_settings_of_the_trajectories_reach_them(project):
    project.usual()
    project.params["trajectories"].update(length=6, most=7)
    project.write()
    project.run(trajectories)
    facts = read_facts(Path("data/toy/trajectories/down/down_0.h5"))
    assert facts.count == 7
    assert facts.counts.kept > 7


MODEL = Path("models/toy/codebooks/stacked-1.safetensors")


@pytest.mark.parametrize("reduction", ["max_margin", "pca"])
def test_stacked_fisher_vectors_tell_the_direction(project, reduction):
    project.usual(train=6)
    project.clip("still", "down", "test", still=True)
    project.params["stacked"]["reduction"] = reduction
    project.all()
    project.stack()
    for row in ("sfv", "idt_sfv"):
        found = project.predicted(row)
        assert [found[key].argmax() for key in ("across/across_test", "down/down_test")] == [0, 1]
        assert np.isfinite(found["down/still"]).all()
    assert not read_vector(Path("data/toy/stacked/1/down/still.h5"), "stacked").any()
    before = MODEL.read_bytes()
    assert "stacked_model 1: reused" in project.stack()
    assert MODEL.read_bytes() == before


def test_labels_reach_the_compression_and_test_clips_never_do(project):
    project.usual()
    project.all()
    project.stack()
    before = MODEL.read_bytes()
    project.clip("down_test", "down", "test", still=True)
    project.clips.pop()
    project.all()
    project.stack()
    assert MODEL.read_bytes() == before
    # The same file, under the other class.
    (moved,) = (clip for clip in project.clips if clip.name == "down_1")
    project.clips.remove(moved)
    project.clips.append(replace(moved, class_name="across", label=0))
    shutil.copy("data/toy/trajectories/down/down_1.h5", "data/toy/trajectories/across/down_1.h5")
    project.write()
    project.run(stacked_model, "--split", "1")
    assert MODEL.read_bytes() != before


def test_of_several_penalties_one_is_chosen_on_training_groups(project):
    project.usual()
    project.params["stacked"].update(penalties=[1e-4, 1e3], held_out=0.25)
    project.all()
    said = project.run(stacked_model, "--split", "1")
    rates = {float(line.split()[2][:-1]): line for line in said.splitlines() if "penalty" in line}
    assert rates.keys() == {1e-4, 1e3}
    assert all("held-out subvolumes right" in line for line in rates.values())
    assert read_stacked(MODEL)[0].params.class_penalty == 1e-4, "the other one leaves nothing of the projection"
