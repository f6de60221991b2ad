import hashlib
import itertools
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from han_core.datasets.checks import check_listing
from han_core.datasets.folder import FolderRules, list_folder
from han_core.datasets.synthetic import generate as synthetic
from han_core.datasets.synthetic.figure import REST
from han_core.datasets.synthetic.generate import (
    BOXES,
    CLASSES,
    CUES,
    GROUP_PATTERN,
    SyntheticSpec,
    ceiling,
    ceiling_without_place,
    change_frame,
    class_cues,
    clip_name,
    count_clips,
    generate_synthetic,
    poses,
    read_boxes,
    render_clip,
)
from han_core.datasets.synthetic.scene import draw_scene
from han_core.video.decode import read_video

SPEC = SyntheticSpec(seed=1, groups=12, takes=1, frames=36, width=160, height=120, fps=25.0)
SMALL = SyntheticSpec(seed=3, groups=2, takes=2, frames=12, width=80, height=64, fps=12.5)
ORDERS = list(itertools.product(CUES["motion"], CUES["order"]))


def frames_of(class_name, group=1, take=1, spec=SPEC):
    return np.stack([image for image, _ in render_clip(spec, class_name, group, take)])


def grey(frames):
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(int)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "raw"
    counted = []
    assert generate_synthetic(root, SMALL, lambda: counted.append(1)) == len(counted) == count_clips(SMALL) == 32
    return root


# What the classes are


def test_classes_cross_the_cues():
    assert len(CLASSES) == 8
    assert list(CLASSES) == sorted(CLASSES)
    seen = [tuple(class_cues(name).values()) for name in CLASSES]
    assert sorted(seen) == sorted(itertools.product(*CUES.values()))
    with pytest.raises(ValueError, match="'jump' is not a class"):
        class_cues("jump")


def test_ceiling_is_the_share_of_one_class_among_those_that_look_alike():
    for blind in itertools.chain.from_iterable(itertools.combinations(CUES, n) for n in range(4)):
        seen = [tuple(v for k, v in class_cues(name).items() if k not in blind) for name in CLASSES]
        assert ceiling(blind) == pytest.approx(len(set(seen)) / len(CLASSES))
    with pytest.raises(ValueError, match="unknown cue"):
        ceiling(["colour"])


# What a model that is blind to a cue cannot tell apart


@pytest.mark.parametrize("frames", [12, 25, 36, 60, 100, 301])
@pytest.mark.parametrize(("lead", "phase"), [(0.0, 0.0), (0.4, 0.37), (0.999, 0.9)])
def test_tempos_and_orders_visit_the_same_postures_equally_often(frames, lead, phase):
    visited = [poses(motion, order, frames=frames, lead=lead, phase=phase) for motion, order in ORDERS]
    assert {len(postures) for postures in visited} == {frames}
    assert all(Counter(postures) == Counter(visited[0]) for postures in visited)
    assert len({tuple(postures) for postures in visited}) == 4


@pytest.mark.parametrize("motion", CUES["motion"])
def test_the_other_order_is_the_same_two_pieces_exchanged(motion):
    first, second = (poses(motion, order, frames=36, lead=0.5, phase=0.2) for order in CUES["order"])
    start = next(i for i, pose in enumerate(first) if pose != REST)
    half = 17
    pieces = [first[start : start + half], first[start + half : start + 2 * half]]
    assert second[start : start + 2 * half] == pieces[1] + pieces[0]


def test_fast_covers_twice_the_way_in_the_same_time():
    for phase in (0.0, 0.3, 0.8):
        way = {}
        for motion in CUES["motion"]:
            swing = poses(motion, "wave_crouch", frames=36, lead=0.0, phase=phase)[1:16]
            way[motion] = sum(abs(b.arms - a.arms) for a, b in itertools.pairwise([*swing, swing[0]]))
        assert way["fast"] / way["slow"] == pytest.approx(2.0, rel=0.05)


