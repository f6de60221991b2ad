"""The generated dataset: real video files, made so that each claim of the paper can be tested.

A figure, the actor, acts in a small part of a cluttered, moving picture, among moving distractors and beside a
bystander, a second figure that acts as well. The eight classes cross three cues of two values each, and telling a class
needs all three:

``appearance``: ``green`` or ``magenta``
    The colour of the actor's garment. Both have the same grey value, so that every RGB frame shows the cue and flow,
    which is computed on grey images, does not. Blobs in both colours lie elsewhere in the picture.
``motion``: ``fast`` or ``slow``
    The tempo of its swinging. Every short stack of flow shows it; no single frame does, because both tempos visit the
    same postures, each equally often (see :func:`poses`).
``order``: ``crouch_wave`` or ``wave_crouch``
    Which of two sub-actions comes first. Frames and short motions are the same; only their sequence differs.

A fourth thing must be known to tell a class, and is not a cue of its own: the place. Garment and tempo of the bystander
are drawn without a look at the class, and it does the same sub-action at the same time. Only where they stand says who
is the actor: it waves on the left and crouches on the right (``synthetic_scene.PLACES``), the bystander the other way
round; between the sub-actions the two change places from one frame to the next, as at a cut. So where to look follows
from what has been seen, the sub-action, which is what HAN's attention can learn: it scores places from the state of its
LSTMs.

A class is named ``<appearance>_<motion>_<order>``, e.g. ``green_fast_wave_crouch``. All else (background, camera,
distractors, proportions, exact places) is drawn from seed, group and take alone and is the same in every class, so
nothing but the cues tells classes apart. The best accuracy of a model that is blind to some cues is therefore known
exactly, :func:`ceiling`: 1/2 if blind to one cue, 1/4 to two, 1/8 to all.

* Blind to appearance: all that sees flow alone, as variant ``temporal`` does: 1/2.
* Blind to motion: all that sees unordered RGB frames (blind to order too): 1/4. Variant ``spatial`` reads its frames in
  order: 1/2, as long as they are too far apart to follow the swing. With the default 36 frames and T = 8 they are 5
  frames apart, and the tempos, a cycle in 15 and in 7.5 frames, are then aliases: a phase step of 1/3 and of 2/3.
* Blind to order: all that averages over time: 1/2. (A stack of flow in the middle of a clip sees the end of one
  sub-action and the start of the other, which is a small leak.)
* Blind to place: all that knows both figures and not which stands where: 5/8, :func:`ceiling_without_place`. Averages
  over the regions of a cube (variant ``no_attention``, the linear baselines) lose the place only as far as the features
  do not hold it themselves. Measured, they hold some: logistic regression on averaged cubes tells the garment better
  than that (docs/results.md), probably because convolutions pad with zeros, so a figure near a rim looks different.

Written to ``root``:

* ``<class>/<class>_gGG_tTT.avi``: MJPG in AVI, GG the group, TT the take.
* ``boxes.csv``: columns clip,frame,x,y,w,h: the smallest box around the actor in every frame, in pixels, x and y of
  its top left corner. Sorted by clip and frame; read by :func:`read_boxes`.
"""

import csv
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from han_core.datasets.synthetic.figure import REST, Pose, action_pose, between, draw_figure
from han_core.datasets.synthetic.scene import draw_scene

CUES = {
    "appearance": ("green", "magenta"),
    "motion": ("fast", "slow"),
    "order": ("crouch_wave", "wave_crouch"),
}
"""The cues, and the values that they take."""
CLASSES = tuple("_".join(values) for values in itertools.product(*CUES.values()))
BOXES = "boxes.csv"
GROUP_PATTERN = r"_(g\d+)_t\d+$"
"""Finds the group in the stem of a video."""
_CYCLE = 15
"""Frames of one slow swing."""


def class_cues(class_name: str) -> dict[str, str]:
    """The value of each cue in a class, e.g. ``{"appearance": "green", "motion": "slow", "order": "wave_crouch"}``.

    Raises:
        ValueError: there is no such class.
    """
    for values in itertools.product(*CUES.values()):
        if class_name == "_".join(values):
            return dict(zip(CUES, values, strict=True))
    raise ValueError(f"{class_name!r} is not a class of the synthetic dataset: known are {', '.join(CLASSES)}")


