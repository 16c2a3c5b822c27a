"""Runs of scenes at web addresses, and what they leave."""

import json

from decr_scene.pipeline import process_scene


def process(address, out, **options):
    return process_scene(address, out, model="identity", **options)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def stac_properties(out):
    return json.loads(out.with_suffix(".stac.json").read_text())["properties"]