def test_frames_five_apart_see_the_two_tempos_as_aliases():
    for phase in (0.0, 0.21):
        seen = {}
        for motion in CUES["motion"]:
            postures = poses(motion, "wave_crouch", frames=36, lead=0.0, phase=phase)
            seen[motion] = [pose.arms for pose in postures[1:16:5]]
        assert sorted(seen["fast"]) == pytest.approx(sorted(seen["slow"]))


def test_garments_differ_in_colour_and_not_in_grey():
    green, magenta = frames_of("green_fast_wave_crouch"), frames_of("magenta_fast_wave_crouch")
    assert np.abs(green.astype(int) - magenta).max() > 150
    difference = np.abs(grey(green) - grey(magenta))
    assert difference.max() <= 4  # rounded once a stroke, at the smooth rims
    assert difference.mean() < 0.05


def scene_of(group, take=1, spec=SPEC):
    return draw_scene(spec.seed, group, take, frames=spec.frames, width=spec.width, height=spec.height)


def figures_only(monkeypatch, class_name, group):
    """The two figures of a clip, each drawn alone: boxes (frames, 4) of the actor and of the bystander."""
    figures = []
    whole = synthetic.draw_figure

    def recording(*arguments):
        figures.append(whole(*arguments))
        return figures[-1]

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_figure", recording)
        boxes = [box for _, box in render_clip(SPEC, class_name, group, 1)]
    bystander, actor = np.array(figures[::2]), np.array(figures[1::2])
    assert actor.tolist() == [list(box) for box in boxes]
    return actor, bystander


def test_all_but_the_actor_is_the_same_in_every_class_of_an_order(monkeypatch):
    """The bystander too: it follows the order of the sub-actions, and nothing else of the class."""
    for order in CUES["order"]:
        names = [name for name in CLASSES if name.endswith(order)]
        films = {name: list(render_clip(SPEC, name, 5, 1)) for name in names}
        for moments in zip(*films.values(), strict=True):
            outside = np.ones((SPEC.height, SPEC.width), bool)
            for _, (x, y, w, h) in moments:
                outside[y : y + h, x : x + w] = False
            assert outside.mean() > 0.5
            for image, _ in moments[1:]:
                assert (image[outside] == moments[0][0][outside]).all()


# What only the place tells


@pytest.mark.parametrize("order", CUES["order"])
@pytest.mark.parametrize("group", [1, 2, 7])
def test_the_actor_waves_on_the_left_and_crouches_on_the_right_and_the_bystander_the_other_way(
    monkeypatch, order, group
):
    actor, bystander = figures_only(monkeypatch, f"green_slow_{order}", group)
    change = change_frame(SPEC.frames, scene_of(group).lead)
    left = {"actor": actor, "bystander": bystander}
    for name, boxes in left.items():
        left[name] = boxes[:, 0] + boxes[:, 2] / 2 < SPEC.width / 2
    waving = (np.arange(SPEC.frames) < change) == (order == "wave_crouch")
    assert (left["actor"] == waving).all()
    assert (left["bystander"] == ~waving).all()


def test_the_change_of_places_falls_between_the_sub_actions():
    for frames, lead in ((36, 0.0), (36, 0.99), (60, 0.5)):
        postures = poses("slow", "wave_crouch", frames=frames, lead=lead, phase=0.2)
        change = change_frame(frames, lead)
        assert all(pose.drop == 0 for pose in postures[:change])
        assert any(pose.arms > 90 for pose in postures[:change])
        assert all(pose.arms < 60 for pose in postures[change:])


def test_the_bystander_has_each_garment_and_tempo_equally_often():
    found = Counter((s.bystander_garment, s.bystander_tempo) for s in (scene_of(g) for g in range(1, 13)))
    assert set(found.values()) == {3}
    assert len(found) == 4
    takes = Counter((s.bystander_garment, s.bystander_tempo) for s in (scene_of(3, take) for take in range(1, 5)))
    assert set(takes.values()) == {1}


