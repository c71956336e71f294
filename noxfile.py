"""Every task that a person runs in this workspace, one session each: `nox -l` lists them.

`python -m pip install nox && nox -s tests` works in a clean clone. Distributions are tested as the wheels that users
install, never from their source folders. Sessions that need torch share one environment, so that it is installed once.
"""

from __future__ import annotations

import os
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import nox
from packaging.requirements import Requirement
from packaging.version import Version

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "contracts", "tests"]

ROOT = Path(__file__).parent
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "hatchling", "jsonschema", "peft")
LICENCES = (
    *("Apache-2.0", "Apache Software License", "Apache 2.0", "Apache 2.0 License", "Apache-2.0 OR BSD-2-Clause"),
    *(
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "3-Clause BSD License",
        "ISC License (ISCL)",
        "MIT",
        "MIT License",
        "MIT-CMU",
    ),
    *("PSF-2.0", "Python Software Foundation License"),
    *("MPL-2.0", "MPL-2.0 AND MIT", "Mozilla Public License 2.0 (MPL 2.0)"),
    *("Apache-2.0 AND CNRI-Python", "Apache-2.0 AND MIT"),
    "Apache-2.0 AND ISC",  # anyblock-html-report, whose page carries Observable Plot and d3
    "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND MIT",
    "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "GNU Lesser General Public License v2 or later (LGPLv2+)",  # chardet, which comes with anyblock-lm-eval alone
)
"""What the metadata of dependencies may say, word for word, so that somebody looks at each new combination. With torch for CUDA
come NVIDIA's libraries under their own terms; the list is that of the builds for the CPU."""
UNSTATED = ("atheris", "word2number")
"""Dependencies without a short name of their licence in their metadata, looked up by hand: Apache-2.0 and MIT."""
VLLM = ("vllm==0.33.0", "xgrammar==0.2.8", "apache-tvm-ffi==0.1.11", "compressed-tensors==0.17.0")
VLLM_NEEDS = (
    *(
        "transformers>=5.16.1,<5.21",
        "numpy",
        "psutil",
        "cbor2",
        "pyzmq",
        "urllib3",
        "aiohttp",
        "requests",
        "oss-harmony",
        "openai",
    ),
    *(
        "msgspec",
        "cloudpickle",
        "pillow",
        "pybase64",
        "cachetools",
        "uvloop",
        "py-cpuinfo",
        "prometheus_client",
        "fastapi",
    ),
    *("partial-json-parser", "llguidance", "einops", "loguru"),
)
"""What vLLM imports to load a model. Its declared dependencies would bring a torch for CUDA and gigabytes of kernels with it."""
DEPTRY = (
    *("--package-module-name-map", "pyyaml=yaml,anyblock=anyblock,pydantic_core=pydantic_core"),
    # What a distribution requires for its extras is used by a tool, not imported; anyblock brings torch and transformers,
    # which are not installed where this runs.
    *("--ignore", "DEP002", "--per-rule-ignores", "DEP001=torch|transformers,DEP003=torch|transformers|anyblock"),
)
"""How undeclared dependencies are looked for."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Two test workers on two cores: one thread each, and none that spins."""
TWO_WORKERS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""One worker runs a file, so that what its tests share, such as the models of a conformance suite, is made once and not twice."""


def distributions() -> list[Path]:
    """Return the folder of every distribution, core first."""
    folders = [ROOT / "core", ROOT / "conformance_tests", *sorted((ROOT / "plugins").glob("*/*"))]
    return [folder for folder in folders if (folder / "pyproject.toml").is_file()]


def project(folder: Path) -> dict[str, Any]:
    """Return the `[project]` table of a distribution."""
    table: dict[str, Any] = nox.project.load_toml(folder / "pyproject.toml")["project"]
    return table


def pinned() -> dict[str, str]:
    """Return the version of every distribution in constraints.txt."""
    return dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


def lowest_constraints(session: nox.Session, folders: list[Path]) -> tuple[str, str]:
    """Write constraints that hold every direct dependency to the lowest version that is promised, torch aside."""
    lowest: dict[str, Version] = {}
    for folder in folders:
        table = project(folder)
        for text in [*table["dependencies"], *chain(*table.get("optional-dependencies", {}).values())]:
            requirement = Requirement(text)
            for clause in requirement.specifier:
                if clause.operator == ">=" and not requirement.name.startswith("anyblock"):
                    lowest[requirement.name] = max(Version(clause.version), lowest.get(requirement.name, Version("0")))
    # PyPI's older builds of torch for Linux bring gigabytes of CUDA, so its lower bound is not tried here.
    lines = [f"{name}=={version}" for name, version in lowest.items() if name != "torch"] + [
        f"torch=={pinned()['torch']}"
    ]
    file = session.cache_dir.resolve() / "lowest.txt"
    file.write_text("\n".join(lines) + "\n")
    return "-c", str(file)


def newest_constraints(session: nox.Session) -> tuple[str, str]:
    """Write the usual constraints without transformers and what it pins itself."""
    free = ("transformers", "huggingface_hub", "tokenizers", "safetensors")
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith(free)]
    file = session.cache_dir.resolve() / "newest.txt"
    file.write_text("\n".join(lines) + "\n")
    return "-c", str(file)


def dist_folder(session: nox.Session) -> Path:
    """Return the folder of built wheels and source archives."""
    return session.cache_dir.resolve() / "dist"


def wheel(session: nox.Session, folder: Path) -> Path:
    """Return the wheel that the session `build` made from a distribution."""
    table = project(folder)
    (found,) = dist_folder(session).glob(f"{table['name'].replace('-', '_')}-{table['version']}-*.whl")
    return found


def install_wheels(
    session: nox.Session,
    folders: list[Path],
    *requirements: str,
    without: tuple[str, ...] = (),
    constraints: tuple[str, ...] = CONSTRAINTS,
) -> None:
    """Install distributions with their extras, then put the newly built wheels in place of older builds of them."""
    wheels = {folder: wheel(session, folder) for folder in folders}
    extras = {
        folder: [extra for extra in project(folder).get("optional-dependencies", {}) if extra not in ("all", *without)]
        for folder in folders
    }
    complete = [
        f"{wheels[folder]}[{','.join(extras[folder])}]" if extras[folder] else str(wheels[folder]) for folder in folders
    ]
    session.install(*constraints, *complete, *requirements)
    session.install("--force-reinstall", "--no-deps", *map(str, wheels.values()))


def shared(session: nox.Session, command: str) -> str:
    """Return the path of a command in the environment of the session `workspace`."""
    return str(session.cache_dir.resolve().parent / "workspace" / "bin" / command)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source archive of every distribution."""
    dist = dist_folder(session)
    session.install(*CONSTRAINTS, "hatchling")
    # Not where `nox -R` installs nothing: the wheels of the last time are then used again.
    clean = f"import shutil; shutil.rmtree({str(dist)!r}, ignore_errors=True)"
    session.run_install("python", "-c", clean)
    for folder in distributions():
        with session.chdir(folder):
            session.run_install("hatchling", "build", "--directory", str(dist), silent=True)
    session.log(f"built in {dist}")


