"""Runs the code blocks of README and docs, as a reader would paste them.

The blocks of a page run one after the other in a folder with a photo, pairs, the configs and a
trained run. A block that cannot run here is marked in the page with the reason:
`<!-- not run: needs TF Serving -->`. Then its options and config keys are still checked.
"""

import ast
import builtins
import functools
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from kmatting.config import load_config
from kmatting.data.synthetic import sample

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "saved_models/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
RUN = ("bash", "python", "yaml")
OUTPUT = "text"  # what a command prints; not code
SECONDS = 1200  # for one block; generous, since a busy machine takes ten times as long
TRAINS = re.compile(r"kmatting train --config \S+ --output runs/mine\b")  # no run is there then

# pip and venv do nothing here, but for the check that the extras exist.
PIP = """
import re, runpy, setuptools, sys
metadata = {{}}
setuptools.setup = metadata.update
runpy.run_path({root!r} + "/setup.py")
extras = set(re.findall(r"[a-z]+", " ".join(re.findall(r"\\[(.*?)\\]", " ".join(sys.argv)))))
unknown = extras - set(metadata["extras_require"])
assert not unknown, f"no such extra: {{sorted(unknown)}}"
"""
PYTHON = """
import os, pathlib, sys
if sys.argv[1:3] == ["-m", "venv"]:
    folder = pathlib.Path(sys.argv[3], "bin")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "activate").touch()
else:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
HELPERS = f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'helpers')!r})"
# Training takes a network that is traced in a second.
TINY = f"""
{HELPERS}
import kmatting.models
import tiny_train
kmatting.models.build_model = tiny_train.build_tiny
"""
NETWORK_ALONE = f"""
{HELPERS}
import network_alone
network_alone.Server.signatures = network_alone.signatures
"""
KMATTING = """
import sys
if sys.argv[1:2] == ["train"]:
    exec({tiny!r})
if sys.argv[1:2] == ["export"] and "saved_model" in sys.argv:
    exec({network_alone!r})
from kmatting.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `not_run` is the reason why it does not run here."""

    place: str
    language: str
    code: str
    not_run: str | None


def read_blocks(page):
    """Lists the fenced blocks of a page."""
    blocks, marker, above = [], None, ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if fence := re.fullmatch(r"```(\w*)", line):
            code = []
            for _, inner in lines:
                if inner == "```":
                    break
                code.append(inner)
            place = f"{page.relative_to(ROOT)}:{number}"
            blocks.append(Block(place, fence[1], "\n".join(code) + "\n", marker))
            marker = None
        elif mark := re.fullmatch(r"<!-- not run: (.+) -->", line):
            marker = mark[1]
        elif line.strip():
            assert marker is None, f"{page}:{number}: a mark without a block after it"
            assert "```" not in line, f"{page}:{number}: a fence that is not understood"
            if line.startswith(("    ", "\t")):  # options of mkdocstrings look like a block
                assert above.startswith(":::"), f"{page}:{number}: an indented block"
            else:
                above = line
    return blocks


def name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """A folder to put first on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    values = {"root": str(ROOT), "tiny": TINY, "network_alone": NETWORK_ALONE}
    for command, code in {"pip": PIP, "python3": PYTHON, "kmatting": KMATTING}.items():
        path = folder / command
        text = code if command == "python3" else code.format(**values)
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="session")
def environment(commands, tmp_path_factory):
    path = f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, environment):
    """What the pages take for granted: a photo, pairs, small configs, a trained run."""
    folder = tmp_path_factory.mktemp("reader") / "kmatting"
    for kind in ("photos", "mattes", "configs", "backgrounds"):
        (folder / kind).mkdir(parents=True)
    for index in range(12):
        image, alpha = sample(0, index, (96, 128))[:2]
        Image.fromarray(image).save(folder / "photos" / f"{index}.jpg")
        Image.fromarray(levels(alpha)).save(folder / "mattes" / f"{index}.png")
    for index in range(2):
        image = np.random.default_rng(index).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(image).save(folder / "backgrounds" / f"{index}.jpg")
    groups = ["name,group", *(f"{index},{'fur' if index % 2 else 'glass'}" for index in range(12))]
    (folder / "groups.csv").write_text("\n".join(groups))
    shutil.copy(folder / "photos" / "0.jpg", folder / "photo.jpg")
    shutil.copy(folder / "backgrounds" / "0.jpg", folder / "beach.jpg")
    write_video(folder / "in.mp4", folder / "photo.jpg")
    for config in (ROOT / "configs").glob("*.yaml"):
        write_small(config, folder / "configs" / config.name)
    train = "kmatting train --config configs/quickstart.yaml --output runs/mine"
    run(train, folder, environment, "the trained run")
    return folder