def test_ceiling_without_place_is_that_of_a_guess_between_the_two_figures():
    """By counting: who knows both figures' garment and tempo, and not which is the actor's, guesses one of the two."""
    pairs = list(itertools.product(CUES["appearance"], CUES["motion"]))
    right = [1 / len({actor, bystander}) for actor in pairs for bystander in pairs]
    assert ceiling_without_place() == pytest.approx(np.mean(right)) == 0.625


def test_actor_and_bystander_are_drawn_alike():
    """Over many groups their sizes have the same range: a look at one figure does not say which it is."""
    heights = np.array([[s.figure.height, s.bystander.height] for s in (scene_of(g) for g in range(1, 60))])
    low, high = heights.min(axis=0), heights.max(axis=0)
    assert np.abs(low[0] - low[1]) < 1.5
    assert np.abs(high[0] - high[1]) < 1.5
    assert np.abs(np.corrcoef(heights.T)[0, 1]) < 0.4


def test_the_camera_moves_the_whole_picture_figure_included(monkeypatch):
    still, moved = (
        replace(scene, shake=np.full((SPEC.frames, 2), shift, float))
        for scene in [draw_scene(SPEC.seed, 4, 1, frames=SPEC.frames, width=SPEC.width, height=SPEC.height)]
        for shift in (0, 3)
    )
    pictures = []
    for scene in (still, moved):
        monkeypatch.setattr(synthetic, "draw_scene", lambda *args, scene=scene, **sizes: scene)
        pictures.append(frames_of("green_fast_wave_crouch", 4))
    differs = np.any(pictures[0][:, :-3, :-3] != pictures[1][:, 3:, 3:], axis=3)
    assert differs.mean() < 0.001  # strokes that the rim of the picture cuts may be drawn a little differently
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5


def test_a_hand_that_shakes_moves_the_camera_so_far_and_changes_nothing_else():
    size = {"frames": 400, "width": SPEC.width, "height": SPEC.height, "fps": SPEC.fps}
    still, weak, strong = (draw_scene(SPEC.seed, 4, 1, **size, shake=shake) for shake in (0, 1, 3))
    hand = strong.shake - still.shake
    np.testing.assert_allclose(np.sqrt((hand**2).mean(axis=0)), 3, rtol=1e-6)
    np.testing.assert_allclose(hand, 3 * (weak.shake - still.shake), atol=1e-9)
    power = np.abs(np.fft.rfft(hand * np.hanning(400)[:, None], axis=0)) ** 2
    # Smooth: no frame jumps by itself.
    assert power[np.fft.rfftfreq(400, 1 / SPEC.fps) > 6.5].sum() < 1e-3 * power.sum()
    assert still.distractors == strong.distractors
    assert still.places == strong.places
    assert (still.background == strong.background).all()


# Where the figure is


def test_box_is_the_smallest_around_the_actor(monkeypatch):
    whole = synthetic.draw_figure
    for group in (1, 2, 3):
        scene = scene_of(group)
        with monkeypatch.context() as patch:  # without the bystander, who may stand in front of the background alone
            patch.setattr(synthetic, "draw_figure", lambda i, f, *rest, s=scene: f is s.bystander or whole(i, f, *rest))
            patch.setattr(synthetic, "draw_scene", lambda *args, s=scene, **sizes: s)
            film = list(render_clip(SPEC, "magenta_slow_crouch_wave", group, 1))
        for index, (image, box) in enumerate(film):
            changed = np.any(image != scene.empty_frame(index, SPEC.width, SPEC.height), axis=2)
            x, y, w, h = cv2.boundingRect(changed.astype(np.uint8))
            # The faint rim of a smooth edge may happen to have the background's colour.
            assert (
                np.abs(np.array([x, y, x + w, y + h]) - [box[0], box[1], box[0] + box[2], box[1] + box[3]]).max() <= 1
            )


