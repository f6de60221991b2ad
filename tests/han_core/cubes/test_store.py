"""Many cube files as one training set."""

from multiprocessing import get_context

import numpy as np
import pytest
import torch

from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip
from han_core.cubes.cubefile import write_cube
from han_core.cubes.moments import glimpse_statistics
from han_core.cubes.prefetch import Prefetched
from han_core.cubes.sparse import SparseCubes
from han_core.cubes.store import CubeStore, CubeStoreError

FRAMES, CHANNELS, SIDE = 3, 4, 2


def make_clip(name, label):
    return Clip(name, f"{name}.avi", f"class{label}", label, name, {1: "train"})


CLIPS = [make_clip(f"clip{n}", n % 2) for n in range(5)]


def write_cubes(folder, clip, values, fingerprint="f" * 64):
    path = folder / clip.class_name / f"{clip.name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with ClipFileWriter(path, kind="cubes", clip=clip.name, fingerprint=fingerprint, attributes={}) as file:
        write_cube(file, values)
        file.array("fc7", values[:, :, 0, 0], codec="zstd")


def random_cubes(seed, frames=FRAMES):
    return np.random.default_rng(seed).random((frames, CHANNELS, SIDE, SIDE)).astype(np.float16)


@pytest.fixture
def folders(tmp_path):
    folders = {stream: tmp_path / stream for stream in ("spatial", "temporal")}
    for s, folder in enumerate(folders.values()):
        for n, clip in enumerate(CLIPS):
            write_cubes(folder, clip, random_cubes(10 * s + n))
    return folders


def test_cubes_come_back_as_they_were_written(folders):
    store = CubeStore(folders, CLIPS)
    assert store.shapes == dict.fromkeys(folders, (FRAMES, CHANNELS, SIDE * SIDE))
    assert store.labels.tolist() == [0, 1, 0, 1, 0]
    batch = store.batch([4, 1])
    memory = store.load()
    for s, stream in enumerate(folders):
        expected = np.stack([random_cubes(10 * s + n).reshape(FRAMES, CHANNELS, -1) for n in (4, 1)])
        np.testing.assert_array_equal(batch[stream].dense(torch.float16).numpy(), expected)
        np.testing.assert_array_equal(memory.batch([4, 1])[stream].dense(torch.float16).numpy(), expected)
        np.testing.assert_array_equal(np.stack([store.read(n)[stream] for n in (4, 1)]), expected)
    assert store.bytes_in_memory == sum(values.bytes for values in memory.arrays.values())


def test_pooled_cubes_are_means_over_the_regions(folders):
    store = CubeStore(folders, CLIPS, pooled=True)
    expected = random_cubes(2).astype(np.float64).mean(axis=(2, 3))
    values = store.read(2)["spatial"]
    assert values.shape == (FRAMES, CHANNELS, 1)
    np.testing.assert_allclose(values[..., 0], expected, atol=1e-6)
    memory = store.load()
    assert store.bytes_in_memory == sum(v.numel() * v.element_size() for v in memory.arrays.values())


