"""Learning itself, on toy problems in seconds: each can be solved by one part of the model only."""

import dataclasses
import os

import pytest
import torch
import torch.multiprocessing

from han_core.cubes.features import MemoryFeatures
from han_core.cubes.moments import glimpse_statistics
from han_core.cubes.sparse import SparseCubes
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.training import Epoch, TrainingError, TrainingSchedule, classify, make_optimizer, train
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import processes

CLIPS, FRAMES, CHANNELS, REGIONS = 64, 6, 4, 5
BOTH = ("spatial", "temporal")
SCHEDULE = TrainingSchedule(
    epochs=60, batch=32, optimizer="adam", learning_rate=0.02, eps=1e-8, standardize=True, seed=3
)


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * CLIPS, FRAMES, CHANNELS, REGIONS)
    cubes = {s: 0.3 * torch.randn(shape, generator=generator) for s in BOTH}
    labels = torch.arange(2 * CLIPS) % 2
    return cubes, labels


def halves(cubes, labels):
    """The first half to learn from, the second to be scored on."""
    return (
        MemoryFeatures({s: c[:CLIPS] for s, c in cubes.items()}, labels[:CLIPS]),
        MemoryFeatures({s: c[CLIPS:] for s, c in cubes.items()}, labels[CLIPS:]),
    )


def accuracy(train_set, test_set, streams=BOTH, attention="location", schedule=SCHEDULE, **changes):
    torch.manual_seed(0)
    config = HANConfig(
        streams=streams,
        classes=2,
        channels=CHANNELS,
        regions=REGIONS,
        lstm_size=8,
        layers=2,
        skip=2,
        dropout=0.1,
        attention=attention,
        **changes,
    )
    model = HAN(config)
    train_set, test_set = (MemoryFeatures({s: f.arrays[s] for s in streams}, f.labels) for f in (train_set, test_set))
    train(model, train_set, schedule)
    return (classify(model, test_set)[0].argmax(1) == test_set.labels).float().mean().item(), model


def order_problem():
    """Channel 0 then channel 1, or the other way round: the same frames in another order."""
    cubes, labels = noise(1)
    half = FRAMES // 2
    for clip, label in enumerate(labels.tolist()):
        cubes["spatial"][clip, :half, label] += 1
        cubes["spatial"][clip, half:, 1 - label] += 1
    return halves(cubes, labels)


def region_problem():
    """The class is the sign of region 2; region 4 shows the opposite, so the mean over the regions tells nothing."""
    cubes, labels = noise(2)
    sign = (2 * labels - 1).view(-1, 1, 1).float()
    for stream in BOTH:
        cubes[stream][..., 2] += sign
        cubes[stream][..., 4] -= sign
        cubes[stream] -= cubes[stream].mean(dim=3, keepdim=True)
    return halves(cubes, labels)


def motion_problem():
    """Only the temporal stream tells the class."""
    cubes, labels = noise(3)
    cubes["temporal"][:, :, 0] += (2 * labels - 1).view(-1, 1, 1).float()
    return halves(cubes, labels)


def test_order_is_learnt_and_is_what_was_learnt():
    train_set, test_set = order_problem()
    top1, model = accuracy(train_set, test_set)
    assert top1 > 0.95
    backwards = MemoryFeatures({s: c.flip(1) for s, c in test_set.arrays.items()}, test_set.labels)
    assert (classify(model, backwards)[0].argmax(1) == test_set.labels).float().mean() < 0.1


def test_only_attention_finds_the_region():
    train_set, test_set = region_problem()
    top1, model = accuracy(train_set, test_set)
    assert top1 > 0.95
    maps = model(test_set.batch(range(CLIPS))).attention[:, 1:].mean(dim=(0, 1))
    assert (maps[2] - maps[4]).abs() > 0.3
    assert accuracy(train_set, test_set, attention="uniform")[0] < 0.7


def test_a_single_stream_cannot_use_the_other():
    train_set, test_set = motion_problem()
    assert accuracy(train_set, test_set)[0] > 0.95
    assert accuracy(train_set, test_set, streams=("temporal",))[0] > 0.95
    assert accuracy(train_set, test_set, streams=("spatial",))[0] < 0.7


@pytest.mark.parametrize("changes", [{"attention": "content"}, {"initial_state": "mean"}], ids=str)
def test_options_learn_too(changes):
    train_set, test_set = motion_problem()
    assert accuracy(train_set, test_set, **{"attention": "location", **changes})[0] > 0.9


