"""The features that a variant of HAN reads, and how they were made."""

from collections.abc import Sequence

from han_core.clips import Clip
from han_core.cubes.store import CubeStore, CubeStoreError
from han_core.han.feature_settings import FeatureSettings
from han_core.han.variants import Variant
from pipeline.execution.ledger import read_failures
from pipeline.params import Params
from pipeline.paths import Paths


def open_store(params: Params, variant: Variant, split: int, clips: Sequence[Clip]) -> CubeStore:
    """The features that a variant reads, of some clips of a split.

    Cubes whose regions all count the same are averaged while they are read: the same result at 1/196 of the memory.

    Raises:
        CubeStoreError: no clip has its files, files differ in shape, or one is missing for no reason.
        LedgerError: a ledger of failures is damaged.
    """
    paths = Paths.of(params)
    folders = {stream: paths.cubes(stream, split) for stream in variant.streams}
    store = CubeStore(
        folders,
        clips,
        array=params.cubes.fc if variant.source == "fc" else "cubes",
        pooled=variant.source == "cubes" and not variant.attention,
    )
    failed = {key for folder in folders.values() for key in read_failures(folder)}
    if unexplained := [clip.key for clip in store.missing if clip.key not in failed]:
        raise CubeStoreError(
            f"{', '.join(map(str, folders.values()))}: {len(unexplained)} clips have no cubes, e.g. {unexplained[0]}, "
            "and no failure is noted for them; run the cubes stages again"
        )
    return store


def feature_settings(params: Params, streams: Sequence[str], store: CubeStore) -> FeatureSettings:
    """How a video becomes the features of a store: the params that made them, and what its files know.

    Args:
        streams: those that the model reads, in its order.
        store: the training clips' features.

    Raises:
        ClipFileError: a cube file is damaged.
    """
    made = {stream: store.attributes(stream) for stream in streams}
    first = made[streams[0]]
    flow = params.flow
    return FeatureSettings(
        frames=params.cubes.frames,
        layer=first.get("layer", params.cubes.layer),
        fc=first.get("fc", params.cubes.fc),
        batch=params.cubes.batch,
        precision=first.get("precision", "float32"),  # `auto` is what the cubes' machine made of it
        stack=params.stack,
        short_side=params.decode.short_side,
        frame_quality=params.decode.quality,
        flow=flow.model_dump(include={"bound", "rounding", "codec", "quality", "size"}),
        tvl1=flow.tvl1.model_dump(),
        backend=flow.backend,
        clip_frames=store.median_length(),
        nets={stream: found["net"] for stream, found in made.items() if "net" in found},
        inputs={stream: found["input"] for stream, found in made.items() if "input" in found},
    )
