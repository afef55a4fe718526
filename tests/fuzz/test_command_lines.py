"""Command lines that nobody thought of end well, or in a sentence that names what to change."""

import pytest
from hypothesis import given

from fuzz.command_lines import LINES, ending, places
from fuzz.profile import LINE_EXAMPLES, by_default


@by_default(LINE_EXAMPLES)
@given(LINES)
def test_a_command_line_ends_well_or_in_a_sentence(line):
    assert ending(line) is None, line


FORMERLY = [
    ("fit", "data.path=@odd", "data.time_key=day", "out=@out", "steps=2", "network.width=8", "validate=off"),
    ("fit", "data.path=@text", "data.time_key=day"),
    ("fit", "data.path=[a", "data.time_key=day"),
    ("fit", "data.path=@cells", "data.time_key=it's", "out=@out"),
    ("fit", "data.path=@cells", "data.time_key=day", "out=@out", "recipe.learning_rate=true"),
    ("fit", "data.path=@cells", "data.time_key=day", "out=@out", "data.basis=nowhere", "steps=2", "network.width=8"),
    ("fit", "data.path=@cells", "data.time_key=day", "out=@out", "n_seeds=0"),
    ("translate", "model=@translated", "input=@dark", "out=@out", "reverse=maybe"),
    ("translate", "model=@translated", "input=@dark", "out=@out", "solver.steps=1", "reverse=off"),
    ("interpolate", "model=@run", "at=3", "out=@out", "path=linear"),
    ("distill", "model=@nothing", "objective=nothing"),
    ("interpolate", "model=@run", "at=3", "out=@out", "network._target_=os.system"),
    ("translate", "source=@dark", "target=@bright", "out=@out", "steps=2", "batch_size=2", "holdout=0.4", "devices=2"),
    ("translate", "source=@dark", "target=@bright", "out=@out", "steps=2", "holdout=0.4", "network=null", "size=[8,0]"),
    ("translate", "source=@dark", "target=@bright", "out=@out", "steps=2", "holdout=0.4", "guidance=inf"),
    ("translate", "source=@dark", "target=@bright", "out=@out", "steps=2", "holdout=0.4", "guidance=64"),
    ("perturb", "data.path=@cells", "conditions.treatment=kind", "out=@out", "coupling.cost._target_=numpy.array"),
    ("generate", "n=2", "out=@out", "-m"),
    ("demo", "out=@out", "steps=2", "batch_size=8", "network.width=8", "validate=false", "threads=~"),
]
"""Lines that once ended badly."""


@pytest.mark.parametrize("line", FORMERLY, ids=lambda line: " ".join(line)[:60])
def test_what_once_ended_badly_does_not(line):
    assert ending(line) is None


def test_the_judge_is_not_blind(monkeypatch):
    places()
    monkeypatch.setattr("cellflow.cli.running.sentence", lambda error: "torch.Size([2]) is not 3")
    assert "torch." in ending(("fit", "data.path=@nothing", "data.time_key=day"))
    monkeypatch.setattr("cellflow.cli.running.sentence", lambda error: "no")
    assert "no sentence" in ending(("fit", "data.path=@nothing", "data.time_key=day"))
    monkeypatch.setattr("cellflow.cli.running.sentence", lambda error: None)
    assert "out of the command" in ending(("fit", "data.path=@nothing", "data.time_key=day"))