def ceiling(blind_to: Iterable[str]) -> float:
    """Best possible top-1 accuracy, as a share of clips, of a model that cannot see the named cues."""
    blind = set(blind_to)
    unknown = blind - set(CUES)
    if unknown:
        raise ValueError(f"unknown cues: {', '.join(sorted(unknown))}: known are {', '.join(CUES)}")
    return 1 / math.prod(len(CUES[cue]) for cue in blind)


def ceiling_without_place() -> float:
    """Best possible top-1 accuracy of a model that sees both figures and cannot tell which is the actor.

    Of the four pairs of garment and tempo the bystander has the actor's own in one case: the class is sure. In the
    other three it is a guess between two.
    """
    pairs = len(CUES["appearance"]) * len(CUES["motion"])
    return (1 + (pairs - 1) / 2) / pairs


@dataclass(frozen=True)
class SyntheticSpec:
    """How many videos of which size; see ``Synthetic`` in ``pipeline/settings/data.py`` for the defaults' meaning."""

    seed: int
    groups: int
    takes: int
    frames: int
    width: int
    height: int
    fps: float
    shake: float = 0.0
    """Root mean square, in pixels along x and along y, of the motion of a hand that holds the camera."""

    def __post_init__(self) -> None:
        if min(self.groups, self.takes) < 1 or self.frames < 12 or min(self.width, self.height) < 64 or self.fps <= 0:
            raise ValueError(f"groups and takes must be 1 or more, frames 12, width and height 64, not {self}")
        if not 0 <= self.shake < math.inf:
            raise ValueError(f"shake must be 0 or more pixels, not {self.shake}")


def count_clips(spec: SyntheticSpec) -> int:
    """How many videos there will be."""
    return len(CLASSES) * spec.groups * spec.takes


def clip_name(class_name: str, group: int, take: int) -> str:
    """Stem of a video: groups and takes are counted from 1."""
    return f"{class_name}_g{group:02d}_t{take:02d}"


def poses(motion: str, order: str, *, frames: int, lead: float, phase: float) -> list[Pose]:
    """The posture in every frame of a clip.

    Both sub-actions last ``n`` frames, ``n`` odd, and make ``c`` swings when slow, ``2c`` when fast: at frame k the
    swing is at ``phase + c k / n`` or ``phase + 2 c k / n``. Doubling permutes the whole numbers modulo an odd n, so
    both tempos visit the same postures equally often, in another order.

    Args:
        motion: ``slow`` or ``fast``.
        order: ``wave_crouch`` or ``crouch_wave``.
        frames: length of the clip.
        lead: share of the spare frames, at rest, that comes before the action.
        phase: where in its cycle a sub-action starts, in cycles.
    """
    turn, length, before = _plan(frames, lead)
    cycles = max(1, round(length / _CYCLE)) * {"slow": 1, "fast": 2}[motion]
    blocks = []
    for action in order.split("_"):
        enter = [between(REST, action_pose(action, phase), (i + 1) / (turn + 1)) for i in range(turn)]
        swing = [action_pose(action, (phase + (cycles * k % length) / length) % 1.0) for k in range(length)]
        blocks.append([*enter, *swing, *reversed(enter)])
    after = frames - before - sum(map(len, blocks))
    return [REST] * before + blocks[0] + blocks[1] + [REST] * after


def change_frame(frames: int, lead: float) -> int:
    """The first frame of the second sub-action, at which actor and bystander have changed places."""
    turn, length, before = _plan(frames, lead)
    return before + length + 2 * turn


