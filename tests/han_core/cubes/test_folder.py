"""A store of shards is the store of the files that are in them."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clips import Clip
from han_core.cubes.cubefile import write_cubes
from han_core.cubes.dataset import CubeDataset
from han_core.cubes.folder import CubeFolder, files_of
from han_core.cubes.shard import write_shard
from han_core.cubes.store import CubeStore, CubeStoreError
from tests.clip_samples import write_frames_file

CLIPS = [
    Clip(f"clip{n}", f"{n}.avi", f"class{n % 2}", n % 2, "g", {1: "train"}) for n in (4, 2, 0, 1, 3)
]  # not in the order of the files


def write_clip(folder: Path, clip: Clip, seed: int = 0) -> Path:
    path = folder / clip.class_name / f"{clip.name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng([seed, *clip.name.encode()]).standard_normal((3, 8, 4, 4))
    values = np.maximum(values, 0).astype(np.float16)
    write_cubes(
        path,
        clip=clip.name,
        fingerprint="f" * 64,
        frames=np.arange(3, dtype=np.int32),
        layer="conv5_3",
        fc="fc7",
        values={"conv5_3": values, "fc7": values[:, :, 0, 0]},
        attributes={"stream": "spatial"},
    )
    return path


def sharded(folder: Path, target: Path) -> None:
    """One shard of each class, but for the first clip of the first, which has its own."""
    for of_class in sorted(folder.iterdir()):
        files = sorted(of_class.glob("*.h5"))
        for part in (files[:1], files[1:]) if of_class.name == "class0" else (files,):
            shard = target / of_class.name / "shards" / f"{part[0].stem}.h5"
            shard.parent.mkdir(parents=True, exist_ok=True)
            write_shard(shard, name=part[0].stem, fingerprint="5" * 64, files={path.stem: path for path in part})


@pytest.fixture
def both(tmp_path):
    """The same clips as files, and as shards."""
    for clip in CLIPS:
        write_clip(tmp_path / "files", clip)
    sharded(tmp_path / "files", tmp_path / "shards")
    return tmp_path / "files", tmp_path / "shards"


@pytest.mark.parametrize("options", [{}, {"pooled": True}, {"array": "fc7"}], ids=["cubes", "pooled", "fc7"])
def test_a_store_of_shards_is_the_store_of_their_files(both, options):
    files, shards = (CubeStore({"spatial": folder}, CLIPS, **options) for folder in both)
    assert shards.clips == files.clips == CLIPS
    assert (shards.shapes, shards.bytes_in_memory) == (files.shapes, files.bytes_in_memory)
    assert shards.contents() == files.contents(), "what was trained on is the same"
    assert shards.attributes("spatial") == files.attributes("spatial")
    assert shards.attributes("spatial")["layer"] == "conv5_3"
    np.testing.assert_array_equal(shards.frames(), files.frames())
    assert shards.median_length() == files.median_length()
    for one, other in (
        (shards.batch([3, 0])["spatial"], files.batch([3, 0])["spatial"]),
        (shards.load().batch([4, 1])["spatial"], files.load().batch([4, 1])["spatial"]),
        (shards.subset([2, 1]).batch([1])["spatial"], files.subset([2, 1]).batch([1])["spatial"]),
    ):
        one, other = (values if isinstance(values, torch.Tensor) else values.dense() for values in (one, other))
        assert torch.equal(one, other)


def test_clips_that_no_shard_has_are_missing(both):
    (both[1] / "class0/shards/clip0.h5").unlink()
    store = CubeStore({"spatial": both[1]}, CLIPS)
    assert [clip.name for clip in store.missing] == ["clip0"]


def test_a_shard_that_changes_while_it_is_in_use_is_noticed(both):
    store = CubeStore({"spatial": both[1]}, CLIPS)
    shard = both[1] / "class1/shards/clip1.h5"
    shutil.copy(shard, shard.with_suffix(".new"))
    shard.with_suffix(".new").rename(shard)
    store.batch([3])  # an equal one is as good
    files = {clip.name: write_clip(both[0].parent / "other", clip, seed=1) for clip in CLIPS if clip.label}
    write_shard(shard.with_suffix(".new"), name="clip1", fingerprint="5" * 64, files=files)
    shard.with_suffix(".new").rename(shard)
    with pytest.raises(CubeStoreError, match=r"clip1\.h5 changed while it was in use"):
        store.batch([3])


def test_a_damaged_shard_is_a_plain_error(both):
    shard = both[1] / "class1/shards/clip1.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CubeStoreError, match=r"clip1\.h5: is not a finished clip file"):
        CubeStore({"spatial": both[1]}, CLIPS)
    with pytest.raises(ClipFileError, match=r"clip1\.h5: is not a finished clip file"):
        CubeDataset(both[1])


def test_a_dataset_of_shards(both):
    files, shards = map(CubeDataset, both)
    assert (shards.clips, shards.classes) == (files.clips, files.classes)
    assert files.clips[0] == "class0/clip0"
    for number in range(len(CLIPS)):
        assert torch.equal(shards[number][0], files[number][0])
        assert shards[number][1] == files[number][1]


def test_files_of_another_kind_are_no_dataset(both):
    path = both[0].parent / "frames/class0/clip0.h5"
    path.parent.mkdir(parents=True)
    write_frames_file(path)
    with pytest.raises(ClipFileError, match=r"frames: holds files of kind frames, not cubes; name the folder of one"):
        CubeDataset(path.parents[1])


def test_a_damaged_first_file_is_told_when_it_is_read(both):
    (both[0] / "class0/clip0.h5").write_bytes(b"nothing of a cube")
    dataset = CubeDataset(both[0])
    assert dataset[1][1] == 0
    with pytest.raises(ClipFileError, match=r"clip0\.h5: is not a finished clip file"):
        dataset[0]


def test_a_clip_as_a_file_of_its_own_in_another_process(both):
    found = [CubeFolder(folder).find("class0", "clip4").absolute() for folder in both]
    plain, part = pickle.loads(pickle.dumps(found))
    assert part.path == both[1] / "class0/shards/clip2.h5"
    with files_of({"plain": plain, "part": part}) as files:
        assert files["plain"] == both[0] / "class0/clip4.h5", "no copy where there is a file"
        assert files["part"].read_bytes() == files["plain"].read_bytes()
        with ClipFile(files["part"]) as file:
            assert file.clip == "clip4"
    assert not files["part"].exists()
    assert files["plain"].exists()


def test_a_clip_that_is_nowhere(both):
    for folder in map(CubeFolder, both):
        assert not folder.has("class0", "clip9")
        with pytest.raises(ClipFileError, match=r"clip9\.h5: cannot be opened"):
            folder.find("class0", "clip9")
