"""From a sound listing to the clips table: labels, validation groups, hashes."""

from collections.abc import Mapping, Sequence

from han_core.clips import UNUSED, Clip, ClipTable
from han_core.datasets.folder import classes_of_groups
from han_core.datasets.grouping import draw_groups
from han_core.datasets.listing import Listing


def assemble_table(
    listing: Listing,
    splits: Sequence[int],
    *,
    hashes: Mapping[str, str],
    damaged: Mapping[str, str] | None = None,
    validation_share: float,
    seed: int,
) -> ClipTable:
    """The clips table of a listing without errors.

    Args:
        listing: what was read.
        splits: numbers of the splits to keep; each must be in the listing.
        hashes: path -> sha256 of the video's bytes.
        damaged: path -> how much of a video is damaged, e.g. ``3/60``, of those that are.
        validation_share: share of the training groups of a split that become its validation set, as whole groups.
        seed: decides which groups these are.
    """
    labels = {name: label for label, name in enumerate(listing.classes)}
    roles: dict[str, dict[int, str]] = {v.path: dict.fromkeys(sorted(splits), UNUSED) for v in listing.videos}
    for number in splits:
        split = listing.splits[number]
        train = set(split.train)
        groups = classes_of_groups([v for v in listing.videos if v.path in train])
        held_out = draw_groups(groups, validation_share, seed, "validation", number)
        for video in listing.videos:
            if video.path in train:
                roles[video.path][number] = "validation" if video.group in held_out else "train"
        for path in split.validation:
            roles[path][number] = "validation"
        for path in split.test:
            roles[path][number] = "test"
    clips = tuple(
        Clip(
            v.name,
            v.path,
            v.class_name,
            labels[v.class_name],
            v.group,
            roles[v.path],
            hashes[v.path],
            (damaged or {}).get(v.path, ""),
        )
        for v in listing.videos
    )
    return ClipTable(clips, listing.classes, tuple(sorted(splits)))
