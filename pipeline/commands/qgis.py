"""`decr-scene qgis`: the plugin for QGIS."""

from __future__ import annotations

from pathlib import Path

import click

from decr_scene.pipeline.terminal.console import one_line_errors, print_line
from decr_scene.pipeline.terminal.options import FILE, example, overwrite_option


@click.group()
def qgis() -> None:
    """Install the plugin for QGIS, which runs this program."""


@qgis.command("install", epilog=example("decr-scene qgis install"))
@click.option("--profile", default="default", show_default=True, help="QGIS profile.")
@click.option("--folder", type=FILE, help="Folder of plugins, instead of that of the profile.")
@overwrite_option("another plugin of this name")
@one_line_errors
def qgis_install(profile: str, folder: Path | None, overwrite: bool) -> None:
    """Install the plugin for this user; it will run the Python that installed it."""
    from decr_scene.pipeline.plugin.install import install

    for place in install(folder, profile, overwrite):
        print_line(
            f"{place}: switch on 'decr-scene: remove clouds' under Plugins > Manage and Install Plugins"
        )


@qgis.command("zip", epilog=example("decr-scene qgis zip decr_scene_qgis.zip"))
@click.argument("archive", type=FILE)
@overwrite_option("a file that exists")
@one_line_errors
def qgis_zip(archive: Path, overwrite: bool) -> None:
    """Write the plugin to ARCHIVE, for Plugins > Install from ZIP."""
    from decr_scene.pipeline.plugin.install import write_archive

    write_archive(archive, overwrite)
    print_line(str(archive))
