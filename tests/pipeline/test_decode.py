"""Stage decode on real files: odd ones decode, broken ones are reported, edits touch what they must."""

import hashlib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clips import Clip, ClipTable, write_clips
from pipeline.decode import main
from pipeline.execution.ledger import read_failures
from tests.make_videos import make_size_change, make_truncated, make_video


class Project:
    """A folder with videos of one class, and stage decode."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.root = folder / "videos"
        self.params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
        self.params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
        self.params["synthetic"] = None
        self.params["cubes"]["nets"] = "toy"
        self.params["run"].update(workers=1)

    def prepare(self) -> None:
        clips = []
        for path in sorted(self.root.rglob("*.*")):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            clips.append(Clip(path.stem, f"wave/{path.name}", "wave", 0, path.stem, {1: "train"}, sha256))
        write_clips(ClipTable(tuple(clips), ("wave",), (1,)), "data/toy/clips.csv")

    def run(self, *, allowed: int = 0):
        self.params["dataset"]["allowed_failures"] = allowed
        Path("params.yaml").write_text(yaml.safe_dump(self.params))
        result = CliRunner().invoke(main)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def frames(self, clip: str) -> Path:
        return Path("data/toy/frames/wave", f"{clip}.h5")


@pytest.fixture
def project(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return Project(tmp_path, repository)


def test_videos_become_frames_files(project):
    for name, count in (("a", 3), ("b", 1), ("c", 5)):
        make_video(project.root / "wave" / f"{name}.avi", count)
    project.prepare()
    result = project.run()
    assert result.exit_code == 0, result.output
    assert "3 videos of videos to JPEG 95, in their own size" in result.output
    assert "decode: 3 clips: 0 reused, 3 computed, 0 failed; files in data/toy/frames" in result.output
    for name, count in (("a", 3), ("b", 1), ("c", 5)):
        verify_clip_file(project.frames(name))
        with ClipFile(project.frames(name)) as file:
            assert (file.clip, file.kind, file.attributes["count"]) == (name, "frames", count)
    assert Path("logs/toy/decode.log").exists()


def test_edits_touch_only_what_they_must(project):
    for name in "abc":
        make_video(project.root / "wave" / f"{name}.avi", 4)
    project.prepare()
    project.run()
    before = project.frames("a").read_bytes()
    make_video(project.root / "wave" / "d.avi", 6)
    project.prepare()
    assert "4 clips: 3 reused, 1 computed" in project.run().output
    project.params["decode"]["quality"] = 60
    assert "4 clips: 0 reused, 4 computed" in project.run().output
    assert project.frames("a").read_bytes() != before
    project.params["decode"]["quality"] = 95
    project.params["run"]["workers"] = 2
    assert "4 clips: 4 reused, 0 computed" in project.run().output
    assert project.frames("a").read_bytes() == before


def test_short_side(project):
    make_video(project.root / "wave" / "a.avi", 2)
    project.prepare()
    project.params["decode"]["short_side"] = 32
    assert "shorter side at most 32" in project.run().output
    with ClipFile(project.frames("a")) as file:
        assert file.image("frames", 1).shape == (32, 43, 3)


def test_every_broken_video_is_a_plain_row_and_stops_nobody(project):
    folder = project.root / "wave"
    make_video(folder / "good.avi", 4)
    make_video(folder / "one.avi", 1)
    make_truncated(folder / "cut.avi")
    (folder / "empty.avi").touch()
    (folder / "text.avi").write_text("not a video at all")
    make_size_change(folder / "size.mjpeg")
    make_size_change(folder / "size2.avi")
    make_video(folder / "gone.avi", 4, seed=1)
    make_video(folder / "changed.avi", 4, seed=2)
    make_video(folder / "swap.avi", 4, seed=4)
    project.prepare()
    (folder / "gone.avi").unlink()
    make_video(folder / "changed.avi", 5, seed=3)
    (folder / "swap.avi").unlink()
    (folder / "swap.avi").mkdir()
    refused = project.run(allowed=7)
    assert refused.exit_code == 1
    assert "clips failed, 7 allowed (dataset.allowed_failures)" in refused.output
    assert "Traceback" not in refused.output
    result = project.run(allowed=8)
    assert result.exit_code == 0
    assert "10 clips: 2 reused, 0 computed, 8 failed" in result.output
    reasons = read_failures("data/toy/frames")
    size = len((folder / "cut.avi").read_bytes())
    missing = int(reasons["wave/cut"].split()[6])
    assert reasons == {
        "wave/changed": "the video file has changed since prepare; run prepare again",
        "wave/cut": f"the video file is cut off: {missing} of {size + missing} bytes are missing",
        "wave/empty": "the video file is empty",
        "wave/gone": "the video file is missing",
        "wave/size": "the video changes size from 64x48 to 32x40 at picture 6",
        "wave/size2": "the video changes size from 64x48 to 32x40 at picture 6",
        "wave/swap": "the video file cannot be read (Is a directory)",
        "wave/text": "the file is not a video that can be decoded",
    }
    kept = Path("data/toy/frames/failures.csv").read_bytes()
    project.run(allowed=8)
    assert Path("data/toy/frames/failures.csv").read_bytes() == kept
    assert "Traceback" not in Path("logs/toy/decode.log").read_text()


def test_odd_videos(project, shared_data):
    """All nine, of other sizes, rates and codecs, through the whole stage."""
    folder = project.root / "wave"
    folder.mkdir(parents=True)
    for path in (shared_data / "odd_videos").glob("*.[am][vp][i4]"):
        (folder / path.name).symlink_to(path)
    project.prepare()
    project.params["run"]["workers"] = 2
    assert "9 clips: 0 reused, 9 computed, 0 failed" in project.run().output
    counts = {}
    for path in sorted(Path("data/toy/frames/wave").iterdir()):
        with ClipFile(path) as file:
            counts[path.stem] = file.attributes["count"]
            assert file.attributes["count"] == file.image_count("frames") == file.attributes["packets"]
    assert list(counts.values()) == [39, 94, 60, 31, 300, 50, 36, 164, 107]


def test_without_clips_csv(project):
    result = project.run()
    assert result.exit_code == 1
    assert "data/toy/clips.csv: cannot be read" in result.output


def test_help():
    assert "Decode the videos" in CliRunner().invoke(main, ["--help"]).output