def test_figures_are_small_whole_apart_and_at_places_of_their_own(monkeypatch):
    both = [figures_only(monkeypatch, CLASSES[0], group) for group in range(1, 13)]
    boxes = np.array([actor for actor, _ in both])
    area = (boxes[..., 2] * boxes[..., 3]).mean() / (SPEC.width * SPEC.height)
    assert 0.08 < area < 0.2
    assert 1 / 6 < boxes[..., 2].mean() / SPEC.width < 1 / 3
    assert (boxes[..., 3] > 0.25 * SPEC.height).all()
    for actor, bystander in both:  # side by side, never one before the other
        first, second = (
            np.where(actor[:, :1] < bystander[:, :1], *pair) for pair in ((actor, bystander), (bystander, actor))
        )
        assert (first[:, 0] + first[:, 2] <= second[:, 0]).all()
    middles = (boxes[..., 0] + boxes[..., 2] / 2)[:, 0] / SPEC.width
    assert len(set(middles.round(3))) > 6
    assert middles.max() - middles.min() > 0.05


# What is on disk


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {f.relative_to(root).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_spec_gives_the_same_bytes_and_another_seed_other_videos(small, tmp_path):
    generate_synthetic(tmp_path / "again", SMALL)
    assert digest(tmp_path / "again") == digest(small)
    generate_synthetic(tmp_path / "other", replace(SMALL, seed=4))
    assert digest(tmp_path / "other").keys() == digest(small).keys()
    assert not set(digest(tmp_path / "other").values()) & set(digest(small).values())


def test_videos_are_all_different_and_as_specified(small):
    found = digest(small)
    assert len(set(found.values())) == len(found) == 33
    assert set(found) == {BOXES} | {
        f"{name}/{clip_name(name, group, take)}.avi" for name in CLASSES for group in (1, 2) for take in (1, 2)
    }
    for path in sorted(small.rglob("*.avi"))[::9]:
        frames = list(read_video(path))
        assert len(frames) == 12
        assert frames[0].shape == (64, 80, 3)


def test_written_colours_survive_compression_and_grey_stays_the_same(small):
    green, magenta = (
        np.stack(list(read_video(small / name / f"{clip_name(name, 1, 1)}.avi")))
        for name in ("green_slow_wave_crouch", "magenta_slow_wave_crouch")
    )
    assert np.abs(green.astype(int) - magenta).max() > 100
    assert np.abs(grey(green) - grey(magenta)).mean() < 0.5


def test_boxes_are_read_as_they_were_rendered(small):
    name = CLASSES[3]
    boxes = read_boxes(small, clip_name(name, 2, 1))
    assert boxes.dtype == np.int32
    assert boxes.tolist() == [list(box) for _, box in render_clip(SMALL, name, 2, 1)]
    with pytest.raises(KeyError, match="no boxes of clip gone"):
        read_boxes(small, "gone")


def test_groups_never_straddle_and_every_class_is_in_every_group(small):
    rules = FolderRules(group_pattern=GROUP_PATTERN, test_share=0.34)
    listing = list_folder(small, rules, (1, 2), seed=1, expected=(BOXES,))
    assert check_listing(listing, (1, 2)) == []
    assert listing.classes == CLASSES
    assert {(v.group, v.class_name) for v in listing.videos} == set(itertools.product(("g01", "g02"), CLASSES))


def test_left_overs_are_refused_and_nothing_is_touched(small, tmp_path):
    generate_synthetic(tmp_path / "raw", SMALL)
    before = digest(tmp_path / "raw")
    with pytest.raises(FileExistsError, match="holds 16 file"):
        generate_synthetic(tmp_path / "raw", replace(SMALL, groups=1, seed=9))
    assert digest(tmp_path / "raw") == before
    generate_synthetic(tmp_path / "raw", SMALL)
    assert digest(tmp_path / "raw") == before


@pytest.mark.parametrize(
    "change", [{"groups": 0}, {"takes": 0}, {"frames": 11}, {"width": 40}, {"fps": 0.0}, {"shake": -1.0}]
)
def test_impossible_specs_are_refused(change):
    with pytest.raises(ValueError, match="must be"):
        replace(SMALL, **change)
