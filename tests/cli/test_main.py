"""The command itself: help, exit codes, errors without tracebacks, and what it must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from cli import main as main_module
from cli.errors import EXPECTED_ERRORS, CliError, is_expected
from cli.main import app
from tests.cli.conftest import REPOSITORY, Ended

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_help_lists_every_command(fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("--help")
    assert ended.code == 0
    for name in ("submit", "status", "export", "keys", "migrate", *COMMANDS):
        assert f"│ {name} " in ended.out


@pytest.mark.parametrize("arguments", [[name] for name in COMMANDS] + [["keys", "create"], ["keys", "list"]])
def test_every_command_has_help(fonoteca: Callable[..., Ended], arguments: list[str]) -> None:
    ended = fonoteca(*arguments, "--help")
    assert ended.code == 0
    assert "Usage: fonoteca " + " ".join(arguments) in ended.out


def test_version(fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("--version")
    assert (ended.code, ended.out.split()[0]) == (0, "fonoteca")


def test_starting_imports_nothing_heavy() -> None:
    """`fonoteca --help` must answer at once, on a machine without torch too."""
    code = (
        "import sys, cli.main; heavy = {'torch', 'transformers', 'sqlalchemy', 'numpy', 'httpx', 'alembic'} & "
        "set(sys.modules); assert not heavy, f'import these inside the command: {heavy}'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_usage_errors_end_with_2(fonoteca: Callable[..., Ended]) -> None:
    assert fonoteca("submit").code == 2
    assert fonoteca("no-such-command").code == 2
    assert fonoteca("export").code == 2
    assert fonoteca("submit", "--priority", "high", "x").code == 2


@pytest.mark.usefixtures("no_stack")
def test_no_server_is_one_clear_message(fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("status")
    assert ended.code == 1
    assert "fonoteca up" in ended.err
    assert "FONOTECA_SERVER" in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


@pytest.mark.usefixtures("no_stack")
def test_debug_shows_the_traceback(fonoteca: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_DEBUG", "1")
    ended = fonoteca("status")
    assert ended.code == 1
    assert "Traceback" in ended.err


def failing_app(error: BaseException) -> typer.Typer:
    failing = typer.Typer(pretty_exceptions_enable=False)

    @failing.command()
    def fail() -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CliError("tape.wav: is empty"), 1, "fonoteca: tape.wav: is empty\n"),
        (CliError("stopped", exit_code=130), 130, "fonoteca: stopped\n"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("division by zero"), 1, "fonoteca: unexpected error: ZeroDivisionError"),
    ],
)
def test_exit_codes(
    fonoteca: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.delenv("FONOTECA_DEBUG", raising=False)
    monkeypatch.setattr(main_module, "app", failing_app(error))
    ended = fonoteca()
    assert ended.code == code
    assert ended.err.startswith(said)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("name", sorted(EXPECTED_ERRORS))
def test_expected_errors_exist(name: str) -> None:
    """They are known by name, so a renamed one must fail here rather than show as unexpected."""
    module, _, error = name.rpartition(".")
    # the source is read, not imported: some of these rooms take seconds to load
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    assert error in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_errors_are_expected_with_their_subclasses() -> None:
    from compose.local.errors import StartError
    from db.settings import SettingMissing

    assert is_expected(SettingMissing("what, why, what to do"))
    assert is_expected(StartError("what, why, what to do"))
    assert not is_expected(ValueError("a fault of ours"))
