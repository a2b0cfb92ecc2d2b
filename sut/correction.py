"""A command line with an error, corrected as far as the error tells: for the hint below it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def placeholder(action: argparse.Action) -> str:
    """What to write where the user must give a value: a choice, or the option's metavar."""
    if action.choices:
        return str(next(iter(action.choices)))
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    name = metavar.split("|")[0]  # NAME|FILE: a shell would read a pipe
    return "latest" if name == "RUN" and action.nargs in (None, "+") else name


def replaced(words: Sequence[str], old: str, new: Sequence[str]) -> list[str]:
    """The words with ``new`` in the place of ``old``, a word or the value in ``--option=old``."""
    found = list(words)
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if word == old:
            found[index : index + 1] = new
        elif equals and option.startswith("-") and value == old:
            found[index : index + 1] = [f"{option}={' '.join(new)}"] if new else []
        else:
            continue
        break
    return found


def with_value(words: Sequence[str], action: argparse.Action) -> list[str]:
    """The words with a value after each option that lacks it at its place."""
    found: list[str] = []
    for index, word in enumerate(words):
        found.append(word)
        lacks = index + 1 == len(words) or words[index + 1].startswith("-")
        if word in action.option_strings and lacks:
            found.append(placeholder(action))
    return found


def with_missing(words: Sequence[str], missing: Sequence[argparse.Action]) -> list[str]:
    """The words with every missing argument at their end."""
    found = list(words)
    for action in missing:
        found += [*action.option_strings[-1:], placeholder(action)]
    return found


def without(words: Sequence[str], action: argparse.Action) -> list[str]:
    """The words without an option and its value."""
    found, skips = [], False
    for word in words:
        if not skips and word.partition("=")[0] not in action.option_strings:
            found.append(word)
        skips = word in action.option_strings and action.nargs != 0
    return found