def write_video(path, photo):
    """Writes ten frames of a photo that moves to the left, a second long."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for step in range(10):
            part = Image.open(photo).crop((step, 0, step + 96, 80))
            container.mux(stream.encode(av.VideoFrame.from_image(part)))
        container.mux(stream.encode(None))


def levels(alpha):
    """Brings an alpha of any dtype to uint8."""
    alpha = np.asarray(alpha).squeeze()
    return alpha if alpha.dtype == np.uint8 else np.rint(alpha * 255).astype(np.uint8)


def write_small(config, path):
    """Copies a config with fewer epochs and samples and a smaller size."""
    values = yaml.safe_load(config.read_text())
    values["model"]["encoder_weights"] = "none"
    values["data"]["size"] = 48
    values["training"].update(epochs=1, batch_size=2)
    for sources in (values["data"]["train"], values["data"]["validation"]):
        for source in sources if isinstance(sources, list) else []:
            if source.get("kind") == "synthetic":
                source["count"] = 4
    path.write_text(yaml.safe_dump(values))


def run(code, folder, environment, place, shell=("bash", "-euo", "pipefail", "-c")):
    result = subprocess.run(
        [*shell, code],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    said = f"{place}\n{code}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, f"exit code {result.returncode}: {said}"
    assert "Traceback" not in result.stderr, said


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_runs_or_says_why_not(page):
    for block in read_blocks(page):
        if block.not_run is None:
            assert block.language in (*RUN, OUTPUT), (
                f"{block.place}: mark this block `<!-- not run: REASON -->` or make it one of {RUN}"
            )
        else:
            assert block.language != OUTPUT, f"{block.place}: output needs no mark"


def uses_names_above(code):
    """Whether a block of Python uses names of those above it."""
    nodes = list(ast.walk(ast.parse(code)))
    known = {
        alias.asname or alias.name.partition(".")[0]
        for each in nodes
        if isinstance(each, ast.Import | ast.ImportFrom)
        for alias in each.names
    }
    names = [each for each in nodes if isinstance(each, ast.Name)]
    known |= {each.id for each in names if isinstance(each.ctx, ast.Store)}
    return not {each.id for each in names} <= known | set(dir(builtins))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run(page, workplace, environment, tmp_path):
    folder = shutil.copytree(workplace, tmp_path / "kmatting")
    if TRAINS.search(page.read_text(encoding="utf-8")):
        shutil.rmtree(folder / "runs" / "mine")
    python = ""
    for block in read_blocks(page):
        if block.not_run is not None or block.language == OUTPUT:
            continue
        if block.language == "bash":
            run(block.code, folder, environment, block.place)
        elif block.language == "python":
            python = python * uses_names_above(block.code) + block.code
            code = TINY + python if "kmatting.train(" in python else python
            run(code, folder, environment, block.place, (sys.executable, "-c"))
        else:
            (folder / "block.yaml").write_text(block.code)
            load_config(folder / "block.yaml")


def kmatting_commands(block):
    """Lists kmatting's commands in a shell block, each as its words up to a pipe or the like."""
    code = block.code.replace("\\\n", " ")
    return [match.split() for match in re.findall(r"\bkmatting ([a-z][^|&;<>\n]*)", code)]


@pytest.fixture(scope="session")
def help_of(environment):
    """Returns a function that gives the help of a command, asked for once."""

    @functools.cache
    def ask(command):
        return subprocess.run(
            ["kmatting", command, "--help"], env=environment, capture_output=True, text=True
        ).stdout

    return ask


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_of_blocks_that_do_not_run(page, help_of):
    for block in read_blocks(page):
        if block.language != "bash" or block.not_run is None:
            continue
        for command, *words in kmatting_commands(block):
            text = help_of(command)
            assert text, f"{block.place}: there is no command {command}"
            if "--runner" in words:  # what follows is Beam's
                words = words[: words.index("--runner")]
            for word in words:
                if re.match(r"--?[a-z]", word):
                    option = word.partition("=")[0]
                    assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), (
                        f"{block.place}: kmatting {command} has no option {option}"
                    )
            if command == "train" and "--config" in words:
                config = ROOT / words[words.index("--config") + 1]
                if config.exists():
                    settings = words[words.index("--set") + 1 :] if "--set" in words else []
                    load_config(config, [word for word in settings if "=" in word])
