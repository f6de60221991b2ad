"""A tiny dataset as stages decode, flow, trajectories and finetune would leave it, for the stages of TDD."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import yaml
from click.testing import CliRunner, Result

from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectories import Counts, Trajectories, rounded
from han_core.baselines.trajectories.trajectoryfile import write_trajectories
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from han_core.nets.net_file import write_net
from pipeline.execution.ledger import write_failures
from tests.small_net import SmallVGG16

CLASSES = ("left", "right")
ROLES = {  # clip -> roles in splits 1 and 2
    "a1": ("train", "test"),
    "a2": ("train", "train"),
    "a3": ("test", "train"),
    "b1": ("train", "test"),
    "b2": ("validation", "train"),
    "b3": ("test", ""),
}
STILL = "a3"
"""A clip without trajectories."""
FRAMES, HEIGHT, WIDTH, STACK = 20, 48, 64, 2


@dataclass
class TddProject:
    """A project folder with six clips of 20 frames, their flow, their trajectories and the nets of split 1."""

    folder: Path
    params: dict
    runner: CliRunner = field(default_factory=CliRunner)

    def run(self, stage: ModuleType, *arguments: str) -> Result:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")
        return self.runner.invoke(stage.main, ["--split", "1", *arguments])

    def ok(self, stage: ModuleType, *arguments: str) -> str:
        result = self.run(stage, *arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refused(self, stage: ModuleType, *arguments: str) -> str:
        result = self.run(stage, *arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), result.exception  # no traceback
        return result.output

    def clip_path(self, kind: str, clip: str) -> Path:
        return self.folder / "data/toy" / kind / CLASSES[clip.startswith("b")] / f"{clip}.h5"

    def files(self, kind: str) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in (self.folder / "data/toy" / kind).rglob("*.h5")}

    def codebook(self, name: str) -> Path:
        return self.folder / f"models/toy/codebooks/{name}-1.safetensors"

    def net(self, stream: str) -> Path:
        return self.folder / f"models/toy/nets/{stream}-1.safetensors"

    def write_net(self, stream: str, seed: int = 1) -> None:
        path = self.net(stream)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        channels = {"in_channels": 2 * STACK} if stream == "temporal" else {}
        write_net(path, SmallVGG16(seed=seed, **channels), {"stream": stream, "input": "caffe"})

    def write_images(self, clip: str, seed: int) -> None:
        """Noise; another seed is another content."""
        random = np.random.default_rng(seed)
        for kind, names, count, shape in (
            ("frames", ("frames",), FRAMES, (HEIGHT, WIDTH, 3)),
            ("flow", ("x", "y"), FRAMES - 1, (HEIGHT, WIDTH)),
        ):
            path = self.clip_path(kind, clip)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with ClipFileWriter(path, kind=kind, clip=clip, fingerprint=f"{seed:064x}") as file:
                for name in names:
                    images = file.images(name)
                    for _ in range(count):
                        images.append(cv2.imencode(".png", random.integers(0, 256, shape, np.uint8))[1])

    def write_trajectories(self, clip: str, seed: int, count: int = 30, frames: int = FRAMES) -> Trajectories:
        """Tracks that wander over the frame; every third is of a coarser scale."""
        random = np.random.default_rng(seed)
        walk = random.uniform((10, 10), (WIDTH - 10, HEIGHT - 10), (count, 1, 2))
        walk = walk + random.uniform(-1, 1, (count, 16, 2)).cumsum(1)
        histograms = {name: (count, 108 if name == "hof" else 96) for name in ("hog", "hof", "mbhx", "mbhy")}
        found = Trajectories(
            points=rounded(walk.clip(0, (WIDTH - 1, HEIGHT - 1)).astype(np.float32)),
            start=np.sort(random.integers(0, frames - 15, count)).astype(np.int32),
            scale=(np.arange(count) % 3 == 2).astype(np.uint8),
            warped=rounded(random.uniform(-2, 2, (count, 15, 2)).astype(np.float32)),
            **{name: random.integers(0, 256, shape, np.uint8) for name, shape in histograms.items()},
        )
        path = self.clip_path("trajectories", clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write_trajectories(
            path,
            clip=clip,
            fingerprint=f"{seed:064x}",
            trajectories=found,
            counts=Counts(finished=count, kept=count),
            params=TrajectoryParams(),
            size=(WIDTH, HEIGHT),
            length=frames,
        )
        return found


def toy_params(repository: Path) -> dict:
    """The params of such a dataset, as they stand in a file."""
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"synthetic": None, "splits": [1], "stack": STACK}
    params["dataset"] |= {"name": "toy", "kind": "folder", "root": "videos", "generate": []}
    params["finetune"]["splits"] = [1]
    params["cubes"]["nets"] = "toy"
    params["fisher"]["splits"] = params["tdd"]["splits"] = params["tdd_cubes"]["splits"] = [1]
    params["trajectories"]["source"] = ["flow"]
    coding = {"samples": 60, "dimensions": 6, "gaussians": 3, "iterations": 5}
    params["tdd"] |= {**coding, "codebook_clips": 2, "step": 1, "batch": 8, "precision": "float32"}
    params["tdd_cubes"] |= coding
    params["run"]["workers"] = 1
    return params


def make_project(folder: Path, repository: Path) -> TddProject:
    """All that is there before the first stage of TDD."""
    project = TddProject(folder, toy_params(repository))
    clips = [
        Clip(name, f"{name}.avi", CLASSES[name[0] == "b"], int(name[0] == "b"), name, {1: roles[0]})
        for name, roles in ROLES.items()
    ]
    write_clips(ClipTable(tuple(clips), CLASSES, (1,)), folder / "data/toy/clips.csv")
    for seed, name in enumerate(ROLES):
        project.write_images(name, seed)
        project.write_trajectories(name, seed, count=0 if name == STILL else 30)
    for kind in ("frames", "flow", "trajectories"):
        write_failures(folder / "data/toy" / kind, [])
    for stream in ("spatial", "temporal"):
        project.write_net(stream)
    return project
