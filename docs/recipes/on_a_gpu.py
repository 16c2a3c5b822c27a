"""Train the noise network on a card in stages of some minutes, with files that are easy to carry.

    python on_a_gpu.py pack CHIPS chips.zip [--most MiB]      images of a folder, evenly chosen, as one file
    python on_a_gpu.py train chips.zip RUN.toml FOLDER [--pieces FOLDER] [--minutes M] [--loaders N] ...
    python on_a_gpu.py join PIECES checkpoint.pt

A stage goes on from the checkpoint in FOLDER or, without one, from its pieces; then it cuts its own into
pieces again. It needs the program and nothing else: no network, no other data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

PIECE = 16 * 2**20
"""Bytes of a piece of a checkpoint, at most."""

CHIPS = "chips"
"""Folder of the images, as the TOML names it."""


def pack(folder: Path, out: Path, most: int) -> int:
    """Write so many images as fit, evenly chosen by name, as they are; return how many."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        sys.exit(f"{folder} has no files, expected images: name the folder that holds them")
    mean = sum(path.stat().st_size for path in files) / len(files)
    count = max(1, min(len(files), int(most * 0.98 / (mean + 200))))
    chosen = [files[number * len(files) // count] for number in range(count)]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in chosen:
            archive.write(path, f"{CHIPS}/{path.name}")
    if out.stat().st_size > most:
        return pack(folder, out, most - (out.stat().st_size - most) - 2**16)
    return count


def cut(checkpoint: Path, pieces: Path, size: int = PIECE) -> list[Path]:
    """Write a checkpoint in pieces; those of the stage before are replaced when all are there."""
    pieces.mkdir(parents=True, exist_ok=True)
    old, new = sorted(pieces.glob("piece-*")), []
    with checkpoint.open("rb") as file:
        for number, part in enumerate(iter(lambda: file.read(size), b"")):
            new.append(pieces / f"new-{number:04d}")
            new[-1].write_bytes(part)
    for path in old:
        path.unlink()
    return [path.rename(path.with_name(path.name.replace("new-", "piece-"))) for path in new]


def join(pieces: Path, checkpoint: Path) -> bool:
    """Put pieces together; whether there are any."""
    found = sorted(pieces.glob("piece-*")) if pieces.is_dir() else []
    if found:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with checkpoint.open("wb") as file:
            for path in found:
                file.write(path.read_bytes())
    return bool(found)


def train(chips: Path, config: Path, out: Path, pieces: Path | None, options: list[str]) -> int:
    """Run one stage; return its exit status."""
    checkpoint = out / "checkpoint.pt"
    if pieces is not None and not checkpoint.exists():
        join(pieces, checkpoint)
    with tempfile.TemporaryDirectory() as data:
        with zipfile.ZipFile(chips) as archive:
            archive.extractall(data)
        command = [sys.executable, "-m", "decr_scene.pipeline", "train", "diffusion", "--config", str(config)]
        status = subprocess.run(
            [*command, "--data", data, "--out", str(out), "--quiet", *options], check=False
        ).returncode
    if checkpoint.exists():
        print(f"step {torch.load(checkpoint, map_location='cpu', weights_only=True)['step']}")
        if pieces is not None:
            cut(checkpoint, pieces)
    return status


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("folder", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--most", type=float, default=60, help="MiB")
    training = commands.add_parser("train", help="further options are those of decr-scene train")
    for name in ("chips", "config", "out"):
        training.add_argument(name, type=Path)
    training.add_argument("--pieces", type=Path)
    joining = commands.add_parser("join")
    joining.add_argument("pieces", type=Path)
    joining.add_argument("checkpoint", type=Path)
    given, options = parser.parse_known_args()
    if given.command == "pack":
        print(f"{pack(given.folder, given.out, int(given.most * 2**20))} images in {given.out}")
    elif given.command == "join":
        sys.exit(0 if join(given.pieces, given.checkpoint) else f"{given.pieces} has no pieces")
    else:
        sys.exit(train(given.chips, given.config, given.out, given.pieces, options))


if __name__ == "__main__":
    main()
