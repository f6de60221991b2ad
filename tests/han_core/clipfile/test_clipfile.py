"""The file of one clip: same bytes for the same content, every flipped bit found, plain errors."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import TRAILER_BYTES, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter

FINGERPRINT = "ab" * 32
CLIP = "v_Ünder#[1] & co"


def write(path: Path, *, images: int = 3, attributes: dict | None = None) -> Path:
    rng = np.random.default_rng(7)
    given = {"width": 8, "fps": 12.5, "note": "x", "empty": "", "sizes": [1, 2]} if attributes is None else attributes
    with ClipFileWriter(path, kind="frames", clip=CLIP, fingerprint=FINGERPRINT, attributes=given) as writer:
        frames = writer.images("frames")
        for i in range(images):
            picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            frames.append(cv2.imencode(".png", picture)[1].tobytes())
            writer.attributes["count"] = i + 1
        cube = rng.normal(size=(10, 4, 3, 3)).astype(np.float16).clip(0)
        writer.array("cubes", cube, codec="zstd")
        writer.array("parts/values", cube, codec="shuffle-zstd")
        writer.array("index", np.arange(5, dtype=np.int32))
    return path


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / "a.h5")
    rng = np.random.default_rng(7)
    pictures = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(3)]
    cube = rng.normal(size=(10, 4, 3, 3)).astype(np.float16).clip(0)
    with ClipFile(path) as file:
        assert (file.kind, file.clip, file.fingerprint) == ("frames", CLIP, FINGERPRINT)
        attributes = file.attributes
        assert attributes.pop("sizes").tolist() == [1, 2]
        assert attributes == {"width": 8, "fps": 12.5, "note": "x", "empty": "", "count": 3}
        assert type(attributes["width"]) is int
        assert type(attributes["fps"]) is float
        assert file.image_count("frames") == 3
        for i, picture in enumerate(pictures):
            np.testing.assert_array_equal(file.image("frames", i), picture[..., ::-1])  # RGB; imencode takes BGR
        np.testing.assert_array_equal(file.array("cubes"), cube)
        assert file.array("cubes").dtype == np.float16
        assert "opencv" in file.tools


def test_same_content_gives_same_bytes_in_any_process(tmp_path):
    here = write(tmp_path / "here.h5").read_bytes()
    digests = {hashlib.sha256(here).hexdigest()}
    for junk in ("1", "255"):  # glibc fills fresh memory with this, which shows bytes that are never set
        other = tmp_path / f"other{junk}.h5"
        code = f"import test_clipfile, pathlib; test_clipfile.write(pathlib.Path({str(other)!r}))"
        environment = os.environ | {"MALLOC_PERTURB_": junk, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        digests.add(hashlib.sha256(other.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_attributes_in_another_order_give_the_same_bytes(tmp_path):
    one = write(tmp_path / "1.h5", attributes={"a": 1, "b": 2})
    two = write(tmp_path / "2.h5", attributes={"b": 2, "a": 1})
    assert one.read_bytes() == two.read_bytes()


def test_it_is_an_hdf5_file_for_others(tmp_path):
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r") as file:
        assert sorted(file) == ["cubes", "frames", "frames_crc32", "frames_offsets", "index", "parts"]
        raw = np.ascontiguousarray(file["cubes"][()]).tobytes()
        assert file["cubes"].attrs["sha256"] == hashlib.sha256(raw).hexdigest().encode()
        assert file.attrs["schema"] == 3
        np.testing.assert_array_equal(file["parts/values"][()], file["cubes"][()])
        assert json.loads(file.attrs["tools"])["h5py"] == h5py.__version__


def test_every_flipped_bit_is_found(tmp_path):
    path = write(tmp_path / "a.h5")
    good = path.read_bytes()
    verify_clip_file(path)
    trailer = range(len(good) - TRAILER_BYTES, len(good), 7)
    positions = {*range(0, len(good), len(good) // 300), *range(0, 400, 5), *trailer}
    for position in positions:
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(ClipFileError, match=r"a\.h5"):
            verify_clip_file(path)


def test_damage_names_file_and_clip(tmp_path):
    path = write(tmp_path / "a.h5")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ClipFileError) as error:
        verify_clip_file(path)
    assert str(path) in str(error.value)
    assert CLIP in str(error.value)


def test_wrong_dataset_checksum_is_found_behind_a_right_trailer(tmp_path):
    """The checksums of the datasets are looked at too, not only that of the file."""
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="frames", clip="c", fingerprint=FINGERPRINT) as writer:
        writer.array("index", np.arange(4))
        writer._file["index"][0] = 9
    with pytest.raises(ClipFileError, match="dataset index"):
        verify_clip_file(path)


def test_damaged_headers_are_plain_errors_for_readers(tmp_path):
    """Reading (not verifying) a damaged file gives right data or ClipFileError, nothing else, and never a crash."""
    path = write(tmp_path / "a.h5", images=2)
    good = path.read_bytes()
    for position in range(0, len(good) - TRAILER_BYTES, len(good) // 400):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        path.write_bytes(bad)
        try:
            with ClipFile(path) as file:
                assert len(file.names()) <= 6
                _ = file.attributes, file.array("cubes"), file.image_bytes("frames", 1)
        except ClipFileError:
            pass


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(4000)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    for check in (verify_clip_file, read_trailer, lambda p: ClipFile(p).kind):
        with pytest.raises(ClipFileError, match="not a finished clip file"):
            check(path)


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(ClipFileError, match="cannot be opened"):
        verify_clip_file(tmp_path / "no.h5")
    path = write(tmp_path / "a.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ClipFileError, match="not a finished"):
        read_trailer(path)
    path.write_bytes(whole[:2000] + whole[-TRAILER_BYTES:])
    with pytest.raises(ClipFileError, match=r"has 2000 bytes, not \d+"):
        read_trailer(path)


def test_an_exception_leaves_an_unfinished_file(tmp_path):
    path = tmp_path / "a.h5"

    def stop_halfway():
        with ClipFileWriter(path, kind="frames", clip="c", fingerprint=FINGERPRINT) as writer:
            writer.images("frames").append(b"abc")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    with pytest.raises(ClipFileError):
        verify_clip_file(path)


def test_two_thousand_frames_in_bounded_memory(tmp_path):
    """40 MB of images pass through; the buffers must not grow with them."""
    tracer = "import tracemalloc, numpy as np, test_clipfile as t; from han_core.clipfile.writer import *\n"
    code = tracer + (
        "image = np.random.default_rng(0).bytes(20_000)\n"
        f"with ClipFileWriter({str(tmp_path / 'a.h5')!r}, kind='frames', clip='c', fingerprint='f') as w:\n"
        "    a = w.images('frames')\n"
        "    tracemalloc.start()\n"
        "    for _ in range(2000): a.append(image)\n"
        "    print(tracemalloc.get_traced_memory()[1])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert int(done.stdout) < 2_000_000
    verify_clip_file(tmp_path / "a.h5")
    with ClipFile(tmp_path / "a.h5") as file:
        assert file.image_count("frames") == 2000
        assert file.image_bytes("frames", 1999) == file.image_bytes("frames", 0)


def test_asking_for_what_is_not_there(tmp_path):
    with ClipFile(write(tmp_path / "a.h5")) as file:
        with pytest.raises(ClipFileError, match="holds no x"):
            file.image_count("x")
        with pytest.raises(IndexError, match="images 0 to 2, not 3"):
            file.image_bytes("frames", 3)
        with pytest.raises(IndexError):
            file.image_bytes("frames", -1)


def test_a_reader_can_be_sent_to_another_process(tmp_path):
    with ClipFile(write(tmp_path / "a.h5")) as file:
        assert file.image_count("frames") == 3
        with pickle.loads(pickle.dumps(file)) as copy:
            assert copy.image_count("frames") == 3


def test_writer_refuses_what_it_cannot_store(tmp_path):
    def writer(name, **attributes):
        return ClipFileWriter(tmp_path / name, kind="k", clip="c", fingerprint="f", attributes=attributes)

    with pytest.raises(TypeError, match="attribute x"), writer("1.h5", x=None):
        pass
    with pytest.raises(ValueError, match="clip are set by the writer"), writer("2.h5", clip="d"):
        pass
    with writer("3.h5") as file:
        with pytest.raises(ValueError, match="codec"):
            file.array("a", np.zeros(3), codec="gzip")
        with pytest.raises(ValueError, match="empty"):
            file.images("x").append(b"")
        with pytest.raises(ValueError, match="type object"):
            file.array("a", np.array([{}]))
    with pytest.raises(FileExistsError), writer("3.h5"):
        pass


def test_empty_arrays(tmp_path):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="k", clip="c", fingerprint="f") as writer:
        writer.array("nothing", np.zeros((0, 3), np.float16), codec="zstd")
        writer.images("none")
    verify_clip_file(path)
    with ClipFile(path) as file:
        assert file.array("nothing").shape == (0, 3)
        assert file.image_count("none") == 0


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOLCK; return -1; }
"""
WRITE_AND_READ = """
import sys
import numpy as np
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.writer import ClipFileWriter
with ClipFileWriter(sys.argv[1], kind="frames", clip="a", fingerprint="b" * 64) as writer:
    writer.array("x", np.arange(3))
print(ClipFile(sys.argv[1]).array("x").tolist())
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_disk_without_locks_will_do(tmp_path):
    """As a network disk whose lock service does not run: ``flock`` answers ENOLCK."""
    (tmp_path / "no_locks.c").write_text(NO_LOCKS)
    library = tmp_path / "no_locks.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "no_locks.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", WRITE_AND_READ, tmp_path / "a.h5"],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 1, 2]"
