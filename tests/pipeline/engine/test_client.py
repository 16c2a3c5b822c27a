"""A client of a cluster that is there, in the place of its address."""

import pytest
from distributed import Client, LocalCluster
from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import ClusterError, OptionError


def cluster(**resources):
    # the memory limit, dashboard and security of a cluster are its owner's
    return LocalCluster(
        n_workers=1, processes=False, threads_per_worker=2, resources=resources, dashboard_address=":0"
    )


def test_a_client_is_used_and_stays_open(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 280), 1)
    with cluster(GPU=1) as there, Client(there) as client:
        report = process_scene(scene, tmp_path / "o.tif", model="identity", client=client)
        assert report.tiles["restored"] == report.tiles["total"]
        assert client.submit(int, "7").result() == 7


def test_a_client_without_workers_for_models_is_refused(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 28), 1)
    with cluster() as there, Client(there) as client, pytest.raises(ClusterError, match="resource GPU"):
        process_scene(scene, tmp_path / "o.tif", model="identity", client=client)


def test_what_is_no_client_and_what_is_two_clusters_is_refused(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 28), 1)
    with pytest.raises(OptionError, match=r"client is a str, expected a distributed\.Client"):
        process_scene(scene, tmp_path / "o.tif", client="tcp://host:8786")
    with (
        cluster(GPU=1) as there,
        Client(there) as client,
        pytest.raises(OptionError, match="client and scheduler tcp://x:1 both name a cluster"),
    ):
        process_scene(scene, tmp_path / "o.tif", client=client, scheduler="tcp://x:1")


def test_a_client_that_is_closed_is_refused_in_one_line(tmp_path):
    scene = plain(tmp_path / "scene.tif", (30, 28), 1)
    with cluster(GPU=1) as there:
        with Client(there) as client:
            pass
        for options in ({}, {"workers": 2}, {"dashboard": True}, {"memory_limit": "4GB"}):
            with pytest.raises(ClusterError, match="the client is closed, expected an open one"):
                process_scene(scene, tmp_path / "o.tif", model="identity", client=client, **options)