def test_the_same_seed_gives_the_same_weights():
    train_set, test_set = motion_problem()
    short = TrainingSchedule(epochs=2, batch=16, seed=5)
    first, second = (accuracy(train_set, test_set, schedule=short)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = accuracy(train_set, test_set, schedule=TrainingSchedule(epochs=2, batch=16, seed=6))[1].state_dict()
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_validation_clips_are_reported_and_never_learnt_from():
    train_set, test_set = motion_problem()
    reports: list[Epoch] = []
    states = []
    for validation in (None, test_set):
        torch.manual_seed(0)
        model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2))
        train(
            model,
            train_set,
            TrainingSchedule(epochs=3, batch=16),
            validation=validation,
            on_epoch=lambda epoch, pace: reports.append(epoch),
        )
        states.append(model.state_dict())
    assert [e.validation_top1 is None for e in reports] == [True] * 3 + [False] * 3
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_loss_that_is_not_finite_stops_in_plain_words():
    train_set, _ = motion_problem()
    train_set.arrays["spatial"][0, 0, 0, 0] = float("nan")
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8))
    with pytest.raises(TrainingError, match="epoch 1: the loss is nan"):
        train(model, train_set, TrainingSchedule(epochs=1, standardize=False))


def test_glimpse_statistics_are_those_of_the_mean_over_regions():
    train_set, _ = motion_problem()
    for cube in train_set.arrays.values():
        cube += torch.linspace(0, 3, CLIPS).view(-1, 1, 1, 1)  # so that regions vary together
    mean, deviation = glimpse_statistics(train_set, batch=7)
    for n, stream in enumerate(BOTH):
        pooled = train_set.arrays[stream].double().mean(3).flatten(0, 1)
        torch.testing.assert_close(mean[n].double(), pooled.mean(0), atol=1e-6, rtol=0)
        torch.testing.assert_close(deviation[n].double(), pooled.std(0, correction=0), atol=1e-6, rtol=0)


def test_regions_that_cancel_out_are_not_blown_up():
    train_set, _ = region_problem()
    _, deviation = glimpse_statistics(train_set)
    for n, stream in enumerate(BOTH):
        regions = train_set.arrays[stream].double().permute(2, 0, 1, 3).flatten(1)
        expected = regions.std(1, correction=0) / REGIONS**0.5
        torch.testing.assert_close(deviation[n].double(), expected, atol=1e-5, rtol=0)


class Watched(MemoryFeatures):
    """Notes which clips each batch is made of."""

    def batch(self, indices):
        self.seen.append(list(indices))
        return super().batch(indices)


def test_clips_are_shuffled_anew_each_epoch_and_each_is_seen_once():
    train_set, _ = motion_problem()
    orders = {}
    for seed in (1, 1, 2):
        watched = Watched(train_set.arrays, train_set.labels)
        watched.seen = []
        schedule = TrainingSchedule(epochs=3, batch=20, standardize=False, seed=seed)
        train(HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4)), watched, schedule)
        assert [len(batch) for batch in watched.seen] == 3 * [20, 20, 20, 4]
        order = [[clip for batch in watched.seen[first : first + 4] for clip in batch] for first in (0, 4, 8)]
        assert all(sorted(epoch) == list(range(CLIPS)) for epoch in order)
        assert list(range(CLIPS)) not in order, "shuffled"
        assert len({tuple(epoch) for epoch in order}) == 3, "anew each epoch"
        assert orders.setdefault(seed, order) == order, "by the seed"
    assert orders[1] != orders[2]


