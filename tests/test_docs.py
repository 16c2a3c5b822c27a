"""What the pages say of the repository is there."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
from command_cases import call
from places import ROOT

import decr_scene.models
import decr_scene.pipeline

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("sample_scenes/*.md"))]
FOLDERS = ("docs", "models", "pipeline", "sample_scenes", "tests")


def files_named(text):
    """Targets of links, and what stands in code spans and looks like a program or a path of ours."""
    yield from (link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link)
    for span in re.findall(r"`([^`\n]+)`", text):
        for word in span.split():
            if re.fullmatch(r"[\w./-]+\.(py|sh)", word) or word.startswith(tuple(f"{f}/" for f in FOLDERS)):
                yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page):
    named = set(files_named(page.read_text()))
    assert not {name for name in named if not ((ROOT / name).exists() or (page.parent / name).exists())}


def test_every_room_stands_in_the_table_and_every_room_of_the_table_stands():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {name.removeprefix("decr_scene.").replace(".", "/") for name in packages if name.count(".") > 1}
    table = re.findall(r"^\| `([\w/]+)` \|", (ROOT / "docs" / "rooms.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(rooms)


def test_every_extra_stands_in_the_table_and_brings_what_is_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    table = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    told = {name: brings for name, brings in table.items() if name in extras}
    assert told.keys() == extras.keys()
    for name in extras.keys() - {"test"}:  # whose tools are for those who read pyproject.toml
        packages = [
            re.match(r"[\w-]+", text)[0] for text in extras[name] if not text.startswith("decr-scene")
        ]
        assert [package for package in packages if package.lower() not in told[name].lower()] == []


def test_the_reference_is_what_the_code_says():
    """Made anew: ``python docs/make_reference.py``."""
    reference = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    for name, make in reference["PAGES"].items():
        assert (ROOT / "docs" / "reference" / name).read_text() == make(), name


def test_every_option_public_name_and_key_has_words():
    for page in ("command-line.md", "training-keys.md"):
        rows = re.findall(r"^\| `.*$", (ROOT / "docs" / "reference" / page).read_text(), re.MULTILINE)
        assert len(rows) > 40
        assert [row for row in rows if not row.rstrip("| ").split(" | ")[2:]] == []
    text = (ROOT / "docs" / "reference" / "python.md").read_text()
    for package in (decr_scene.pipeline, decr_scene.models):
        for name in package.__all__:
            assert f"### {name}\n" in text
    assert "```text\n\n```" not in text


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("zensical", reason="NO ZENSICAL HERE: the site is not built")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")  # a link would be followed, and the site lie there
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index", "reference/command-line", "training", "limits"):
        assert (tmp_path / "build" / "site" / f"{page}.html").exists()


@pytest.mark.slow
def test_the_walk_through_of_training_works(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "training.md").read_text()
    os.symlink(ROOT / "sample_scenes", tmp_path / "sample_scenes")
    monkeypatch.chdir(tmp_path)
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "run.toml").write_text(toml)
    commands = re.findall(r"^\$ decr-scene (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["simulate", "train"]
    for command in commands:
        result = call(*command.split())
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs/reference/metrics.csv").exists()