@nox.session(requires=["build"])
def workspace(session: nox.Session) -> None:
    """Install every distribution and the test tools into the environment that other sessions share."""
    install_wheels(session, distributions(), *TEST_TOOLS, "mypy")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and declared dependencies; `nox -s lint -- --fix` mends style."""
    session.install(*CONSTRAINTS, "ruff", "deptry")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), str(ROOT))
    session.run("ruff", "format", *([] if fix else ["--check"]), str(ROOT))
    for folder in distributions():
        with session.chdir(folder):
            session.run("deptry", "src", *DEPTRY, silent=True)


@nox.session
def contracts(session: nox.Session) -> None:
    """Check the layers of core, cycles between its files, its size, and what plugins import of it."""
    session.install(*CONSTRAINTS, "import-linter")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": str(ROOT / "core" / "src")})
    session.run("python", "core/scripts/structure.py", "--check")


@nox.session(venv_backend="none", requires=["workspace"])
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly, in core, the conformance suite, every plugin and what `anyblock new-family` writes."""
    written = Path(session.create_tmp()) / "anyblock-arcee"
    session.run(shared(session, "anyblock"), "new-family", "arcee", str(written), "--overwrite")
    session.run(shared(session, "mypy"), *(str(folder / "src") for folder in (*distributions(), written)))


@nox.session(venv_backend="none", requires=["workspace"])
def tests(session: nox.Session) -> None:
    """Run every distribution's tests against the installed wheels; arguments after `--` go to pytest instead."""
    if not session.posargs:
        session.notify("minimal")
    session.run(shared(session, "pytest"), *TWO_WORKERS, *(session.posargs or ["--durations=10"]), env=ONE_THREAD)


