"""A command line with an error, corrected as far as the error tells: for the hint below it."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence

# Of choices: what many call "cuda", and what is no choice of sut.list.
OTHER_WORDS = {"gpu": "cuda", "runs": "sut history", "jobs": "sut history"}


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


def values_of(option: argparse.Action, prefix: str) -> Iterable[str]:
    """What an option can be, as far as it is known: its choices, or the names of files."""
    named = getattr(option, "completer", None) if option.dest in ("config", "site") else None
    return named(prefix) if named else map(str, option.choices or ())


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant; "" where none resembles it."""
    choices = list(known)
    meant = OTHER_WORDS.get(word, "")
    close = [meant] if meant and (meant in choices or " " in meant) else []
    close = close or [each for each in choices if len(word) > 2 and each.startswith(word)]
    if not close:  # by letters, of any case: the dashes are alike in all options
        letters = {each.lstrip("-").lower(): each for each in choices}
        near = difflib.get_close_matches(word.lstrip("-").lower(), letters, n=1, cutoff=0.7)
        close = [letters[each] for each in near]
    return close[0] if close else ""
