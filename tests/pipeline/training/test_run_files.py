"""The TOML of a run: its data, those of other runs, and what of it a run folder keeps."""

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from run_cases import command, toml

from decr_scene.models.errors import TrainingError
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.training.config import read_config, read_texts
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.training.doubts import chosen_on_nothing


@pytest.mark.parametrize("before", ["", "./"])
def test_a_run_takes_the_data_of_another_and_its_folder_holds_both(before, data, tmp_path):
    first = toml(tmp_path, steps=1)
    second = tmp_path / "second.toml"
    own = first.read_text()
    text = own[: own.index("[[data]]")].replace("steps = 1", f'steps = 1\ndata = "{before}{first.name}"')
    second.write_text(text)
    assert read_config(second).data == read_config(first).data
    result = CliRunner().invoke(main, [str(a) for a in command(second, data, tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "config.toml").read_text() == second.read_text()
    assert read_config(tmp_path / "run" / "config.toml") == read_config(second)


def test_data_of_a_run_that_is_called_as_the_copy_of_the_own_one(data, tmp_path):
    first = toml(tmp_path, steps=1).rename(tmp_path / "config.toml")
    second, own = tmp_path / "second.toml", first.read_text()
    second.write_text(own[: own.index("[[data]]")].replace("steps = 1", 'steps = 1\ndata = "config.toml"'))
    result = CliRunner().invoke(main, [str(a) for a in command(second, data, tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert read_config(tmp_path / "run" / "config.toml") == read_config(second)
    assert (tmp_path / "run" / "data-config.toml").read_text() == own


def test_names_that_are_held_out_in_vain_are_told(data, tmp_path):
    for holdout, told in (('[["4", "5"]]', False), ('[["4", "5"], ["zz", "zzz"]]', True)):
        path = toml(tmp_path, steps=1, more=f"holdout = {holdout}\n")
        call = [str(a) for a in command(path, data, tmp_path / f"run{told}")]
        done = " ".join(CliRunner().invoke(main, call).output.split())
        assert ("no image has a name from 'zz' to 'zzz': nothing is held out by that" in done) == told, done


def test_a_detector_that_no_images_are_held_out_for_is_told(tmp_path):
    run = replace(read_config(toml(tmp_path, steps=1)), stage="detector", detector=DetectorConfig(bands=3))
    assert [part.holdout for part in run.data] == [()]
    (told,) = chosen_on_nothing(run)
    assert told.startswith("no images are held out: the threshold stays 0.5, ")
    assert chosen_on_nothing(replace(run, data=(replace(run.data[0], holdout=(("4", "5"),)),))) == []
    assert chosen_on_nothing(replace(run, stage="reference", detector=None)) == []


NOISE = "{ channels = 8, multipliers = [1], attention_factors = [], num_res_blocks = 1, heads = 1 }"
GUIDED = f"""
[network]
prediction = "residual"
guided = true
noise = {NOISE}
"""


def told_by(call):
    result = CliRunner().invoke(main, [str(a) for a in call])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("stage", "network", "untrained"),
    [
        ("weight", f"weight = {NOISE}\n", "the reference and the noise network, which"),
        ("joint", f"weight = {NOISE}\n", "of the reference, which stage"),
        ("diffusion", "covered = [0.1, 0.3]\n", "of the reference, which stage"),
    ],
)
def test_a_reference_that_nothing_has_trained_is_told(stage, network, untrained, data, tmp_path):
    first = toml(tmp_path, steps=1)
    CliRunner().invoke(main, [str(a) for a in command(first, data, tmp_path / "first")])
    later = tmp_path / "later.toml"
    later.write_text(first.read_text().replace('"reference"', f'"{stage}"') + GUIDED + network)
    call = ["train", stage, *command(later, data, tmp_path / "run")[2:]]
    assert untrained in told_by(call)
    assert "untrained" not in told_by(call)  # it has begun
    call = [*call[:-2], tmp_path / "other", "--quiet", "--init", tmp_path / "first"]
    assert "reference" not in told_by(call)


def test_a_critic_that_judges_nothing_is_told(data, tmp_path):
    path, told = toml(tmp_path, steps=2, every=1), "the critic has judged nothing"
    told_by(command(path, data, tmp_path / "first"))
    text = path.read_text().replace('"reference"', '"diffusion"').replace("warmup", "part = 16\nwarmup")
    for covered, is_told in (("[1.5, 1.9]", True), ("[0.0, 1e-4]", False)):
        path.write_text(f"{text}{GUIDED}covered = {covered}\n[critic]\nwidth = 4\ntexture = 2.0\n")
        call = ["train", "diffusion", *command(path, data, tmp_path / f"run{is_told}")[2:]]
        first, again = told_by([*call, "--init", tmp_path / "first"]), told_by(call)
        assert (told in first) == is_told, first
        assert told not in again  # no step was taken


@pytest.mark.parametrize(
    ("of", "by", "said"),
    [
        ("[[data]]", "[data]", "data is one table, expected tables [[data]]"),
        ("simulate = 0.3", "simulate = 0.3\nclouds = 5", "clouds is 5, expected a table"),
        ("steps = 1", 'steps = 1\nspectrum = ["red"]', "spectrum must be a name for each of the 3 bands"),
        ("[[data]]", "[[data]]\nname = 5", "unknown keys ['name'] in data, expected some of"),
        ("width = 8", "width = 0", "reference: width must be in 1 to 65536, got 0"),
        ("width = 8", "width = 8\npatch = 0", "reference: patch must be in 1 to 64, got 0"),
        ("[1, 2]", "[]", "reference: multipliers must be one positive number per level, got ()"),
        ("width = 8", "bands = 4", "reference has 4 bands, the run 3: drop the key bands in it"),
        *(
            ('["red", "green", "blue"]', value, f"bands is {value}, expected a list of names, one for each")
            for value in ("5", "[]", "'red'")
        ),
        *(
            ("steps = 1", f"steps = 1\n{key} = {value}", f"{key} is {value}, expected a table")
            for key in ("network", "detector", "critic", "validation", "all_data")
            for value in ("5", "[]", "'x'")
        ),
        *(
            ("steps = 1", f"steps = 1\nnetwork = {{ {table} }}", said)
            for table, said in (
                ("grown = 5", "network.grown is 5, expected a table"),
                ("grown = { trunk = 5 }", "network.grown.trunk is 5, expected a table"),
                ("grown = { local = 3 }", "network.grown: local must be an even number from 2"),
                ("noise = 5", "network.noise is 5, expected a table"),
                ("noise = { multipliers = [] }", "network.noise: multipliers must be one positive number"),
                (
                    "covered = [0.1, 0.3]",
                    "network lacks 'noise', expected that table, or 'grown'",
                ),
            )
        ),
    ],
)
def test_tables_of_another_shape_are_refused_by_name(of, by, said, tmp_path):
    path = toml(tmp_path, steps=1)
    path.write_text(path.read_text().replace(of, by))
    with pytest.raises(TrainingError, match=re.escape(said)):
        read_config(path)


@pytest.mark.parametrize("value", ["5", "[]", "'unet'"])
def test_a_reference_is_a_table(value, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        f"stage = 'reference'\nbands = ['r']\nsteps = 1\nreference = {value}\n[[data]]\nfolder = '.'\n"
    )
    with pytest.raises(TrainingError, match=re.escape(f"reference is {value}, expected a table")):
        read_config(path)


def test_a_run_adds_its_own_data_to_those_of_another(tmp_path):
    first, second = toml(tmp_path, steps=1), tmp_path / "second.toml"
    own, start = first.read_text(), first.read_text().index("[[data]]")
    tables = own[start:].replace("[[data]]", "[[more_data]]")
    second.write_text(own[:start].replace("steps = 1", f'steps = 1\ndata = "{first.name}"') + tables)
    assert read_config(second).data == read_config(first).data * 2
    second.write_text(second.read_text() + "share = 3.0\n[all_data]\nshare = 2.0\n")
    assert [part.share for part in read_config(second).data] == [2.0, 3.0]
    theirs = "[all_data]\nshare = 4.0\nveils = { light = [0.5, 0.6], fine = 0.1 }\n"
    first.write_text(f"{own[:start]}{theirs}{own[start:]}")
    second.write_text(second.read_text().replace("share = 2.0", "veils = { light = [0.7, 0.8] }"))
    taken, added = read_config(second).data
    assert (taken.share, added.share) == (4.0, 3.0)
    assert (taken.veils.light, taken.veils.fine) == (added.veils.light, added.veils.fine) == ((0.7, 0.8), 0.1)
    third = tmp_path / "third.toml"
    third.write_text(own[:start].replace("steps = 1", f'steps = 1\ndata = "{second.name}"') + tables)
    assert read_config(third).data == (taken, added, replace(taken, share=4.0))
    assert list(read_texts(third)) == [third.name, second.name, first.name]
    first.write_text(own[:start].replace("steps = 1", f'steps = 1\ndata = "{third.name}"'))
    with pytest.raises(TrainingError, match=r"data names third\.toml, expected a run with tables"):
        read_config(third)
    first.write_text(own[:start] + own[start:] + tables)
    with pytest.raises(TrainingError, match="more_data"):
        read_config(first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("'none.toml'", "none.toml cannot be read"),
        ("'second.toml'", "tables [[data]] of its own"),
        ("'cut.toml'", "data names cut.toml, which is no TOML: Invalid value (at end of document)"),
        *(
            (f"'{name}'", f"data is '{name}', expected the name alone of a run's file beside second.toml")
            for name in ("", ".", "..", "../x.toml", "sub/x.toml")
        ),
        *(
            (value, f"data is {value}, expected tables [[data]], or the name of another run's file")
            for value in ("5", "[1, 2]", "[[]]", "['a']")
        ),
    ],
)
def test_data_of_no_run_are_refused(name, said, tmp_path):
    path = tmp_path / "second.toml"
    (tmp_path / "cut.toml").write_text("steps = ")
    path.write_text(f'stage = "reference"\nbands = ["r"]\nsteps = 1\ndata = {name}\n')
    with pytest.raises(TrainingError, match=re.escape(said)):
        read_config(path)