@pytest.mark.parametrize("options", [{}, {"pooled": True}, {"array": "fc7"}])
def test_a_subset_is_the_store_of_those_clips_wherever_it_is(folders, options):
    whole, wanted = CubeStore(folders, CLIPS, **options), [4, 1, 2]
    alone = CubeStore(folders, [CLIPS[n] for n in wanted], **options)
    part = whole.subset(wanted)
    assert part.clips == alone.clips
    assert part.contents() == alone.contents()
    assert part.bytes_in_memory == alone.bytes_in_memory
    assert (part.shapes, len(whole)) == (alone.shapes, len(CLIPS))
    for features in (part, part.load(), whole.load().subset(wanted), whole.load().subset([1, 4, 2]).subset([1, 0, 2])):
        assert features.labels.tolist() == alone.labels.tolist()
        for stream, values in alone.batch([2, 0]).items():
            found = features.batch([2, 0])[stream]
            dense = [v.dense(torch.float16) if hasattr(v, "dense") else v for v in (found, values)]
            np.testing.assert_array_equal(*[v.numpy() for v in dense])
        for found, expected in zip(glimpse_statistics(features), glimpse_statistics(alone), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_fully_connected_features_have_one_region(folders):
    store = CubeStore(folders, CLIPS, array="fc7")
    np.testing.assert_array_equal(store.read(0)["spatial"][..., 0], random_cubes(0)[:, :, 0, 0])


@pytest.mark.parametrize("options", [{}, {"pooled": True}, {"array": "fc7"}], ids=str)
def test_loading_onto_a_device_gives_the_same_a_few_clips_at_a_time(folders, options, monkeypatch):
    monkeypatch.setattr("han_core.cubes.store._AT_ONCE", 2)
    store = CubeStore(folders, CLIPS, **options)
    whole, there = store.load(), store.load(torch.device("cpu"))
    for stream, values in there.batch([4, 0, 3]).items():
        one, other = (v.dense() if isinstance(v, SparseCubes) else v for v in (values, whole.batch([4, 0, 3])[stream]))
        assert torch.equal(one, other)
    assert store.load(torch.device("meta")).device.type == "meta"
    across = [cubes.across.bytes for cubes in there.with_across().arrays.values() if isinstance(cubes, SparseCubes)]
    assert store.bytes_across == sum(across)


def test_a_clip_without_a_file_in_both_streams_is_missing_and_said_so(folders):
    (folders["temporal"] / "class1" / "clip1.h5").unlink()
    store = CubeStore(folders, CLIPS)
    assert [clip.name for clip in store.missing] == ["clip1"]
    assert [clip.name for clip in store.clips] == ["clip0", "clip2", "clip3", "clip4"]
    with pytest.raises(CubeStoreError, match="none of the 5 clips"):
        CubeStore({"spatial": folders["spatial"] / "elsewhere"}, CLIPS)


def test_files_of_different_shape_are_refused(folders):
    write_cubes(folders["spatial"], CLIPS[3], random_cubes(3, frames=2))
    with pytest.raises(CubeStoreError, match=r"clip3\.h5 holds \(2, 4, 4\)"):
        CubeStore(folders, CLIPS)


def test_a_store_that_changes_under_the_reader_is_an_error(folders):
    store = CubeStore(folders, CLIPS)
    write_cubes(folders["spatial"], CLIPS[0], random_cubes(99), fingerprint="e" * 64)
    with pytest.raises(CubeStoreError, match="changed while it was in use"):
        store.batch([0])
    (folders["spatial"] / "class1" / "clip1.h5").unlink()
    with pytest.raises(CubeStoreError, match="was there when the run began"):
        store.batch([1])


def test_an_equal_file_in_its_place_changes_nothing(folders):
    store = CubeStore(folders, CLIPS)
    before = store.read(0)["spatial"]
    write_cubes(folders["spatial"], CLIPS[0], random_cubes(0))
    np.testing.assert_array_equal(store.read(0)["spatial"], before)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_any_start_method_read_the_same(folders, method):
    store = CubeStore(folders, CLIPS)
    expected = [store.read(n)["temporal"] for n in range(5)]  # read here first: what a fork inherits must do no harm
    store.batch([0, 1])
    with get_context(method).Pool(2) as pool:
        found = pool.map(store.read, range(5))
    for values, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values["temporal"], wanted)


def test_glimpse_statistics_are_those_of_the_dense_cubes(folders):
    store = CubeStore(folders, CLIPS)
    mean, deviation = glimpse_statistics(store, batch=2)
    for s in range(2):
        cubes = np.stack([random_cubes(10 * s + n) for n in range(5)]).astype(np.float64)
        cubes = cubes.reshape(5 * FRAMES, CHANNELS, -1)
        np.testing.assert_allclose(mean[s], cubes.mean(axis=(0, 2)), rtol=1e-5)
        glimpse = cubes.mean(axis=2).var(axis=0)
        region = cubes.transpose(1, 0, 2).reshape(CHANNELS, -1).var(axis=1)
        expected = np.sqrt(np.maximum(glimpse, region / SIDE**2))
        np.testing.assert_allclose(deviation[s], expected, rtol=1e-4)


