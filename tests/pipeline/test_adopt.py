"""Keeping files when code was changed and makes the same: shown on a sample, or refused with the first difference."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from han_core.cache import housekeeping
from han_core.cache.fingerprint import code_of, without_code
from han_core.cache.store import ClipCache
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from pipeline import adopt, decode
from pipeline.execution.code import stage_code
from pipeline.execution.ledger import read_failures
from tests.make_videos import make_video

OLD = "0123456789abcdef"
NAMES = [f"c{number}" for number in range(6)]


class Project:
    """Six decoded videos, whose files in the cache are then said to be those of other code."""

    def __init__(self) -> None:
        self.cache = ClipCache(".han_cache")

    def make(self, repository: Path) -> None:
        params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
        params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
        params |= {"synthetic": None}
        params["cubes"]["nets"] = "toy"
        params["run"]["workers"] = 1
        Path("params.yaml").write_text(yaml.safe_dump(params))
        clips = []
        for seed, name in enumerate(NAMES):
            path = Path("videos/wave", f"{name}.avi")
            path.parent.mkdir(parents=True, exist_ok=True)
            make_video(path, 3, seed=seed)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            clips.append(Clip(name, f"wave/{name}.avi", "wave", 0, name, {1: "train"}, digest))
        write_clips(ClipTable(tuple(clips), ("wave",), (1,)), "data/toy/clips.csv")
        self.run(decode.main)

    def run(self, command: object, *arguments: str, code: int = 0) -> str:
        result: Result = CliRunner().invoke(command, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result.output

    def age(self, code: str = OLD) -> None:
        """As if today's code were new, and all files had been made by the code before."""
        for path in self.cache.root.glob(f"*/*/*-{stage_code('decode')}.h5"):
            path.rename(path.with_name(f"{without_code(path.stem)}-{code}.h5"))

    def codes(self) -> dict[str, int]:
        found = [code_of(entry.fingerprint) for entry in housekeeping.entries(self.cache)]
        return {code: found.count(code) for code in set(found)}


pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def made(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HAN_CACHE", raising=False)
        Project().make(repository)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    subprocess.run(["cp", "-a", f"{made}/.", tmp_path], check=True)  # hard links stay hard links
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return Project()


def test_files_of_equal_code_are_adopted_as_hard_links(project):
    project.age()
    said = project.run(adopt.main, "decode", "--sample", "2")
    today = stage_code("decode")
    assert f"decode: code {OLD} -> {today}: 2 clips made again, all equal; 6 of 6 files adopted" in said
    assert project.codes() == {OLD: 6, today: 6}
    assert {entry.links for entry in housekeeping.entries(project.cache)} == {3}, "one file, its output's name too"
    assert "6 clips: 6 reused, 0 computed" in project.run(decode.main)
    assert "6 of 6 files adopted" in Path("logs/toy/adopt-decode.log").read_text()
    assert "nothing to adopt" in project.run(adopt.main, "decode")
    assert list(Path(".han_cache/tmp").iterdir()) == []


def test_without_it_the_files_of_other_code_are_not_used(project):
    project.age()
    assert "6 clips: 0 reused, 6 computed" in project.run(decode.main)


def test_a_file_that_differs_is_named_and_nothing_is_adopted(project):
    project.age()
    (path,) = (e.path for e in housekeeping.entries(project.cache) if read_trailer(e.path).clip == "c3")
    with ClipFile(path) as file:
        pictures = [file.image_bytes("frames", i) for i in range(3)]
        attributes, fingerprint = file.attributes, file.fingerprint
    path.unlink()
    with ClipFileWriter(path, kind="frames", clip="c3", fingerprint=fingerprint, attributes=attributes) as writer:
        images = writer.images("frames")
        for picture in [pictures[0], pictures[2], pictures[2]]:
            images.append(picture)
    said = project.run(adopt.main, "decode", "--sample", "6", code=1)
    assert "wave/c3 is not the same: image 1 of frames. Nothing is adopted" in said
    assert set(project.codes()) == {OLD}


def test_other_versions_of_libraries_are_no_difference(project, monkeypatch):
    project.age()
    for entry in housekeeping.entries(project.cache):
        with ClipFile(entry.path) as file:
            pictures = [file.image_bytes("frames", i) for i in range(3)]
            facts, attributes = (file.clip, file.fingerprint), file.attributes
        entry.path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr("han_core.clipfile.writer.made_with", lambda **_: {"numpy": "0.1"})
            writer = ClipFileWriter(
                entry.path, kind="frames", clip=facts[0], fingerprint=facts[1], attributes=attributes
            )
        with writer:
            images = writer.images("frames")
            for picture in pictures:
                images.append(picture)
    assert "6 of 6 files adopted" in project.run(adopt.main, "decode", "--sample", "6")


def test_a_damaged_file_stays_behind_and_is_made_again(project):
    project.age()
    path = sorted(entry.path for entry in housekeeping.entries(project.cache))[0]
    status = path.stat()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    clip = read_trailer(path).clip
    drawn = next(seed for seed in range(99) if clip not in sample_of(seed))
    said = project.run(adopt.main, "decode", "--sample", "2", "--seed", str(drawn))
    assert "5 of 6 files adopted" in said
    assert "6 clips: 5 reused, 1 computed" in project.run(decode.main)


def sample_of(seed: int) -> list[str]:
    """The clips that are drawn, as :func:`pipeline.adopt.adopt` draws them."""
    return random.Random(seed).sample(NAMES, 2)


def test_it_goes_on_where_it_was_killed(project, monkeypatch):
    project.age()
    adopted = ClipCache.adopt

    def killed(self: ClipCache, *arguments: str) -> None:
        if len(project.codes()) > 1 and project.codes()[stage_code("decode")] == 3:
            raise KeyboardInterrupt
        adopted(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ClipCache, "adopt", killed)
        CliRunner().invoke(adopt.main, ["decode", "--sample", "1"])
    assert project.codes()[stage_code("decode")] == 3
    assert "3 of 3 files adopted" in project.run(adopt.main, "decode", "--sample", "1")


def test_of_several_codes_one_is_taken_and_said(project):
    project.age("a" * 16)
    project.run(decode.main)
    project.age("b" * 16)
    said = project.run(adopt.main, "decode", "--from", "b" * 16)
    assert "files of several codes" in said
    assert f"code {'b' * 16} ->" in said


def test_of_several_codes_that_of_the_outputs_is_the_code_before(project):
    """Something was tried that changed the files, and undone, before the code was put in order."""
    project.age("f" * 16)
    for entry in list(housekeeping.entries(project.cache)):
        with ClipFile(entry.path) as file:
            clip, fingerprint = file.clip, file.fingerprint
        tried = entry.path.with_name(f"{fingerprint}-{'0' * 16}.h5")
        with ClipFileWriter(tried, kind="frames", clip=clip, fingerprint=fingerprint) as writer:
            writer.images("frames").append(b"another picture")
    said = project.run(adopt.main, "decode", "--sample", "1")
    assert f"code {'f' * 16} ->" in said
    assert "6 of 6 files adopted" in said


def test_new_settings_are_not_a_matter_of_code(project):
    project.age()
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["decode"]["quality"] = 90
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "6 clips have no file of today's code" in project.run(adopt.main, "decode")


@pytest.mark.parametrize("name", ["train", "decode@1", "cubes-sideways", "cubes@7"])
def test_other_stages_are_refused(project, name):
    assert f"{name}: is no stage that makes a file for each clip" in project.run(adopt.main, name, code=1)


def test_a_stage_whose_process_holds_a_net(nets_project):
    nets_project.ok("finetune")
    nets_project.ok("cubes")
    old = {path: path.read_bytes() for path in nets_project.cached("cubes")}
    for path in old:
        path.rename(path.with_name(f"{without_code(path.stem)}-{OLD}.h5"))
    for name in ("cubes-spatial@1", "cubes-spatial"):
        result = CliRunner().invoke(adopt.main, [name, "--sample", "3"])
        if name == "cubes-spatial":  # the net of split 2 is not there
            assert "spatial-2.safetensors: is missing" in result.output
        else:
            assert "3 clips made again, all equal; 6 of 6 files adopted" in result.output, result.output
    assert "6 reused, 0 computed" in nets_project.ok("cubes")
    assert read_failures(nets_project.folder / "data/toy/cubes/spatial-1") == {}