@nox.session(venv_backend="none", requires=["workspace"])
def numerics(session: nox.Session) -> None:
    """Run the quick tests that compare computed numbers with other instructions, whose sums are rounded differently.

    After `--` stand those to run them with, of `default` and `avx2`; without any it is both.
    """
    for capability in session.posargs or ("default", "avx2"):
        chosen = (*TWO_WORKERS, "-m", "numerical and not slow")
        session.run(shared(session, "pytest"), *chosen, env={**ONE_THREAD, "ATEN_CPU_CAPABILITY": capability})


@nox.session(requires=["build"])
def minimal(session: nox.Session) -> None:
    """Import all of core and run the main job with nothing else installed but one adapter, then test that adapter."""
    core, llama, suite = ROOT / "core", ROOT / "plugins" / "families" / "llama", ROOT / "conformance_tests"
    install_wheels(session, [core, llama], *TEST_TOOLS)
    session.run_install("python", "-m", "pip", "uninstall", "--yes", "--quiet", project(suite)["name"])
    session.run("python", "core/scripts/smoke.py", env=ONE_THREAD)
    install_wheels(session, [suite])
    session.run("pytest", "plugins/families/llama/tests", env=ONE_THREAD)


@nox.session
def dev(session: nox.Session) -> None:
    """Make an environment with every distribution installed in place, for quick rounds; it says the command."""
    editable = [argument for folder in distributions() for argument in ("-e", str(folder))]
    session.install(*CONSTRAINTS, *editable, *TEST_TOOLS, "mypy", "ruff")
    session.log(f"quick round: {session.bin}/pytest -x -q core/tests/search   (your edits are seen at once)")


@nox.session(venv_backend="none", requires=["workspace"])
def faults(session: nox.Session) -> None:
    """Run the long fault harnesses: killed anywhere, full disks, hostile files, fuzzing. They print what they reached."""
    session.run(shared(session, "python"), "-m", "pip", "install", "--quiet", *CONSTRAINTS, "atheris")
    chosen = session.posargs or ["core/tests/faults"]
    session.run(shared(session, "pytest"), "-m", "faults or not faults", *chosen, env=ONE_THREAD)


@nox.session(venv_backend="none", requires=["workspace"])
def gguf(session: nox.Session) -> None:
    """Run GGUF exports in llama.cpp, and that of the child named after `--` as well, and print by how much they differ."""
    environment = dict(ONE_THREAD)
    if session.posargs:
        environment["ANYBLOCK_GGUF_CHILD"] = str(Path(session.posargs[0]).resolve())
    session.run(shared(session, "pytest"), "-rP", "plugins/extensions/gguf/tests", env=environment)


@nox.session(requires=["workspace"])
def vllm(session: nox.Session) -> None:
    """Load exports with vLLM's own configurations, classes and loaders; PyTorch stands in for its CUDA kernels."""
    session.install(*VLLM_NEEDS, f"torch=={pinned()['torch']}")
    session.install("--no-deps", *VLLM)
    environment = {**ONE_THREAD, "ANYBLOCK_VLLM": f"{session.bin}/python"}
    session.run(
        shared(session, "pytest"), "-rP", "plugins/extensions/vllm/tests/test_vllm.py", env=environment, external=True
    )


@nox.session(requires=["build"])
def lowest(session: nox.Session) -> None:
    """Run core's tests with the lowest version of every direct dependency that is promised, torch aside."""
    plugins = ROOT / "plugins"
    folders = [
        ROOT / "core",
        ROOT / "conformance_tests",
        plugins / "families" / "llama",
        plugins / "extensions" / "latency",
        plugins / "extensions" / "data",
    ]
    install_wheels(session, folders, *TEST_TOOLS, constraints=lowest_constraints(session, folders))
    run_core_tests(session)


@nox.session(requires=["build"])
def newest(session: nox.Session) -> None:
    """Run core's tests, and the conformance of every family, with the newest transformers that the index serves."""
    constraints = newest_constraints(session)
    install_wheels(session, distributions(), *TEST_TOOLS, constraints=constraints)
    session.install(*constraints, "--upgrade", "transformers")
    run_core_tests(session)
    if not session.posargs:
        session.run("pytest", *TWO_WORKERS, "plugins", env=ONE_THREAD)


def run_core_tests(session: nox.Session) -> None:
    """Run core's quick tests, or what stands after `--`."""
    chosen = session.posargs or ["core/tests"]
    session.run("pytest", *TWO_WORKERS, "-m", "not slow and not faults", *chosen, env=ONE_THREAD)


