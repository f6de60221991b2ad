"""Keeping a net when the code that makes it was changed and does the same."""

from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner

from han_core.cache.fingerprint import code_of, without_code
from han_core.nets import weights
from han_core.runs.processes import Processes
from pipeline import adopt, finetune, net_training

OLD, OLDER = "0123456789abcdef", "fedcba9876543210"

pytestmark = pytest.mark.usefixtures("small_training_images", "small_nets")


def train(project, iterations=4):
    project.params["finetune"]["spatial"] |= {"iterations": iterations, "batch": 2, "micro_batch": 2}
    return project.ok("finetune")


def files(project):
    return project.cached("nets")


def age(project, code=OLD):
    """As if today's code were new, and the net had been made by the code before."""
    for path in files(project):
        identity, _, rest = path.name.partition(".")
        if code_of(identity) not in (OLD, OLDER):
            path.rename(path.with_name(f"{without_code(identity)}-{code}.{rest}"))


def codes(project):
    return {code_of(path.name.partition(".")[0]) for path in files(project)}


def keep(*arguments, code=0):
    result = CliRunner().invoke(adopt.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def untrained(monkeypatch):
    """From here on no net is made by the stage."""
    return lambda: monkeypatch.setattr(net_training, "_made", lambda *_: pytest.fail("a net was made"))


def test_a_trained_net_is_kept_if_its_first_iterations_are_the_same(nets_project, untrained):
    train(nets_project)
    net = nets_project.net().read_bytes()
    curve = (nets_project.curve() / "metrics.json").read_bytes()
    age(nets_project)
    assert "the first 3 iterations all equal; the net is adopted" in keep("finetune-spatial@1", "--sample", "3")
    assert codes(nets_project) > {OLD}
    untrained()
    nets_project.net().unlink()
    assert "reused" in nets_project.ok("finetune")
    assert nets_project.net().read_bytes() == net
    assert (nets_project.curve() / "metrics.json").read_bytes() == curve
    assert "the net is of today's code" in keep("finetune-spatial@1")


def test_the_first_iteration_that_differs_is_named_and_nothing_is_kept(nets_project, monkeypatch):
    train(nets_project)
    age(nets_project)
    schedule = finetune.schedule
    monkeypatch.setattr(finetune, "schedule", lambda *_: replace(schedule(*_), momentum=0.5))
    assert "the first 2 iterations all equal" in keep("finetune-spatial@1", "--sample", "2", "--from", OLD), (
        "no past yet"
    )
    for path in set(files(nets_project)):
        if code_of(path.name.partition(".")[0]) != OLD:
            path.unlink()
    said = keep("finetune-spatial@1", code=1)
    assert "iteration 3: loss is " in said
    assert "Nothing is adopted" in said
    assert codes(nets_project) == {OLD}
    assert "4 iterations on" in nets_project.ok("finetune")


@pytest.mark.parametrize("same", [True, False])
def test_a_net_that_is_not_trained_is_made_again_and_compared(nets_project, monkeypatch, same):
    train(nets_project, iterations=0)
    age(nets_project)
    if not same:
        monkeypatch.setattr(weights, "initial_net", partial(moved, weights.initial_net))
    said = keep("finetune-spatial@1", code=0 if same else 1)
    assert ("the net made again, all equal" if same else "has other values. Nothing is adopted") in said


def moved(initial_net, *arguments, **options):
    net = initial_net(*arguments, **options)
    next(net.parameters()).data += 1
    return net


def test_of_several_codes_that_of_the_output_is_taken_or_one_is_named(nets_project):
    train(nets_project)
    age(nets_project)
    train(nets_project)
    age(nets_project, OLDER)
    assert f"code {OLD} -> " in keep("finetune-spatial@1", "--sample", "1", "--from", OLD)
    for path in files(nets_project):
        if code_of(path.name.partition(".")[0]) not in (OLD, OLDER):
            path.unlink()
    nets_project.net().unlink()
    said = keep("finetune-spatial@1", code=1)
    assert f"nets of several codes, {OLD}, {OLDER}; name one by --from" in said


def test_without_a_net_there_is_nothing_to_keep_and_other_names_are_refused(nets_project):
    train(nets_project)
    nets_project.params["seed"] += 1
    nets_project.run("cubes")  # writes the params
    assert "there is no net of today's code" in keep("finetune-spatial@1")
    assert "finetune-sideways: is no stage that makes a net; those are finetune-spatial@N" in keep(
        "finetune-sideways", code=1
    )
    assert "finetune@7: is no stage that makes a net" in keep("finetune@7", code=1)


def test_a_net_that_several_processes_trained_is_compared_by_as_many(nets_project):
    nets_project.params["run"] |= {"processes": 2, "device": "cpu"}
    nets_project.params["finetune"]["spatial"] |= {"iterations": 4, "batch": 2, "micro_batch": 2}
    nets_project.run("cubes")  # writes the params
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr("pipeline.execution.launch.subprocess.run", lambda command, **_: seen.append(command) or Ended(0))
        keep("finetune-spatial@1", "--sample", "3", "--from", OLD)
    (command,) = seen
    assert "--nproc-per-node=2" in command
    arguments = ["finetune-spatial@1", "--sample", "3", "--from", OLD, "--params", "params.yaml"]
    assert command[command.index("-m", 2) :] == ["-m", "pipeline.adopt", *arguments]


def test_only_the_main_process_speaks_and_writes(nets_project, monkeypatch):
    train(nets_project)
    age(nets_project)
    monkeypatch.setattr(Processes, "main", property(lambda self: False))
    assert keep("finetune-spatial@1") == ""
    assert codes(nets_project) == {OLD}


class Ended:
    def __init__(self, returncode):
        self.returncode = returncode
