"""What all commands share: options, errors, Ctrl-C, a closed pipe, shell completion."""

from __future__ import annotations

import argparse
import errno
import functools
import math
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import msgspec

from sut import correction, home, messages, output
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, SutError
from sut.output import OutputError
from sut.rundir import RunDir

# A shell reports these codes for a program that the signal ended.
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE
EXIT_INTERRUPTED = 128 + signal.SIGINT

COMPLETING = "_ARGCOMPLETE"  # in the environment of a program that completes for a shell

_P = ParamSpec("_P")


class Parser(argparse.ArgumentParser):
    """The options of a command. ``examples`` are the words after the command's name."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.allow_abbrev = False  # an abbreviation would change its meaning with a new option
        self._examples = [f"{self.prog} {words}".strip() for words in examples]
        self._words: list[str] = []  # of the command line
        self._value = ""  # the word that is converted
        self._hint = ""  # for the error that is about to be raised

    def format_help(self) -> str:
        lines = ["", "examples:", *(f"  {example}" for example in self._examples), ""]
        return super().format_help() + ("\n".join(lines) if self._examples else "")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse ``argv``, or answer a shell that completes it. Exits on --help and on errors."""
        if COMPLETING in os.environ:
            import argcomplete  # here: no other call needs it

            argcomplete.autocomplete(self)
        parsed: argparse.Namespace = self.parse_args(argv)
        return parsed

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with the right command where one can be given."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def num_given(self, option: str) -> int:
        """How often an option is on the command line."""
        return sum(word.partition("=")[0] == option for word in self._words)

    def missing(self, names: Sequence[str]) -> NoReturn:
        """Refuse a command line without these options or, by their metavar, arguments."""
        actions = [next(each for each in self._actions if _is(each, name)) for name in names]
        self._hint = self._command(correction.with_missing(self._words, actions))
        self.error(f"missing {', '.join(names)}")

    def error(self, message: str, hint: str = "") -> NoReturn:
        if message.startswith((_REQUIRED, _ONE_REQUIRED)) and (unknown := self._misspelt()):
            self._refuse(unknown)
        if names := message.removeprefix(_REQUIRED).split(", ") * message.startswith(_REQUIRED):
            self.missing(names)
        hint = hint or self._hint or self._hint_for(message)
        messages.report(f"error: {message}\nhint: {hint}")
        self.exit(EXIT_BAD_INPUT)

    def with_words(self, *words: str) -> str:
        """The command line with these words at its end."""
        return self._command([*self._words, *words])

    def without(self, *options: str) -> str:
        """The command line without these options."""
        words = self._words
        for name in options:
            words = correction.without(words, self._option_string_actions[name])
        return self._command(words)

    def _hint_for(self, message: str) -> str:
        """What to do about an error that argparse finds between options."""
        if found := _EXCLUDES.search(message):
            return "leave out one of the two: " + ", or: ".join(map(self.without, found.groups()))
        if found := _NO_VALUE.search(message):
            for word in self._words:
                if word.startswith("-") and word.endswith(f"={found[1]}"):
                    option = word.removesuffix(f"={found[1]}")
                    return self._command(correction.replaced(self._words, word, [option]))
        return f"for all options: {self.prog} --help"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        self._value = arg_string
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            better = [correction.placeholder(action)]
            self._hint = self._command(correction.replaced(self._words, arg_string, better))
            raise

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError:
            self._hint = self._command(correction.with_value(self._words, action))
            raise

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse does, with the nearest choice."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            choices = list(map(str, action.choices or ()))
            near = correction.nearest(str(value), choices)
            better = near if near in choices else correction.placeholder(action)
            command = self._command(correction.replaced(self._words, self._value, [better]))
            self._hint = near if near and near not in choices else command
            raise argparse.ArgumentError(action, f"{error.message}{_meant(near)}") from None

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Refuse words that are neither options nor their values."""
        better, meant, takes_value = self._words, "", False
        for word in unknown:
            if takes_value and not word.startswith("-"):
                takes_value = False
                continue
            instead = self._instead_of(word)
            better = correction.replaced(better, word, instead)
            option = self._option_string_actions.get(instead[0]) if len(instead) == 1 else None
            takes_value = option is not None and option.nargs != 0
            if instead and not meant:
                meant = shlex.join(instead) if len(instead) > 1 else instead[0].partition("=")[0]
        hint = self._command(better)
        if not meant:
            hint = f"leave out what is unknown: {hint}; all options: {self.prog} --help"
        self.error(f"unrecognized arguments: {shlex.join(unknown)}{_meant(meant)}", hint)

    def _misspelt(self) -> list[str]:
        """The words that look like an option and resemble one: a required argument is missing
        because of them."""
        options = self._option_string_actions
        words = [word for word in self._words if word.startswith("--")]
        unknown = [word for word in words if word.partition("=")[0] not in (*options, "--")]
        return [word for word in unknown if self._instead_of(word)]

    def _instead_of(self, word: str) -> list[str]:
        """The words that were probably meant by one that is not an option."""
        options = self._option_string_actions
        if word.startswith("-"):
            name, *value = word.split("=", 1)
            near = correction.nearest(name, options)
            return ["=".join([near, *value])] if near else []
        if "=" in word and "--set" in options:
            return ["--set", word]
        chosen = (
            name for name, each in options.items() if word in correction.values_of(each, word)
        )
        return next(([name, word] for name in chosen), [])

    def _command(self, words: Sequence[str]) -> str:
        """A command line of this parser, with the name by which it was called."""
        script = len(sys.orig_argv) > 1 and os.path.basename(sys.orig_argv[1]) == "sut"
        name = self.prog.replace("python -m sut.", "sut ") if script else self.prog
        return f"{name} {shlex.join(words)}".strip()


_REQUIRED = "the following arguments are required: "
_ONE_REQUIRED = "one of the arguments "
_EXCLUDES = re.compile(r"argument (\S+): not allowed with argument (\S+)")
_NO_VALUE = re.compile(r"ignored explicit argument '(.*)'")


def _is(action: argparse.Action, name: str) -> bool:
    """Whether argparse calls an argument ``name``."""
    names = (*action.option_strings, "/".join(action.option_strings), action.metavar, action.dest)
    return name in names


def _meant(words: str) -> str:
    return f" (did you mean {words}?)" if words else ""


def command(main: Callable[_P, int]) -> Callable[_P, int]:
    """A command whose output is its result. Prints a SutError and returns its exit code; ends
    silently on Ctrl-C and on a closed pipe (``... | head``). Every other exception is a bug, and
    exits as a failure does."""
    return _wrapped(main, output_is_result=True)


def command_of_run(main: Callable[_P, int]) -> Callable[_P, int]:
    """The same for a command that runs, ends or records something: its exit code stands even if its
    output is lost."""
    return _wrapped(main, output_is_result=False)


def _wrapped(main: Callable[_P, int], *, output_is_result: bool) -> Callable[_P, int]:
    @functools.wraps(main)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as sut/__init__.py leaves it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        output.protect(is_the_result=output_is_result)
        try:
            try:
                code = main(*args, **kwargs)
            except SystemExit:  # of --help and of argparse's errors
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        except SutError as error:
            messages.report(f"error: {error}")
            return error.exit_code
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except OutputError as error:
            if error.errno == errno.EPIPE:
                return EXIT_BROKEN_PIPE
            messages.report(f"error: cannot write to standard output: {error}")
            return EXIT_FAILED
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not home.current_folder_exists():
                messages.report(
                    "error: the current folder no longer exists\nhint: change to another one: cd"
                )
                return EXIT_BAD_INPUT
            traceback.print_exc()
            messages.report(f"error: internal error: {error!r}")
            return EXIT_FAILED
        if lost := output.take_loss():
            messages.report(f"warning: output lost (standard output): {lost}")
        return code

    return run


def as_typed() -> str:
    """The command line of this process, quoted for a shell: ``python -m sut.submit --set 'a=[]'``,
    or ``sut submit ...``."""
    words = list(sys.orig_argv)
    if len(words) > 1 and os.path.basename(words[1]) == "sut":
        words = ["sut", *words[2:]]  # the console script; the interpreter is in its first line
    return shlex.join(words)


def print_json(value: object) -> None:
    """For programs: a value on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode(), flush=True)


def a_path(text: str) -> Path:
    """The type of an option: a file or folder. An empty word, as of a shell variable that is not
    set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def at_least(least: float, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """The type of an option: a number of ``kind`` that is not less than ``least``."""

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < math.inf:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text} is not a {what} of {least:g} or more")
        return value

    return number


def run_dir_of(argv: Sequence[str] | None, module: str, description: str) -> RunDir:
    """The argument of a command that takes one run directory."""
    parser = Parser(prog=f"python -m {module}", description=description, examples=("runs/latest",))
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a folder that sut.submit created")
    return RunDir(parser.parse(argv).run_dir)
