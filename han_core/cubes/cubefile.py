"""Cubes in a clip file: compressed sparse rows, three arrays that any HDF5 reader can open.

``cubes/counts`` (T, D), ``cubes/columns`` (nnz,) and ``cubes/values`` (nnz,), see :mod:`han_core.cubes.sparse`; the
group has the attributes ``shape`` (T, D, K, K) and ``dtype``. Without this library, with h5py and SciPy::

    import h5py, hdf5plugin, numpy, scipy.sparse
    group = h5py.File(path)["cubes"]
    counts, shape = group["counts"][()], tuple(group.attrs["shape"])
    ends = numpy.concatenate([[0], counts.ravel().cumsum(dtype=int)])
    rows = scipy.sparse.csr_matrix((group["values"][()].astype("f4"), group["columns"][()], ends))
    cubes = numpy.zeros((counts.size, shape[2] * shape[3]), "f2")
    cubes[:, : rows.shape[1]] = rows.toarray()
    cubes = cubes.reshape(shape)

Why this form: on conv5_3 of real video it takes less than any general compressor makes of the dense array
(docs/results.md), and it is what training reads: nothing is expanded on the way.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import REMAKE, SPARSE, ClipFileError, Trailer, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.sparse_rows import SparseRows, column_type, count_type

CUBES = "cubes"
_MOST_REGIONS = 1 << 16
_PARTS = tuple(f"{CUBES}/{part}" for part in ("counts", "columns", "values"))


def write_cube(writer: ClipFileWriter, cube: np.ndarray) -> None:
    """Write a clip's cube (T, D, K, K) float16, losslessly."""
    rows = SparseRows.from_dense(cube.reshape(*cube.shape[:2], -1))
    writer.declare(CUBES, np.dtype(np.float16), cube.shape)
    writer.array(_PARTS[0], rows.counts, codec="zstd")
    writer.array(_PARTS[1], rows.columns, codec="zstd")
    writer.array(_PARTS[2], rows.values, codec="shuffle-zstd")


def read_cube(path: str | Path, trailer: Trailer | None = None) -> np.ndarray:
    """A clip's cube (T, D, K, K) float16, read without HDF5.

    Args:
        trailer: where the file holds more than one clip, that of the clip.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no cube.
    """
    trailer = trailer or read_trailer(path)
    dense = read_sparse(path, trailer).dense()
    return dense.reshape(trailer.arrays[CUBES].shape)


def read_sparse(path: str | Path, trailer: Trailer) -> SparseRows:
    """A clip's cube as it is stored. Holds no lock: any number of threads read at once.

    Args:
        trailer: of that very file.

    Raises:
        ClipFileError: the file holds no cube, or is not the one that the trailer is of.
    """
    shape = cube_shape(path, trailer)
    counts, columns, values = read_parts(path, trailer, _PARTS)
    rows = SparseRows(counts, columns, values, int(np.prod(shape[2:])))
    if wrong := rows.contradiction():
        raise ClipFileError(f"{path}: clip {trailer.clip}: {wrong}. {REMAKE}")
    return rows


def cube_shape(path: str | Path, trailer: Trailer) -> tuple[int, ...]:
    """(T, D, K, K), checked against the arrays that hold the cube.

    Raises:
        ClipFileError: the file holds no cube, or what it says of it is impossible.
    """
    stored = trailer.arrays.get(CUBES)
    if stored is None or stored.codec != SPARSE:
        raise ClipFileError(f"{path}: clip {trailer.clip} is a file of kind {trailer.kind} and holds no cube")
    if wrong := _impossible(trailer):
        raise ClipFileError(f"{path}: clip {trailer.clip}: {wrong}. {REMAKE}")
    return stored.shape


_LARGEST = 1 << 32
"""Bytes of a dense cube: 20,000 frames. A file of a few bytes can claim any number of zeros."""


def _impossible(trailer: Trailer) -> str:
    """What is wrong with the declared shapes and types of a cube's arrays; "" if they fit together."""
    if missing := [part for part in _PARTS if part not in trailer.arrays]:
        return f"its cube lacks {', '.join(missing)}"
    shape = trailer.arrays[CUBES].shape
    counts, columns, values = (trailer.arrays[part] for part in _PARTS)
    regions = math.prod(shape[2:])
    if len(shape) != 4 or not all(shape) or regions > _MOST_REGIONS or 2 * math.prod(shape) > _LARGEST:
        return f"{' x '.join(map(str, shape))} is not the shape of a cube"
    types = (count_type(regions).str, column_type(regions).str, "<f2")
    if (counts.dtype, columns.dtype, values.dtype) != types or trailer.arrays[CUBES].dtype != "<f2":
        return "the arrays of its cube have the wrong types"
    if counts.shape != shape[:2] or len(columns.shape) != 1 or columns.shape != values.shape:
        return "counts, columns and values of its cube do not fit together"
    return ""


def features_shape(path: str | Path, trailer: Trailer, array: str) -> tuple[int, ...]:
    """(T, units) of a fully connected layer's features.

    Raises:
        ClipFileError: the array cannot be that.
    """
    stored = trailer.arrays[array]
    if stored.dtype != "<f2" or len(stored.shape) < 2 or not all(stored.shape) or stored.codec == SPARSE:
        raise ClipFileError(f"{path}: clip {trailer.clip}: {array} does not hold features of frames. {REMAKE}")
    return stored.shape


def nonzeros(trailer: Trailer) -> int:
    """Non-zero numbers of a clip's cube."""
    return trailer.arrays[_PARTS[2]].shape[0]


def stored_bytes(trailer: Trailer) -> int:
    """Bytes that a clip's cube takes on disk."""
    return sum(trailer.arrays[part].size for part in _PARTS)


def write_cubes(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    frames: np.ndarray,
    layer: str,
    fc: str,
    values: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int],
    torch_threads: int | None = None,
) -> None:
    """Write a clip file of kind cubes: ``cubes`` (sparse) and ``<fc>`` float16 (T, ...), and ``frames`` int32 (T,)."""
    facts = {**attributes, "layer": layer, "fc": fc}
    identity = {"kind": "cubes", "clip": clip, "fingerprint": fingerprint}
    with ClipFileWriter(path, **identity, attributes=facts, torch_threads=torch_threads) as file:
        file.array("frames", frames)
        write_cube(file, values[layer])
        file.array(fc, values[fc], codec="shuffle-zstd")