def test_of_each_clip_a_view_is_drawn_anew_each_epoch_and_only_of_those_that_are_asked_for():
    train_set, _ = motion_problem()
    arrays = {stream: torch.cat([values, -values, 2 * values]) for stream, values in train_set.arrays.items()}
    watched = Watched(arrays, train_set.labels, ("", "mirrored", "shift1"))
    for wanted, drawn in ((("mirrored", "shift1"), {0, 1, 2}), (("shift1",), {0, 2}), ((), {0})):
        watched.seen = []
        schedule = TrainingSchedule(epochs=3, batch=20, standardize=False, views=wanted)
        train(HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4)), watched, schedule)
        epochs = [[n for batch in watched.seen[first : first + 4] for n in batch] for first in (0, 4, 8)]
        for epoch in epochs:
            assert sorted(n % CLIPS for n in epoch) == list(range(CLIPS)), "each clip once"
            counts = [sum(n // CLIPS == view for n in epoch) for view in range(3)]
            assert {view for view, count in enumerate(counts) if count} == drawn
            assert min(counts[view] for view in drawn) > CLIPS / len(drawn) / 2
        views = [{n % CLIPS: n // CLIPS for n in epoch} for epoch in epochs]
        assert (views[0] == views[1]) == (not wanted), "drawn anew"
    with pytest.raises(ValueError, match="no view shift2; they have mirrored, shift1"):
        train(HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4)), watched, TrainingSchedule(views=("shift2",)))


def test_statistics_and_answers_are_of_the_plain_view_unless_another_is_named():
    _, test_set = motion_problem()
    arrays = {stream: torch.cat([values, -values]) for stream, values in test_set.arrays.items()}
    both = MemoryFeatures(arrays, test_set.labels, ("", "mirrored"))
    other = MemoryFeatures({s: -values for s, values in test_set.arrays.items()}, test_set.labels)
    torch.manual_seed(0)
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4))
    assert torch.equal(classify(model, both)[0], classify(model, test_set)[0])
    assert torch.equal(classify(model, both, view="mirrored")[0], classify(model, other)[0])
    assert not torch.equal(classify(model, both, view="mirrored")[0], classify(model, both)[0])
    for a, b in zip(glimpse_statistics(both), glimpse_statistics(test_set), strict=True):
        assert torch.equal(a, b)


def test_cubes_are_moved_anew_each_epoch_as_far_as_the_schedule_says_and_both_streams_alike(monkeypatch):
    train_set, _ = motion_problem()
    moves = []

    def noting(values, offsets):
        moves.append((values, offsets.clone()))
        return values

    monkeypatch.setattr("han_core.han.training.shifted", noting)
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4))
    train(model, train_set, TrainingSchedule(epochs=2, batch=20, standardize=False))
    assert not moves
    train(model, train_set, TrainingSchedule(epochs=2, batch=20, standardize=False, shift=2))
    offsets = [offsets for _, offsets in moves]
    assert [len(part) for part in offsets] == [n for _ in range(2) for n in (20, 20, 20, 20, 20, 20, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(offsets[::2], offsets[1::2], strict=True))
    first, second = torch.cat(offsets[:8:2]), torch.cat(offsets[8::2])
    assert set(first.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert not torch.equal(first, second)


OPTIMIZERS = {"adadelta": 1.0, "adam": 0.01, "sgd": 0.1}


@pytest.mark.parametrize(("name", "rate"), OPTIMIZERS.items())
def test_attention_learns_at_a_rate_of_its_own(name, rate):
    """The first step of each optimiser is proportional to the rate, and all other weights step as they would anyway."""
    train_set, _ = region_problem()
    config = HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4, dropout=0.0)

    def moved(factor):
        torch.manual_seed(0)
        model = HAN(config)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        schedule = TrainingSchedule(1, CLIPS, name, rate, attention_rate=factor, standardize=False)
        train(model, train_set, schedule)
        return {key: value - before[key] for key, value in model.state_dict().items()}

    plain, fast, still = moved(1.0), moved(3.0), moved(0.0)
    weight = "attention.regions.weight"
    assert plain[weight].abs().max() > 0
    torch.testing.assert_close(fast[weight], 3 * plain[weight], rtol=1e-4, atol=1e-7)
    assert not still[weight].any()
    for key in plain.keys() - {weight}:
        assert torch.equal(fast[key], plain[key]), key
        assert torch.equal(still[key], plain[key]), key


def test_content_based_attention_has_the_rate_for_all_its_weights_and_uniform_attention_none():
    schedule = TrainingSchedule(attention_rate=2.0, learning_rate=0.5)
    for attention, weights in (("content", 5), ("location", 1), ("uniform", 0)):
        model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4, attention=attention))
        groups = make_optimizer(model, schedule).param_groups
        own = [parameter for group in groups if group["lr"] == 1.0 for parameter in group["params"]]
        assert {id(p) for p in own} == {id(p) for p in model.attention.parameters()}
        assert len(own) == weights
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_w_starts_from_a_normal_distribution_where_one_is_asked_for_and_nothing_else_changes():
    config = HANConfig(BOTH, 2, CHANNELS, regions=196, lstm_size=64)
    states = []
    for deviation in (None, 0.5):
        torch.manual_seed(3)
        states.append(HAN(dataclasses.replace(config, attention_deviation=deviation)).state_dict())
    default, drawn = (state.pop("attention.regions.weight") for state in states)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)
    assert drawn.mean().item() == pytest.approx(0, abs=0.02)
    assert drawn.abs().max() > 1.5, "not uniform"
    assert default.abs().max() <= 128**-0.5
    assert equal(*states)


