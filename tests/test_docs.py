"""What the pages say of the repository is there."""

import re
import tomllib

import pytest
from places import ROOT

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
