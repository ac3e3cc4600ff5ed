from __future__ import annotations

import re
import runpy
import sys

import click
import pytest
from click.testing import CliRunner

import pargo_export
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.main import COMMANDS, cli
from pargo_export.errors import ConfigError


def _command(action):
    @click.command("test", cls=PargoCommand)
    @pass_reporter
    def command(reporter):
        return action(reporter)

    return command


def _invoke(action, *arguments):
    return CliRunner().invoke(_command(action), arguments)


def _raise(error):
    def action(_reporter):
        raise error

    return action


def test_version(run):
    """The version is printed with the name of the program."""
    assert run("--version").stdout == f"pargo-export {pargo_export.__version__}\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(run, option):
    """Every command stands in the help with one whole line."""
    result = run(option)
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S.*[^.]\.$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_shared_options(run, name):
    """Each command explains itself and takes --json, -v, -q and --debug."""
    result = run(name, "-h")
    assert result.exit_code == 0
    for option in ("--json", "-v, --verbose", "-q, --quiet", "--debug"):
        assert option in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_a_command_by_itself(option):
    """A command that is called without its group knows both names of its help."""
    result = CliRunner().invoke(_command(lambda _reporter: None), [option])
    assert result.exit_code == 0
    assert "-h, --help" in result.stdout


def test_unknown_command(run):
    """A command that does not exist is a usage error."""
    result = run("export")
    assert result.exit_code == 2
    assert "No such command 'export'" in result.stderr


def test_errors_are_one_line():
    """An error of the library is one line on standard error, and the exit status 1."""
    result = _invoke(_raise(ConfigError("a problem " * 30 + "[with brackets]; mend it")))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "error: " + "a problem " * 30 + "[with brackets]; mend it\n"


def test_unexpected_errors_ask_for_a_report():
    """An error that is nobody's mistake but ours says so, without a traceback."""
    result = _invoke(_raise(ZeroDivisionError("division")))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: division;")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ConfigError("wrong"), ZeroDivisionError("division")])
def test_debug_shows_the_traceback(error):
    """With --debug the exception comes through."""
    assert _invoke(_raise(error), "--debug").exception is error


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (None, 0), (False, 1)])
def test_exit_status_says_whether_checks_passed(passed, status):
    """A command that ran, but whose checks did not pass, exits with 1."""
    assert _invoke(lambda _: passed).exit_code == status


def test_interrupt(run, monkeypatch):
    """Ctrl-C ends with a clean message and the status that shells give it."""

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pargo_export.doctor.diagnose", interrupted)
    result = run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_verbose_times_the_steps():
    """With -v each step is a line on standard error; results stay on standard output."""

    def action(reporter):
        reporter.step("first")
        reporter.step("second")
        reporter.result({"a": 1}, lambda: ["done"])

    result = _invoke(action, "-v")
    assert result.stdout == "done\n"
    assert re.fullmatch(r" +\d\.\d\d s  first\n +\d\.\d\d s  second\n", result.stderr)
    assert _invoke(action).stderr == ""
    assert _invoke(action, "-v", "-q").stderr == ""


def _count(reporter):
    reporter.step("counting")
    for done in range(1, 41):
        reporter.advance(done, 40)
    reporter.advance(1, 0)  # of nothing
    reporter.step("counting again")
    reporter.advance(10, 40)


def test_verbose_counts_in_tenths():
    """With -v a long step is a line every tenth, each step from the start; without it, nothing."""
    lines = _invoke(_count, "-v").stderr.splitlines()
    shown = [line.split("  ")[-1] for line in lines]
    assert shown == [
        *(f"counting: {done} of 40" for done in range(4, 41, 4)),
        "counting",
        "counting again: 10 of 40",
        "counting again",
    ]
    assert _invoke(_count).stderr == ""
    assert _invoke(_count, "-v", "-q").stderr == ""


def test_json_is_all_there_is():
    """With --json standard output is one JSON value."""
    result = _invoke(lambda reporter: reporter.result({"ä": [1]}, lambda: ["text"]), "--json")
    assert result.stdout == '{\n  "ä": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize(("option", "shown"), [(None, True), ("-q", False)])
def test_warnings_of_the_library_are_shown(option, shown):
    """What the library logs as a warning is a line on standard error, unless --quiet."""
    import logging

    def action(_reporter):
        logging.getLogger("pargo_export.test").warning("careful %s", "now")
        logging.getLogger("pargo_export.test").info("details")

    result = _invoke(action, *([option] if option else []))
    assert result.stderr == ("warning: careful now\n" if shown else "")
    assert logging.getLogger("pargo_export").handlers == []


def test_module_is_the_program(monkeypatch, capsys):
    """`python -m pargo_export` is the same as `pargo-export`."""
    monkeypatch.setattr(sys, "argv", ["pargo_export", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("pargo_export", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("pargo-export ")


def test_commands_are_found_in_order():
    """The group lists its commands in the order of use."""
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
