"""Stores of feature cubes."""

from pathlib import Path
from typing import TYPE_CHECKING

from han_core.api.names import AnyPath

if TYPE_CHECKING:  # torch takes seconds to import
    from han_core.cubes.dataset import CubeDataset


def open_store(folder: AnyPath) -> "CubeDataset":
    """The cubes of one stream, as stage ``cubes`` wrote them or ``dvc pull`` fetched them, as a
    ``torch.utils.data.Dataset``.

    Args:
        folder: e.g. ``data/ucf101/cubes/spatial-1``: ``<folder>/<class>/<clip>.h5``, or shards of such files.

    Returns:
        A dataset of pairs: the cube (T, D, K, K) float16 and the number of its class, classes sorted by name; its
        ``classes`` and ``clips`` are the names.

    Raises:
        ClipFileError: there is no cube file in the folder; or later, one is damaged.

    Example:
        >>> import han_core as han
        >>> store = han.open_store("cubes")
        >>> cube, label = store[0]
        >>> tuple(cube.shape), store.classes[label], store.clips[0]
        ((2, 4, 3, 3), 'wave', 'wave/clip')
    """
    from han_core.cubes.dataset import CubeDataset

    return CubeDataset(Path(folder))
