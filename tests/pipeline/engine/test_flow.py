"""How much of a scene is under way."""

from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine.flow import CHUNK_COLS, WINDOWS_UNDER_WAY, Flow
from decr_scene.pipeline.writing.together import WritersTogether


def test_of_a_wide_scene_no_more_windows_are_under_way(tmp_path, monkeypatch):
    """A row of it has more windows than that; one more is being written."""
    under_way, most, rows = set(), 0, 3
    blend, write = Flow._blend, WritersTogether.write

    def submit(flow, span):
        nonlocal most
        under_way.add(span)
        most = max(most, len(under_way))
        return blend(flow, span)

    def put(writers, span, *pixels):
        write(writers, span, *pixels)
        under_way.remove(span)

    monkeypatch.setattr(Flow, "_blend", submit)
    monkeypatch.setattr(WritersTogether, "write", put)
    scene = plain(tmp_path / "wide.tif", (512 * rows, (WINDOWS_UNDER_WAY + 2) * CHUNK_COLS), 1)
    report = process_scene(scene, tmp_path / "out.tif", model="identity", blocksize=512)
    assert all(report.checks.values())
    assert not under_way
    assert 2 < most <= WINDOWS_UNDER_WAY + 1
