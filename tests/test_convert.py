"""MLCommons' pre-tokenized files become JSON lines, which a data set of kind tokenized reads."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from plans import plan_of

from sut import convert
from sut.errors import InputError
from sut.inputs import dataset, tokenized
from sut.plan.benchmark import Dataset, DatasetKind
from sut.plan.plan import Plan

ORCA = Path(__file__).parent / "golden" / "pickles" / "open_orca.sampled_24.pkl.gz"
MD5 = hashlib.md5(gzip.decompress(ORCA.read_bytes())).hexdigest()
TABLE = {"tok_input": [[1, 5, 9], [1, 7]], "output": ["a b", "c"]}


def written(tmp_path: Path, table: object = TABLE) -> Path:
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps(table))
    return file


def converted(tmp_path: Path, table: object = TABLE) -> Path:
    output = tmp_path / "data.jsonl"
    assert convert.main([str(written(tmp_path, table)), str(output)]) == 0
    return output


def plan_for(file: Path, **changes: object) -> Plan:
    fields: dict[str, object] = {"num_samples": 2, "path": str(file), **changes}
    data = Dataset(name="mine", kind=DatasetKind.TOKENIZED, **fields)  # type: ignore[arg-type]
    plan = plan_of("replay", sets=["engine.max_model_len=2048"])
    return msgspec.structs.replace(plan, dataset=data)


def test_prompts_and_references_are_those_of_the_pickle(tmp_path: Path) -> None:
    file = converted(tmp_path)
    samples = dataset.load(plan_for(file), None)
    assert samples.prompts == TABLE["tok_input"] and samples.references == TABLE["output"]
    assert samples.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert dataset.load(plan_for(file, num_samples=1), None).prompts == [[1, 5, 9]]


@pytest.mark.parametrize("kind", ["", "-arrays", "-arrow", "-arrow-types"])
def test_converts_every_table_of_pandas_3(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "data.jsonl"
    assert convert.main([str(ORCA.with_name(f"pandas-3.1.1{kind}.pkl")), str(output)]) == 0
    _, samples = tokenized.read(output, output.read_bytes())
    assert [sample.tokens for sample in samples] == [[1, 2, 29871], [4, 5, 6, 7, 29871], [3, 29871]]
    assert [sample.reference for sample in samples] == ["One. Two.", "", "é"]


def test_converts_a_compressed_table_of_pandas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "orca.jsonl"
    assert convert.main([str(ORCA), str(output)]) == 0
    assert f"24 samples, 33 to 995 tokens, from {ORCA.name} with MD5 {MD5}" in (
        capsys.readouterr().out
    )
    samples = dataset.load(plan_for(output, num_samples=24, source_md5=MD5), None)
    assert {prompt[-1] for prompt in samples.prompts} == {29871}
    assert all(text.endswith(".") for text in samples.references)


def test_refuses_data_converted_from_another_file(tmp_path: Path) -> None:
    file = converted(tmp_path)
    with pytest.raises(InputError, match=rf"converted from data.pkl with MD5 \w+, not {MD5}"):
        dataset.load(plan_for(file, source_md5=MD5), None)


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = written(tmp_path, {"ids": [[3]], "text": ["x"], "output": ["y"]})
    names = ["--tokens", "ids", "--references", "text"]
    assert convert.main([str(file), str(tmp_path / "out"), *names]) == 0
    assert dataset.load(plan_for(tmp_path / "out", num_samples=1), None).references == ["x"]


def test_references_may_be_missing(tmp_path: Path) -> None:
    file = converted(tmp_path, {"input_tokens": [[1], [2]]})
    assert dataset.load(plan_for(file), None).references == ["", ""]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"output": ["x"]}, "no column tok_input or input_tokens; it has output"),
        ({"tok_input": []}, "has no samples"),
        ({"tok_input": [[1], [2, -1]]}, "sample 1: Expected `int` >= 0"),
        ({"tok_input": [[1], [2**31]]}, "sample 1: Expected `int` <= 2147483647"),
        ({"tok_input": [[1.5]]}, "sample 0: Expected `int`, got `float`"),
        ({"tok_input": [[]]}, "sample 0: Expected `array` of length >= 1"),
        ({"tok_input": ["text"]}, "sample 0: Expected `array`, got `str`"),
        ({"tok_input": [[1]], "output": [None]}, "sample 0: Expected `str`, got `null`"),
    ],
)
def test_refuses_samples_that_no_engine_could_get(
    tmp_path: Path, table: object, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert.main([str(written(tmp_path, table)), str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_refuses_truncated_gzip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data.pkl.gz"
    file.write_bytes(ORCA.read_bytes()[:-100])
    assert convert.main([str(file), str(tmp_path / "out")]) == 2
    assert "damaged or truncated gzip" in capsys.readouterr().err


def test_refuses_a_folder_and_an_unwritable_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert convert.main([str(written(tmp_path)), str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["int64", "int32", "uint16"])
def test_converts_parquet(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    tokens = pyarrow.array(TABLE["tok_input"], pyarrow.list_(getattr(pyarrow, kind)()))
    table = pyarrow.table({"input_tokens": tokens, "output": TABLE["output"]})
    parquet.write_table(table, tmp_path / "data.parquet", row_group_size=1)
    output = tmp_path / "data.jsonl"
    assert convert.main([str(tmp_path / "data.parquet"), str(output)]) == 0
    samples = dataset.load(plan_for(output), None)
    assert samples.prompts == TABLE["tok_input"] and samples.references == TABLE["output"]


def test_refuses_damaged_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data.parquet"
    file.write_bytes(b"PAR1 and no more")
    assert convert.main([str(file), str(tmp_path / "out")]) == 2
    expected = "damaged Parquet" if find_spec("pyarrow") else "needs the package pyarrow"
    assert expected in capsys.readouterr().err


def test_refuses_a_damaged_file_of_token_ids(tmp_path: Path) -> None:
    content = converted(tmp_path).read_bytes()
    header, first, second, end = content.split(b"\n")
    assert end == b"" and json.loads(header)["num_samples"] == 2
    damaged = {
        "not a file of token ids": b"",
        "not a file of token ids, or": content[1:],
        "truncated: 1 samples? of 2": b"\n".join([header, first, b""]),
        "truncated: 2 samples of 2": content + b"{",
        "truncated: 3 samples of 2": content + second + b"\n",
        "sample 0: ": b"\n".join([header, first[:-1], second, b""]),
        "sample 1: ": b"\n".join([header, first, b'{"tokens": []}', b""]),
    }
    for problem, data in damaged.items():
        with pytest.raises(InputError, match=problem):
            tokenized.read(Path("data.jsonl"), data)


def test_refuses_fewer_samples_than_the_data_set_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains 2 samples; data set mine has 3"):
        dataset.load(plan_for(converted(tmp_path), num_samples=3), None)
