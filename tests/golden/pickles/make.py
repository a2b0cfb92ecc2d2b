"""Write the table that tests/test_pickles.py expects, with the pandas that is installed: make.py
FOLDER. With pyarrow, pandas 3 keeps texts as Arrow's, and two files of its own are written.

Its columns are those of MLCommons' OpenOrca file; its rows were filtered and shuffled like there.
"""

import importlib.util
import random
import sys
from pathlib import Path

import numpy
import pandas

frame = pandas.DataFrame(
    {
        "id": ["flan.1", "t0.2", "cot.3", "niv.4"],
        "output": ["One. Two.", "é", "", "left out"],
        "tok_input": [[1, 2, 29871], [3, 29871], [4, 5, 6, 7, 29871], [9]],
        "tok_input_length": [3, 2, 5, 1],
        "short": [False, True, False, True],
        "share": [0.5, 0.25, 1.0, 2.0],
    }
)
frame = frame[frame["tok_input_length"] > 1].sample(frac=1, random_state=1)
name = f"pandas-{pandas.__version__}"
folder = Path(sys.argv[1])
if importlib.util.find_spec("pyarrow"):
    import pyarrow

    frame.to_pickle(folder / f"{name}-arrow.pkl")
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    table.to_pandas(types_mapper=pandas.ArrowDtype).to_pickle(folder / f"{name}-arrow-types.pkl")
    sys.exit()

frame.to_pickle(folder / f"{name}.pkl")
frame["tok_input"] = frame["tok_input"].apply(lambda ids: numpy.array(ids, dtype=numpy.int32))
frame["tok_input_length"] = frame["tok_input_length"].astype(object)
frame.to_pickle(folder / f"{name}-arrays.pkl", protocol=4)

# As MLCommons' file, with 24 rows: answers of 294 tokens on average for the embedded model.
WORDS = (  # noqa: SIM905
    "the house and river of a small town was near an old road with many trees where people went "
    "to work every day in summer or winter while some children played games after school"
).split()
source = random.Random(2026)


def sentence() -> str:
    return " ".join(source.choices(WORDS, k=source.randint(6, 14))).capitalize() + "."


def output(words: int) -> str:
    text = sentence()
    while len(text.split()) < words:
        text += " " + sentence()
    return text


rows = 24
frame = pandas.DataFrame(
    {
        "id": [f"flan.{i}" for i in range(rows)],
        "system_prompt": [""] * rows,
        "question": [f"Question {i}?" for i in range(rows)],
        "output": [output(30 + 20 * i) for i in range(rows)],
        "origin": ["flan"] * rows,
        "tok_input": [
            [1, *source.choices(range(3, 30_000), k=source.randint(20, 1000)), 29871]
            for _ in range(rows)
        ],
    }
)
frame["tok_input_length"] = frame["tok_input"].apply(len)
frame = frame.sample(frac=1, random_state=1)
frame.to_pickle(folder / "open_orca.sampled_24.pkl.gz", compression={"method": "gzip", "mtime": 1})
