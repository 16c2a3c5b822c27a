"""Make the pages of docs/reference from the code: `python docs/make_reference.py`.

A test compares them with what this makes, so an option, a public name or a key without words is noticed.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import decr_scene.models as models
import decr_scene.pipeline as pipeline
from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.models.clouds.veils import VeilRecipe
from decr_scene.models.data.config import DataConfig
from decr_scene.models.networks.critic import CriticConfig
from decr_scene.models.networks.detector import DetectorConfig
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig
from decr_scene.models.training.config import RunConfig
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.terminal import events

HERE = Path(__file__).parent / "reference"

EXIT_CODES = """## Exit codes

| code | when |
| --- | --- |
| 0 | done |
| 1 | the job failed, of a batch one scene at least; or a check or a file beside the output failed |
| 2 | the call is wrong: an option, a value, a name of a model |
| 130 | Ctrl-C or SIGTERM; `process` and `batch` go on with the same call |

An error is one line on standard error that begins with `decr-scene: `.
`decr-scene --debug COMMAND ...` shows the traceback.
"""

TABLES = {
    "The run": (RunConfig, ""),
    "`[[data]]` and `[validation]`": (DataConfig, ""),
    "Clouds: `clouds`, `thin`, ... of a source": (CloudRecipe, ""),
    "Veils": (VeilRecipe, ""),
    "`[reference]`": (ReferenceConfig, "The network of the first guess."),
    "`[network]`": (NetworkConfig, "The network of the noise, and of the weight."),
    "U-nets in `[network]`": (UNetConfig, ""),
    "`[critic]`": (CriticConfig, "A critic of what the noise network paints."),
    "`[detector]`": (DetectorConfig, ""),
}


def command_line() -> str:
    """Every command, with every option, and what exit codes mean."""
    parts = ["# The command line\n\nMade from the program by `docs/make_reference.py`.\n", EXIT_CODES]
    parts += [_command(name, command) for name, command in _commands("decr-scene", main)]
    told = inspect.getdoc(events) or ""
    parts.append(f"## Events\n\nOf `--progress jsonl`. {told}\n")
    return "\n".join(parts)


def _commands(prefix: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def _command(name: str, command: click.Command) -> str:
    arguments = [
        p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
    ]
    lines = [f"## {name} {' '.join(arguments)}".rstrip(), "", inspect.cleandoc(command.help or ""), ""]
    lines += [f"`{(command.epilog or '').removeprefix('Example: ')}`", ""]
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        lines += ["| option | default | |", "| --- | --- | --- |", *map(_option, options), ""]
    return "\n".join(lines)


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    values = " ".join(f"`{v}`" for v in option.type.choices) if isinstance(option.type, click.Choice) else ""
    needed = "needed" if option.required else ""
    plain = isinstance(option.default, (str, int, float)) and not isinstance(option.default, bool)
    default = f"`{option.default}`" if plain else needed
    words = " ".join(part for part in (option.help or "", values) if part)
    return f"| {names} | {default} | {_cell(words)} |"


def python() -> str:
    """Every public name, with its signature and its docstring."""
    parts = [
        "# Python\n\nMade from docstrings by `docs/make_reference.py`. Names are imported on first use.\n"
    ]
    for package in (pipeline, models):
        parts.append(f"## {package.__name__}\n\n{inspect.getdoc(package)}\n")
        parts += [_name(name, getattr(package, name)) for name in package.__all__]
    return "\n".join(parts)


def _name(name: str, value: Any) -> str:
    if not callable(value):
        return f"### {name}\n\n`{value!r}`\n" if name != "__version__" else f"### {name}\n\nOf the program.\n"
    signature = _signature(value)
    text = inspect.getdoc(value) or ""
    methods = _methods(value) if inspect.isclass(value) else ""
    return f"### {name}\n\n```python\n{name}{signature}\n```\n\n```text\n{text}\n```\n{methods}"


def _signature(value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    parameters = inspect.signature(value).parameters.values()
    shown = ", ".join(re.sub(r" at 0x\w+|(?<=pathlib\.)_local\.", "", str(p)) for p in parameters)
    return f"({shown})" if len(shown) < 90 else "(\n    " + shown.replace(", ", ",\n    ") + ",\n)"


def _methods(value: type) -> str:
    own = {n: m for n, m in vars(value).items() if inspect.isfunction(m) and not n.startswith("_")}
    return "".join(f"\n`.{n}`: {(inspect.getdoc(m) or '').splitlines()[0]}\n" for n, m in own.items())


def training_keys() -> str:
    """Every key of a run's TOML, by table."""
    parts = ["# Keys of a training run\n\nOf the TOML of `decr-scene train`; made from docstrings.\n"]
    for title, (kind, text) in TABLES.items():
        words = _arguments(kind)
        rows = [(f.name, _default(f), _cell(words.get(f.name, ""))) for f in dataclasses.fields(kind)]
        lines = [
            f"## {title}",
            "",
            *([text, ""] if text else []),
            "| key | default | |",
            "| --- | --- | --- |",
        ]
        lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows]
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is not dataclasses.MISSING else "needed"


def _arguments(kind: type) -> dict[str, str]:
    """What a docstring says of each argument."""
    found = re.split(r"^Args:\n", inspect.getdoc(kind) or "", flags=re.MULTILINE)
    section = re.split(r"^\S", found[1], maxsplit=1, flags=re.MULTILINE)[0] if len(found) > 1 else ""
    entries = re.findall(r"^    ([\w, ]+): (.*?)(?=^    \w[\w, ]*: |\Z)", section, re.MULTILINE | re.DOTALL)
    return {name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")}


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


PAGES = {"command-line.md": command_line, "python.md": python, "training-keys.md": training_keys}


def write() -> None:
    """Write all of them."""
    HERE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (HERE / name).write_text(make())


if __name__ == "__main__":
    write()