def test_options_of_attention_that_no_model_can_have():
    for changes in (
        {"attention_deviation": 0.0},
        {"attention_deviation": 1.0, "attention": "uniform"},
        {"region_dropout": 1.0},
        {"region_dropout": -0.1},
        {"stream_dropout": 1.1},
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            HANConfig(BOTH, 2, **changes)


def test_adadelta_takes_zeilers_constants():
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=4))
    optimizer = make_optimizer(model, TrainingSchedule())
    assert (optimizer.defaults["rho"], optimizer.defaults["eps"], optimizer.defaults["lr"]) == (0.95, 1e-6, 1.0)


def trained(seed=0, *, epochs=4, optimizer="adadelta", attention_rate=1.0, region_dropout=0.0, **options):
    """A small model after some epochs, with dropout; and what was reported."""
    train_set, test_set = motion_problem()
    torch.manual_seed(seed)
    config = HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2, dropout=0.3, region_dropout=region_dropout)
    model = HAN(config)
    reports = []
    on_epoch = lambda epoch, pace: reports.append((epoch, pace))  # noqa: E731
    rate = OPTIMIZERS[optimizer]
    schedule = TrainingSchedule(epochs, 21, optimizer, rate, attention_rate=attention_rate, seed=7)
    options.setdefault("validation", test_set)
    train(model, options.pop("features", train_set), schedule, on_epoch=on_epoch, **options)
    return model.state_dict(), reports


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "options",
    [{}, *({"optimizer": name, "attention_rate": 4.0, "region_dropout": 0.3} for name in OPTIMIZERS)],
    ids=lambda options: options.get("optimizer", "default"),
)
def test_an_interrupted_run_ends_with_the_same_weights_and_curve(options, tmp_path):
    whole, reports = trained(**options)
    path = tmp_path / "run.safetensors"
    trained(epochs=2, checkpoint=Checkpoint(path, seconds=0), **options)
    resumed, later = trained(seed=99, checkpoint=Checkpoint(path, seconds=0), **options)
    assert equal(whole, resumed)
    assert [epoch for epoch, _ in later] == [epoch for epoch, _ in reports]
    assert [pace is None for _, pace in later] == [True, True, False, False]
    assert all(0 <= pace.waiting <= 1 and pace.clips_per_second > 0 for _, pace in reports)


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path):
    train_set, _ = motion_problem()
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    good, _ = trained(epochs=2, checkpoint=checkpoint)
    train_set.arrays["spatial"][0, 0, 0, 0] = float("nan")
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2, dropout=0.3))
    schedule = TrainingSchedule(epochs=4, batch=21, seed=7, standardize=False)
    with pytest.raises(TrainingError, match=r"epoch 3: .* The last good state is in .*run\.safetensors"):
        train(model, train_set, schedule, checkpoint=checkpoint)
    kept = HAN(model.config)
    checkpoint.restore(kept, make_optimizer(kept, schedule))
    assert equal(good, kept.state_dict())


def test_sparse_features_train_the_same_model():
    train_set, _ = motion_problem()
    halved = MemoryFeatures({s: c.half() for s, c in train_set.arrays.items()}, train_set.labels)
    sparse = MemoryFeatures({s: SparseCubes.from_dense(c) for s, c in halved.arrays.items()}, halved.labels)
    dense, _ = trained(features=halved, validation=None)
    other, _ = trained(features=sparse, validation=None)
    for name, value in dense.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4)


def _member(rank, size, port, folder, options):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as group:
        state, reports = trained(processes=group, **options)
        torch.save((state, [(e.loss, e.top1) for e, _ in reports]), f"{folder}/{size}-{rank}")


@pytest.mark.parametrize(
    ("size", "options"),
    [(2, {}), pytest.param(3, {"region_dropout": 0.3, "attention_rate": 2.0}, marks=pytest.mark.long)],
)
def test_several_processes_give_the_result_of_one(size, options, tmp_path, free_port):
    """The same batches and dropout; sums in another order, and Adadelta divides by roots of small numbers."""
    alone, reports = trained(**options)
    torch.multiprocessing.spawn(_member, (size, free_port, str(tmp_path), options), nprocs=size)
    for rank in range(size):
        state, figures = torch.load(tmp_path / f"{size}-{rank}")
        for name, value in alone.items():
            torch.testing.assert_close(value, state[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert figures == [pytest.approx((e.loss, e.top1), rel=1e-3) for e, _ in reports]