def _plan(frames: int, lead: float) -> tuple[int, int, int]:
    """Frames from rest into a sub-action, of a sub-action, and at rest before the first."""
    turn = max(1, frames // 36)
    length = frames // 2 - 2 * turn
    length -= 1 - length % 2
    spare = frames - 2 * (length + 2 * turn)
    return turn, length, min(int(lead * (spare + 1)), spare)


def render_clip(
    spec: SyntheticSpec, class_name: str, group: int, take: int
) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """The frames of a clip, (height,width,3) uint8 RGB, each with the actor's box x, y, w, h in pixels."""
    cues = class_cues(class_name)
    size = {"frames": spec.frames, "width": spec.width, "height": spec.height}
    scene = draw_scene(spec.seed, group, take, **size, fps=spec.fps, shake=spec.shake)
    first, second = cues["order"].split("_")
    change = change_frame(spec.frames, scene.lead)
    timing = {"frames": spec.frames, "lead": scene.lead}
    acted = poses(cues["motion"], cues["order"], phase=scene.phase, **timing)
    copied = poses(scene.bystander_tempo, cues["order"], phase=scene.bystander_phase, **timing)
    for index, (pose, other) in enumerate(zip(acted, copied, strict=True)):
        action, elsewhere = (first, second) if index < change else (second, first)
        here, there = (
            tuple(p + s for p, s in zip(scene.places[name], scene.shake[index], strict=True))
            for name in (action, elsewhere)
        )
        image = scene.empty_frame(index, spec.width, spec.height)
        draw_figure(image, scene.bystander, other, scene.bystander_garment, there)
        box = draw_figure(image, scene.figure, pose, cues["appearance"], here)
        yield image, box


def actor_boxes(spec: SyntheticSpec, clip: str) -> np.ndarray:
    """The boxes of :func:`read_boxes` without the files: drawn again from the spec.

    Args:
        spec: the one that the clip was made with.
        clip: its name, as :func:`clip_name` spells it.

    Returns:
        (frames, 4) int32 of x, y, width, height in pixels of the video.

    Raises:
        ValueError: the name is none of a synthetic clip.
    """
    match = re.fullmatch(r"(.+)_g(\d+)_t(\d+)", clip)
    if match is None:
        raise ValueError(f"{clip!r} is not the name of a synthetic clip")
    rendered = render_clip(spec, match[1], int(match[2]), int(match[3]))
    return np.array([box for _, box in rendered], np.int32)


def generate_synthetic(root: str | Path, spec: SyntheticSpec, advance: Callable[[], None] = lambda: None) -> int:
    """Write all videos and their boxes under ``root``; the same spec gives the same bytes.

    Args:
        root: folder to write to; made where missing, files of the same names are written again.
        spec: what to write.
        advance: called after each video, to show progress.

    Returns:
        The number of videos.

    Raises:
        OSError: ``root`` holds files that do not belong to the dataset, or a video cannot be written there.
    """
    root = Path(root)
    clips = list(itertools.product(CLASSES, range(1, spec.groups + 1), range(1, spec.takes + 1)))
    _refuse_strangers(root, {f"{names[0]}/{clip_name(*names)}.avi" for names in clips} | {BOXES})
    root.mkdir(parents=True, exist_ok=True)
    (root / BOXES).unlink(missing_ok=True)  # as the videos below: it may be a hard link into DVC's cache
    with (root / BOXES).open("w", encoding="utf-8", newline="") as file:
        boxes = csv.writer(file, lineterminator="\n")
        boxes.writerow(["clip", "frame", "x", "y", "w", "h"])
        for class_name, group, take in clips:
            name = clip_name(class_name, group, take)
            rendered = list(render_clip(spec, class_name, group, take))
            _write_video(root / class_name / f"{name}.avi", [image for image, _ in rendered], spec.fps)
            boxes.writerows([name, index, *box] for index, (_, box) in enumerate(rendered))
            advance()
    return len(clips)


def _refuse_strangers(root: Path, expected: set[str]) -> None:
    """Left-overs, e.g. of more groups, would become clips of the dataset."""
    found = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    strangers = [name for name in found if name not in expected]
    if strangers:
        raise FileExistsError(
            f"{root}: holds {len(strangers)} files that do not belong to this dataset, e.g. {strangers[0]}; "
            "empty the folder or choose another"
        )


def _write_video(path: Path, frames: list[np.ndarray], fps: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write an MJPG video here; is the folder writable, the disk full?")
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def read_boxes(root: str | Path, clip: str) -> np.ndarray:
    """The actor's box in every frame of a clip: (frames,4) int32 of x, y, w, h in pixels of the video.

    Raises:
        FileNotFoundError: ``root`` holds no ``boxes.csv``.
        KeyError: it has no such clip.
    """
    path = Path(root) / BOXES
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["clip"] == clip]
    if not rows:
        raise KeyError(f"{path} has no boxes of clip {clip}")
    return np.array([[int(row[key]) for key in "xywh"] for row in rows], np.int32)
