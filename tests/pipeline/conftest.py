"""A tiny dataset as stages decode and flow would leave it, for the stages that run nets."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from pipeline import cubes, finetune, scores
from pipeline.execution.ledger import write_failures
from pipeline.params import SYSTEMS

CLASSES = ("left", "right")
ROLES = {  # clip -> roles in splits 1 and 2
    "a1": ("train", "test"),
    "a2": ("train", "train"),
    "a3": ("test", "train"),
    "b1": ("train", "test"),
    "b2": ("validation", "train"),
    "b3": ("test", ""),
}
FLOW_ATTRIBUTES = {"width": 32, "height": 24, "bound": 20.0, "rounding": "nearest", "codec": "png", "quality": 95}
SEEDS = {name: number for number, name in enumerate(sorted(ROLES))}


@dataclass
class NetsProject:
    """A project folder with frames and flow of six clips, and the params to run stages finetune and cubes."""

    folder: Path
    params: dict
    runner: CliRunner = field(default_factory=CliRunner)

    def run(self, stage: str, stream: str = "spatial", split: int = 1) -> Result:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")
        command = {"finetune": finetune.main, "cubes": cubes.main, "scores": scores.main}[stage]
        return self.runner.invoke(command, ["--stream", stream, "--split", str(split)])

    def ok(self, stage: str, stream: str = "spatial", split: int = 1) -> str:
        result = self.run(stage, stream, split)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refused(self, stage: str, stream: str = "spatial", split: int = 1) -> str:
        result = self.run(stage, stream, split)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), result.exception  # no traceback
        return result.output

    def clip_path(self, kind: str, clip: str) -> Path:
        return self.folder / "data/toy" / kind / CLASSES[clip.startswith("b")] / f"{clip}.h5"

    def write_clip(self, clip: str, seed: int) -> None:
        """Three noisy frames and the two flow fields between them; another seed is another content."""
        random = np.random.default_rng(seed)
        for kind, names, count, shape in (
            ("frames", ("frames",), 3, (24, 32, 3)),
            ("flow", ("x", "y"), 2, (24, 32)),
        ):
            path = self.clip_path(kind, clip)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            said = FLOW_ATTRIBUTES if kind == "flow" else {}
            with ClipFileWriter(path, kind=kind, clip=clip, fingerprint=f"{seed:064x}", attributes=said) as file:
                for name in names:
                    images = file.images(name)
                    for _ in range(count):
                        images.append(cv2.imencode(".png", random.integers(0, 256, shape, np.uint8))[1])

    def net(self, stream: str = "spatial", split: int = 1) -> Path:
        return self.folder / f"models/toy/nets/{stream}-{split}.safetensors"

    def curve(self, stream: str = "spatial", split: int = 1) -> Path:
        return self.folder / f"plots/toy/finetune/{stream}-{split}"

    def made(self, stream: str = "spatial", split: int = 1) -> dict[str, bytes]:
        """Name -> content of the net and of all files of its curve; empty before there are any."""
        paths = [self.net(stream, split), *self.curve(stream, split).rglob("*")]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}

    def forget(self, stream: str = "spatial", split: int = 1) -> None:
        """Delete them."""
        self.net(stream, split).unlink()
        shutil.rmtree(self.curve(stream, split))

    def cached(self, kind: str) -> list[Path]:
        return sorted((self.folder / ".han_cache" / kind).glob("*/*"))


@pytest.fixture
def nets_project(repository, tmp_path, monkeypatch) -> NetsProject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"synthetic": None, "splits": [1, 2], "stack": 2}
    params["dataset"] |= {"name": "toy", "kind": "folder", "root": "videos", "generate": []}
    params["finetune"] = {"splits": [1, 2]} | {
        stream: {"weights": "random", "fc_size": 8, "iterations": 0, "batch": 4, "micro_batch": 2}
        for stream in ("spatial", "temporal")
    }
    for group in SYSTEMS.values():
        params[group]["splits"] = []
    params["cubes"] |= {"nets": "toy", "frames": 2, "batch": 2, "precision": "float32"}
    params["scores"] |= {"frames": 2, "crops": 5, "precision": "float32"}
    project = NetsProject(tmp_path, params)
    table = [
        Clip(name, f"{name}.avi", CLASSES[name[0] == "b"], int(name[0] == "b"), name, dict(enumerate(roles, start=1)))
        for name, roles in ROLES.items()
    ]
    write_clips(ClipTable(tuple(table), CLASSES, (1, 2)), tmp_path / "data/toy/clips.csv")
    for name, seed in SEEDS.items():
        project.write_clip(name, seed)
    for kind in ("frames", "flow"):
        write_failures(tmp_path / "data/toy" / kind, [])
    return project


@pytest.fixture
def small_training_images(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Training at 224x224 takes a second per image on one core; nothing in these tests depends on the size."""
    from han_core.finetune import batches as feed

    whole = feed.apply_views
    monkeypatch.setattr(feed, "apply_views", lambda *args, **options: whole(*args, **options, size=32))
    return whole


@pytest.fixture
def small_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nets, drawn or read from a file, a sixteenth as wide as VGG-16."""
    from han_core.nets import net_file, weights
    from tests.small_net import SmallVGG16

    for module in (net_file, weights):
        monkeypatch.setattr(module, "empty_net", SmallVGG16)
