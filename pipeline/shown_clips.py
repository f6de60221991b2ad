"""The test clips whose attention maps the report shows, as the params choose them."""

from typing import TYPE_CHECKING

import numpy as np

from han_core.errors import HanError
from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable


class ShownClipsError(HanError, ValueError):
    """The params name a clip that no split tests; the message says which."""


def choose_clips(params: Params, table: "ClipTable") -> "list[tuple[int, Clip]]":
    """(split, test clip) of every strip; a clip named in the params comes with the first split that tests it.

    A number takes so many of the first split, evenly from the list, so that classes differ.

    Raises:
        ShownClipsError: a named clip is not a test clip of any split.
    """
    wanted = params.report.clips
    if isinstance(wanted, int):
        split = params.splits[0]
        clips = table.select(split, "test")
        places = np.linspace(0, len(clips) - 1, min(wanted, len(clips))).round().astype(int)
        return [(split, clips[place]) for place in places]
    tested: dict[str, tuple[int, Clip]] = {}
    for split in reversed(params.splits):
        for clip in table.select(split, "test"):  # known by its class and name, and by the name alone
            tested[clip.name] = tested[clip.key] = (split, clip)
    unknown = [name for name in wanted if name not in tested]
    if unknown:
        raise ShownClipsError(
            f"report.clips: {', '.join(unknown)}: no test clip of splits {', '.join(map(str, params.splits))} has this "
            "name; names are in the clip column of clips.csv"
        )
    return [tested[name] for name in wanted]
