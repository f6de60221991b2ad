"""Samples of one clip as a file: they come back, and what cannot be samples is refused."""

import numpy as np
import pytest

from han_core.baselines.tdd.samplefile import KIND, read_samples, write_samples
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter

SAMPLES = {
    "conv5_3_st": np.random.default_rng(1).uniform(0, 3.87, (5, 8)).astype(np.float32),
    "conv4_3_st": np.random.default_rng(2).uniform(0, 3.87, (5, 6)).astype(np.float32),
}


def test_samples_come_back_in_float16s_precision_and_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        facts = {"attributes": {"tracks": 5}, "torch_threads": 1}
        write_samples(tmp_path / f"{name}.h5", clip="a", fingerprint="f" * 64, samples=SAMPLES, **facts)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    found = read_samples(tmp_path / "a.h5")
    assert list(found) == ["conv4_3_st", "conv5_3_st"]
    for channel, values in found.items():
        np.testing.assert_array_equal(values, SAMPLES[channel].astype(np.float16))


def written(path, arrays, kind=KIND):
    with ClipFileWriter(path, kind=kind, clip="a", fingerprint="f" * 64) as file:
        for name, values in arrays.items():
            file.array(name, values)
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"x": np.zeros((2, 3), np.float32)},
        {"x": np.zeros(3, np.float16)},
        {"x": np.zeros((2, 0), np.float16)},
        {"x": np.zeros((2, 3), np.float16), "y": np.zeros((3, 3), np.float16)},
    ],
    ids=["none", "type", "rank", "no dimensions", "counts"],
)
def test_what_cannot_be_samples_is_refused(tmp_path, arrays):
    with pytest.raises(ClipFileError, match=r"a\.h5: clip a: its arrays are not descriptors of one sample"):
        read_samples(written(tmp_path / "a.h5", arrays))


def test_another_kind_and_numbers_that_are_not_finite_are_told(tmp_path):
    with pytest.raises(ClipFileError, match="is a file of kind fisher and holds no samples"):
        read_samples(written(tmp_path / "a.h5", {"x": np.zeros((2, 3), np.float16)}, kind="fisher"))
    with pytest.raises(ClipFileError, match="not finite"):
        read_samples(written(tmp_path / "b.h5", {"x": np.full((2, 3), np.nan, np.float16)}))


def test_a_flipped_bit_is_told(tmp_path):
    write_samples(tmp_path / "a.h5", clip="a", fingerprint="f" * 64, samples=SAMPLES, attributes={})
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[content.index(b"\x28\xb5\x2f\xfd") + 20] ^= 1  # in the first zstd frame
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ClipFileError, match=r"a\.h5"):
        read_samples(tmp_path / "a.h5")