@nox.session(requires=["workspace"])
def licences(session: nox.Session) -> None:
    """Check the licence of every dependency, those of the tests included, against an allow list."""
    session.install(*CONSTRAINTS, "pip-licenses")
    places = ("--python", shared(session, "python"), "--from", "mixed", "--ignore-packages", *UNSTATED)
    session.run("pip-licenses", *places, "--allow-only", ";".join(LICENCES))


@nox.session(venv_backend="none", requires=["workspace"])
def conformance(session: nox.Session) -> None:
    """Run the conformance suite on the tiny model of every family, or of those named after `--`."""
    installed = [
        family
        for folder in distributions()
        for family in project(folder).get("entry-points", {}).get("anyblock.families", {})
    ]
    for family in session.posargs or installed:
        session.run(shared(session, "anyblock"), "conformance", family, env=ONE_THREAD)


@nox.session(name="lm-eval", requires=["build"])
def lm_eval(session: nox.Session) -> None:
    """Run one task of lm-evaluation-harness on a tiny teacher and its child, with a text from the reference material."""
    text = ROOT.parent / "shared" / "text" / "wikitext2-valid.txt"
    if not text.is_file():
        session.skip("the reference material (shared/text) is not next to the repository")
    extension = ROOT / "plugins" / "extensions" / "lm-eval"
    install_wheels(session, [ROOT / "core", ROOT / "plugins" / "families" / "llama", extension])
    session.run("python", str(extension / "scripts" / "compare_doors.py"), str(text), env=ONE_THREAD)


@nox.session(requires=["build"])
def quantize(session: nox.Session) -> None:
    """Quantize a small exported child with torchao, as core/docs/quantization.md says."""
    folders = [ROOT / "core", ROOT / "plugins" / "families" / "llama"]
    install_wheels(session, folders, "pytest", "accelerate", "torchao")
    session.run("pytest", "-rP", "core/tests/export/test_quantization_page.py", env=ONE_THREAD)


@nox.session(venv_backend="none", requires=["workspace"])
def browser(session: nox.Session) -> None:
    """Run the tests of the HTML report in headless Chromium, from Debian's packages if need be; skipped where there is none."""
    programs = {"chromium": "chromium", "chromedriver": "chromium-driver"}
    if missing := [package for program, package in programs.items() if shutil.which(program) is None]:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            session.skip(f"needs Chromium and its driver: apt-get install {' '.join(missing)}")
        install = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {' '.join(missing)}"
        session.run("timeout", "120", "sh", "-c", install, external=True, success_codes=range(256))
        if any(shutil.which(program) is None for program in programs):
            session.skip(f"{' and '.join(missing)} cannot be installed here")
    selenium = ("-m", "pip", "install", "--quiet", *CONSTRAINTS, "selenium")
    session.run(shared(session, "python"), *selenium, success_codes=range(256))
    if session.run(shared(session, "python"), "-c", "import selenium", silent=True, success_codes=[0, 1]):
        session.skip("selenium cannot be installed here")
    chosen = session.posargs or ["plugins/extensions/html-report/tests"]
    session.run(shared(session, "pytest"), "-rP", "-m", "browser", *chosen, env=ONE_THREAD)


@nox.session(venv_backend="none", requires=["workspace"])
def docs(session: nox.Session) -> None:
    """Build the documentation site into build/site, strictly: a broken link or a page outside the navigation is an error."""
    session.run(shared(session, "python"), "-m", "pip", "install", "--quiet", *CONSTRAINTS, "mkdocs")
    session.run(shared(session, "python"), "-m", "mkdocs", "build", "--strict")
    chosen = ("-rs", "core/tests/packaging/test_site.py")
    session.run(shared(session, "pytest"), *(session.posargs or chosen), env=ONE_THREAD)


@nox.session(venv_backend="none", requires=["workspace"])
def demo(session: nox.Session) -> None:
    """Compress a real 135 M parameter model to 80 % on this machine and compare it with its teacher."""
    session.run(shared(session, "python"), "demo/run.py", *session.posargs)


@nox.session(venv_backend="none", requires=["workspace"])
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks in core/benchmarks with their defaults, or those named after `--`."""
    folder = ROOT / "core" / "benchmarks"
    session.run(shared(session, "python"), "-m", "pip", "install", "--quiet", *CONSTRAINTS, "matplotlib")  # for plots
    names = session.posargs or sorted(path.stem for path in folder.glob("[!_]*.py"))
    for name in names:
        session.run(shared(session, "python"), str(folder / f"{name}.py"))
