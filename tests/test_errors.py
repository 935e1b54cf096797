"""Messages that name arguments: in Python's words, and with the options of the command line."""

import copy
import pickle

import click
import pytest
from click.testing import CliRunner

from alexnet_deploy.console.group import CommandGroup
from alexnet_deploy.console.reporting import option, say
from alexnet_deploy.errors import (
    AlexNetDeployError,
    Argument,
    ArgumentError,
    DeviceError,
    Message,
    MissingPackageError,
    UsageError,
)


@pytest.mark.parametrize(
    ("argument", "in_python", "on_the_command_line"),
    [
        (Argument("batch_size"), "batch_size", "--batch-size"),
        (Argument("batch_size", 1), "batch_size=1", "--batch-size 1"),
        (Argument("runtime", "onnxruntime"), 'runtime="onnxruntime"', "--runtime onnxruntime"),
        (Argument("prune", True), "prune=True", "--prune"),
        (Argument("k"), "k", "-k"),
        (Argument("directory"), "directory", "--index"),
        (Argument("profile.max", 8), "profile.max=8", "--max-batch 8"),
        (Argument("recipe.momentum", 0.9), "recipe.momentum=0.9", "--set momentum=0.9"),
    ],
    ids=str,
)
def test_an_argument_is_written_as_in_python_or_as_an_option(
    argument: Argument, in_python: str, on_the_command_line: str
) -> None:
    assert str(argument) == in_python
    assert option(argument) == on_the_command_line
    error = DeviceError("no GPU; use ", argument, " here")
    assert str(error) == f"no GPU; use {in_python} here"
    assert error.rendered(option) == f"no GPU; use {on_the_command_line} here"


def test_a_message_within_a_message_keeps_its_arguments() -> None:
    inner = UsageError(Argument("threads"), " is 0")
    outer = Message("not verified: ", inner.message, "; see ", Argument("device"))
    assert outer == "not verified: threads is 0; see device"
    assert outer.rendered(option) == "not verified: --threads is 0; see --device"


def test_a_wrong_argument_says_what_came_what_was_expected_and_what_to_do() -> None:
    remedy = Message("leave ", Argument("threads"), " out")
    error = ArgumentError("batch_size", 0, "1 or more", remedy)
    assert (error.argument, error.came, error.expected) == ("batch_size", 0, "1 or more")
    assert str(error) == "batch_size is 0, expected 1 or more; leave threads out"
    assert error.rendered(option) == ("--batch-size is 0, expected 1 or more; leave --threads out")
    assert str(ArgumentError("k", "a", "a number")) == "k is 'a', expected a number"


@pytest.mark.parametrize(
    "error",
    [
        UsageError("text"),
        DeviceError("use ", Argument("device", "cpu")),
        ArgumentError("k", 0, "1 or more", "leave it out"),
        MissingPackageError("openvino", "cpu", "running a model"),
    ],
    ids=str,
)
def test_an_error_comes_whole_through_a_pickle_and_a_copy(error: AlexNetDeployError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.rendered(option) == error.rendered(option)
        assert vars(again) == vars(error)


def test_the_command_line_writes_options_in_errors_and_notices() -> None:
    @click.group(cls=CommandGroup)
    def group() -> None:
        pass

    @group.command()
    def fail() -> None:
        say(Message("better with ", Argument("calibrate_on")))
        raise ArgumentError("max_failures", "x", "a count")

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == 2
    assert result.stderr == (
        "better with --calibrate\nError: --max-failures is 'x', expected a count\n"
    )
