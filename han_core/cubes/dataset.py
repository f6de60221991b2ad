"""A folder of cube files as a dataset of PyTorch, for code that is not this project's."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from han_core.clipfile.trailer import ClipFileError
from han_core.cubes.cubefile import read_cube


class CubeDataset(Dataset):
    """Pairs of a clip's cube and the number of its class. No file stays open, so workers may be forked or spawned.

    Attributes:
        classes: names of the class folders, sorted.
        clips: ``<class>/<clip>`` of each item, sorted.

    Args:
        folder: ``<folder>/<class>/<clip>.h5``.

    Raises:
        ClipFileError: there is no cube file.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*/*.h5"))
        if not self._paths:
            raise ClipFileError(f"{folder}: holds no cube files (<class>/<clip>.h5); run stage cubes, or dvc pull it")
        self.classes = tuple(sorted({path.parent.name for path in self._paths}))
        self.clips = tuple(f"{path.parent.name}/{path.stem}" for path in self._paths)
        self._labels = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The cube (T, D, K, K) float16, and the number of the class.

        Raises:
            ClipFileError: the file is damaged.
        """
        path = self._paths[index]
        return torch.from_numpy(read_cube(path)), self._labels[path.parent.name]
