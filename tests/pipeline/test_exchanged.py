"""Files that were exchanged after they were made: each is sound by itself, and its label is the folder it lies in."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clips import read_clips
from pipeline.clip_scores import read_clip_scores
from pipeline.execution.clip_tasks import clip_tasks
from pipeline.execution.contents import CONTENTS, contents_of, write_contents
from pipeline.features import open_store
from pipeline.net_training import clip_files
from pipeline.params import load_params
from pipeline.paths import Paths
from tests.pipeline.toy_store import CLASSES, FRAMES, write_store

A, B = f"{CLASSES[0]}/clip00", f"{CLASSES[1]}/clip01"


@pytest.fixture(scope="module")
def sound(repository, tmp_path_factory):
    """A store whose folders have their lists."""
    folder = tmp_path_factory.mktemp("sound")
    settings = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    settings["synthetic"] = None
    settings["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    settings["cubes"].update(nets="toy", frames=FRAMES)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    write_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = load_params(Path("params.yaml"))
        for one in folders(params):
            made = {clip.key: (clip, read_trailer(one / f"{clip.key}.h5").content) for clip in clips(params)}
            write_contents(one, made, [])
    return folder


@pytest.fixture
def params(sound, tmp_path, monkeypatch):
    """Of a copy of it."""
    shutil.copytree(sound, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return load_params(Path("params.yaml"))


def folders(params):
    paths = Paths.of(params)
    return paths.frames, paths.cubes("spatial", 1), paths.cubes("temporal", 1), *scores(params)


def scores(params):
    root = Paths.of(params).frames.parent / "scores"
    return root / "spatial-1", root / "temporal-1"


def clips(params):
    return read_clips(Paths.of(params).clips).select(1, "train")


def exchange(folder, one=A, other=B):
    first, second, beside = folder / f"{one}.h5", folder / f"{other}.h5", folder / "beside"
    os.replace(first, beside), os.replace(second, first), os.replace(beside, second)


def store(params):
    return open_store(params, 1, clips(params), streams=("spatial", "temporal"), array="cubes", pooled=False)


def test_nothing_is_said_of_files_that_are_where_they_were_made(params):
    assert clip_tasks(clips(params), [(Paths.of(params).frames, "frames")], str)[2] == {}
    assert len(store(params)) == len(clips(params))
    assert len(read_clip_scores(clips(params), scores(params))[0]) == len(clips(params))
    assert clip_files(Paths.of(params).frames, read_clips(Paths.of(params).clips), 1, "train").identity()


def test_a_stage_makes_nothing_of_another_clips_frames(params):
    frames = Paths.of(params).frames
    exchange(frames)
    tasks, failed, faults = clip_tasks(clips(params), [(frames, "frames")], str)
    assert failed == {}
    assert faults.keys() == {A, B}
    assert "is not the file that the list beside it (contents.csv) names for clip left/clip00" in faults[A]
    assert "made by stage decode" in faults[A]
    assert sorted(task.clip.key for task in tasks if not task.fingerprint) == [A, B]
    with pytest.raises(ClipFileError, match="run that stage again"):
        clip_files(frames, read_clips(Paths.of(params).clips), 1, "train").identity()


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_no_model_learns_from_another_clips_cubes(params, stream):
    exchange(Paths.of(params).cubes(stream, 1))
    with pytest.raises(ClipFileError, match=rf"{stream}-1.left.clip00\.h5: is not the file"):
        store(params)


def test_no_prediction_is_made_of_another_clips_scores(params):
    exchange(scores(params)[1])
    with pytest.raises(ClipFileError, match="is not the file"):
        read_clip_scores(clips(params), scores(params))


def test_folders_of_two_streams_that_were_exchanged_are_noticed(params, monkeypatch):
    monkeypatch.setattr(
        "han_core.cubes.store.CubeStore.attributes",
        lambda self, stream: {"stream": {"spatial": "temporal", "temporal": "spatial"}[stream]},
    )
    with pytest.raises(ClipFileError, match="spatial-1: holds cubes of the temporal stream"):
        store(params)


def test_without_a_list_and_of_clips_that_are_not_in_it_nothing_is_asked(params):
    frames = Paths.of(params).frames
    exchange(frames)
    files = {key: frames / f"{key}.h5" for key in (A, B)}
    with pytest.raises(ClipFileError, match="is not the file"):
        contents_of(files)
    write_contents(frames, {}, [])
    assert contents_of(files).keys() == files.keys()
    (frames / CONTENTS).unlink()
    assert contents_of(files).keys() == files.keys()


def test_a_damaged_list_is_told(params):
    frames = Paths.of(params).frames
    content = (frames / CONTENTS).read_bytes()
    (frames / CONTENTS).write_bytes(content.replace(b"clip00", b"clip77"))
    with pytest.raises(ClipFileError, match=r"contents\.csv.*run the stage that made it again"):
        contents_of({A: frames / f"{A}.h5"})
