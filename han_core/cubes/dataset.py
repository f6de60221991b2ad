"""A folder of cube files as a dataset of PyTorch, for code that is not this project's."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from han_core.clipfile.trailer import ClipFileError
from han_core.cubes.cubefile import CUBES, read_cube
from han_core.cubes.folder import CubeFolder


class CubeDataset(Dataset):
    """Pairs of a clip's cube and the number of its class. No file stays open, so workers may be forked or spawned.

    Attributes:
        classes: names of the class folders, sorted.
        clips: ``<class>/<clip>`` of each item, sorted.

    Args:
        folder: that stage ``cubes`` writes (:mod:`han_core.cubes.folder`).

    Raises:
        ClipFileError: there is no cube file (the first file tells), or a shard is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = CubeFolder(folder)
        self._names = self._folder.names()
        if not self._names:
            raise ClipFileError(f"{folder}: holds no cube files (<class>/<clip>.h5); run stage cubes, or dvc pull it")
        self._check_first()
        self.classes = tuple(sorted({class_name for class_name, _ in self._names}))
        self.clips = tuple(f"{class_name}/{clip}" for class_name, clip in self._names)
        self._labels = {name: number for number, name in enumerate(self.classes)}

    def _check_first(self) -> None:
        try:
            trailer = self._folder.find(*self._names[0]).trailer
        except ClipFileError:  # damaged, which is told when it is read: who does not use it need not care
            return
        if CUBES not in trailer.arrays:
            raise ClipFileError(
                f"{self._folder.folder}: holds files of kind {trailer.kind}, not cubes; name the folder of one "
                "stream's cubes, such as data/<dataset>/cubes/spatial-1"
            )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The cube (T, D, K, K) float16, and the number of the class.

        Raises:
            ClipFileError: the file is damaged.
        """
        class_name, name = self._names[index]
        clip = self._folder.find(class_name, name)
        return torch.from_numpy(read_cube(clip.path, clip.trailer)), self._labels[class_name]
