"""One function finds where two runs differ, for every command that needs it."""

from __future__ import annotations

import msgspec
from records import PLAN, completed

from sut.results.sameness import flat, mismatches, of_record


def test_equal_runs_have_no_mismatch() -> None:
    assert mismatches(of_record(completed()), of_record(completed())) == []


def test_a_key_selects_everything_below_it() -> None:
    before, after = {"a.x": 1, "a.y": 2, "ab": 3}, {"a.x": 9, "a.y": 2, "ab": 9}
    assert list(map(str, mismatches(before, after, ["a"]))) == ["a.x: 1 -> 9"]
    assert [each.key for each in mismatches(before, after)] == ["a.x", "ab"]


def test_unknown_facts_differ_unless_ignored() -> None:
    before, after = flat({"commit": None, "sha256": "a" * 64}), flat({"commit": "b" * 40})
    assert list(map(str, mismatches(before, after))) == [
        "commit: none -> bbbbbbbbbbbb",
        "sha256: aaaaaaaaaaaa -> none",
    ]
    assert mismatches(before, after, ignore_unknown=True) == []


def test_ignores_fields_that_follow_from_others() -> None:
    plan = msgspec.structs.replace(PLAN, official=True, not_official_because=())
    found = mismatches(of_record(completed()), of_record(completed(plan=plan)))
    assert list(map(str, found)) == ["plan.official: False -> True"]


def test_a_text_of_several_lines_is_one_short_line() -> None:
    (found,) = mismatches({"prompt": "one\n\ntwo"}, {"prompt": "one\n" + 99 * "x"})
    assert found.before == '"one\\n\\ntwo" (8 characters)'
    assert found.after.startswith('"one\\nxxx') and found.after.endswith('..." (103 characters)')
    assert len(found.after) < 90