def test_prefetching_keeps_the_order(folders):
    store = CubeStore(folders, CLIPS)
    got = [(values["spatial"], labels) for values, labels in Prefetched(store, [[3, 0], [2], [4, 1]])]
    assert [labels.tolist() for _, labels in got] == [[1, 0], [0], [0, 1]]
    for (values, _), indices in zip(got, [[3, 0], [2], [4, 1]], strict=True):
        assert torch.equal(values.dense(), store.batch(indices)["spatial"].dense())


@pytest.fixture
def mirrored(tmp_path):
    """A further view of the clips of ``folders``."""
    folders = {stream: tmp_path / f"{stream}-mirrored" for stream in ("spatial", "temporal")}
    for s, folder in enumerate(folders.values()):
        for n, clip in enumerate(CLIPS):
            write_cubes(folder, clip, random_cubes(100 + 10 * s + n))
    return folders


@pytest.mark.parametrize("kind", [{}, {"pooled": True}, {"array": "fc7"}], ids=["sparse", "pooled", "fc"])
def test_a_further_view_of_a_clip_has_a_number_of_its_own_and_the_clip_s_label(folders, mirrored, kind):
    store = CubeStore(folders, CLIPS, further={"mirrored": mirrored}, **kind)
    plain, other = CubeStore(folders, CLIPS, **kind), CubeStore(mirrored, CLIPS, **kind)
    memory = store.load()
    assert store.views == memory.views == ("", "mirrored")
    assert plain.views == plain.load().views == ("",)
    assert len(store) == 5
    wanted = [3, 8, 6, 0]
    for features in (store, memory):
        ((values, labels),) = Prefetched(features, [wanted])
        assert labels.tolist() == [1, 1, 1, 0]
        for stream, found in values.items():
            parts = [(other if n >= 5 else plain).batch([n % 5])[stream] for n in wanted]
            assert torch.equal(dense(found), torch.cat([dense(part) for part in parts]))
    if not kind:
        assert store.bytes_in_memory == sum(values.bytes for values in memory.arrays.values())
    elif "pooled" in kind:
        assert store.bytes_in_memory == sum(v.numel() * v.element_size() for v in memory.arrays.values())
    for a, b in zip(glimpse_statistics(store), glimpse_statistics(plain), strict=True):
        assert torch.equal(a, b), "what is measured is the plain view"


def dense(values):
    return values.dense() if hasattr(values, "dense") else values


def test_a_part_of_the_clips_keeps_all_their_views(folders, mirrored):
    store = CubeStore(folders, CLIPS, further={"mirrored": mirrored})
    memory = store.load()
    for part in (store.subset([4, 1]), memory.subset([4, 1])):
        assert part.views == ("", "mirrored")
        assert part.labels.tolist() == [0, 1]
        expected = store.batch([4, 1, 9, 6])
        for stream, values in part.batch([0, 1, 2, 3]).items():
            assert torch.equal(values.dense(), expected[stream].dense())


def test_a_clip_without_one_of_its_views_is_missing(folders, mirrored):
    (mirrored["temporal"] / "class1" / "clip1.h5").unlink()
    store = CubeStore(folders, CLIPS, further={"mirrored": mirrored})
    assert [clip.name for clip in store.missing] == ["clip1"]
    for stream, values in store.batch([4]).items():
        expected = CubeStore({stream: mirrored[stream]}, CLIPS[:1]).batch([0])[stream]
        assert torch.equal(values.dense(), expected.dense()), "four clips are left, so the fifth number is a view"


def test_another_view_is_other_content_and_the_plain_one_s_alone_is_what_it_was(folders, mirrored):
    plain = CubeStore(folders, CLIPS).contents()
    both = CubeStore(folders, CLIPS, further={"mirrored": mirrored}).contents()
    assert plain.keys() == both.keys()
    assert all(plain[name] != both[name] for name in plain)
    entries = [CubeStore({stream: folder}, CLIPS).contents() for stream, folder in folders.items()]
    assert plain == {name: " ".join(part[name] for part in entries) for name in plain}
