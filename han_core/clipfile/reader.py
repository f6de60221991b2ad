"""Reading a clip file with h5py, one dataset or one image at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import cv2
import h5py
import numpy as np

from han_core.clipfile.checksums import sha256_of_dataset
from han_core.clipfile.trailer import (
    REMAKE,
    RESERVED,
    ClipFileError,
    read_trailer,
)


class ClipFile:
    """Reads one clip file; a context manager.

    The file is opened at the first use, without file locking, so that an object can be made in one process and
    used in another (it can be pickled) and so that a published store on a shared or read-only disk can be read.

    Raises:
        ClipFileError: from any method, if the file is missing, unfinished, damaged or lacks what is asked for.
            Reading does not recompute checksums; :func:`han_core.cache.verify.verify_clip_file` does.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._offsets: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None, "_offsets": {}}

    @property
    def schema(self) -> int:
        return self._attribute("schema")

    @property
    def kind(self) -> str:
        return self._attribute("kind")

    @property
    def clip(self) -> str:
        return self._attribute("clip")

    @property
    def fingerprint(self) -> str:
        return self._attribute("fingerprint")

    @property
    def tools(self) -> dict[str, str]:
        """Versions of the tools that wrote the file."""
        return json.loads(self._attribute("tools"))

    @property
    def attributes(self) -> dict[str, str | int | float | np.ndarray]:
        """The attributes given to the writer, as Python values."""
        with self._plain_errors():
            names = [name for name in self._h5().attrs if name not in RESERVED]
        return {name: self._attribute(name) for name in names}

    def names(self) -> list[str]:
        """Names of the datasets; those in a group with its name before them, ``a/b``."""
        found: list[str] = []

        def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(name)

        with self._plain_errors():
            self._h5().visititems(collect)
        return sorted(found)

    def array(self, name: str, index: object = None) -> np.ndarray:
        """Read a dataset, or what ``index`` selects of it (as h5py indexes)."""
        with self._plain_errors():
            dataset = self._dataset(name)
            return dataset[()] if index is None else dataset[index]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset, without reading it."""
        with self._plain_errors():
            return self._dataset(name).shape

    def checksums(self, name: str) -> tuple[str, str]:
        """SHA-256 of a dataset's raw content: as it was written, and as it is now."""
        with self._plain_errors():
            dataset = self._dataset(name)
            return dataset.attrs.get("sha256", b"").decode("ascii", "replace"), sha256_of_dataset(dataset)

    def image_count(self, name: str) -> int:
        """Number of images appended under ``name``."""
        return len(self._image_offsets(name)) - 1

    def image_bytes(self, name: str, i: int) -> bytes:
        """Encoded bytes of image i (from 0)."""
        offsets = self._image_offsets(name)
        if not 0 <= i < len(offsets) - 1:
            raise IndexError(f"{self.path}: {name} has images 0 to {len(offsets) - 2}, not {i}")
        with self._plain_errors():
            return self._dataset(name)[int(offsets[i]) : int(offsets[i + 1])].tobytes()

    def image(self, name: str, i: int) -> np.ndarray:
        """Image i decoded: (H, W, 3) uint8 RGB for colour images, (H, W) uint8 for grey ones."""
        try:
            decoded = cv2.imdecode(np.frombuffer(self.image_bytes(name, i), np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            decoded = None
        if decoded is None:
            raise ClipFileError(f"{self.path}: image {i} of {name} cannot be decoded. {REMAKE}")
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if decoded.ndim == 3 else decoded

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        self._offsets = {}
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _h5(self) -> h5py.File:
        if self._file is None:
            read_trailer(self.path)
            self._file = h5py.File(self.path, "r", locking=False)
        return self._file

    def _dataset(self, name: str) -> h5py.Dataset:
        dataset = self._h5().get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ClipFileError(
                f"{self.path}: holds no {name}; it is a {self.kind} file with {', '.join(self.names())}"
            )
        return dataset

    def _attribute(self, name: str) -> str | int | float | np.ndarray:
        with self._plain_errors():
            attributes = self._h5().attrs
            if name not in attributes:
                raise ClipFileError(f"{self.path}: has no attribute {name}. {REMAKE}")
            value = attributes[name]
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                raise ClipFileError(f"{self.path}: attribute {name} is not text. {REMAKE}") from None
        return value.item() if isinstance(value, np.generic) else value

    def _image_offsets(self, name: str) -> np.ndarray:
        if name not in self._offsets:
            self._offsets[name] = self.array(f"{name}_offsets")
        return self._offsets[name]

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into one plain sentence."""
        try:
            yield
        except ClipFileError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            if isinstance(error, (TypeError, ValueError)) and self._file is not None and self._file:
                raise  # a wrong index of the caller, not a damaged file
            raise ClipFileError(f"{self.path}: cannot be read as HDF5. {REMAKE}") from error
