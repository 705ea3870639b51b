"""The command line's manners: quick help, exit codes, one line for a mistake, never a traceback unasked."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radloop.apps.cli import main
from radloop.studies.folder import StudiesFolder

COMMAND = [sys.executable, "-m", "radloop.apps.cli"]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


def test_help_answers_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "recipe" in done.stdout
    assert "Not for clinical use" in done.stdout
    # processor time, as wall clock says more about what else the machine is doing
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5


def test_the_grammar_imports_nothing_heavy() -> None:
    code = (
        "import sys; from radloop.apps.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'mlflow', 'monailabel', 'numpy', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"radloop {version('radloop')}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fly"], "invalid choice"),
        (["train", "r", "--studies", "s", "--fold", "0/5"], "1/5"),
        (["train", "r", "--studies", "s", "--fold", "3"], "1/5"),
        (["train", "r", "--studies", "s", "--epochs", "0"], "whole number from 1"),
        (["train", "r", "--studies", "s", "--minutes", "nan"], "above 0"),
        (["train", "r", "--studies", "s", "--epochs", "1", "--minutes", "1"], "not allowed with"),
        (["train", "r", "--studies", "s", "--seed", "-1"], "from 0"),
        (["train", "r", "--studies", "s", "--seed", str(2**63)], "2**63"),
        (["labels", "confirm", "--studies", "s"], "ID"),
        (["train", "r", "--stud", "s"], "--studies"),
        (["serve", "--studies", "s", "--port", "70000"], "65535"),
        (["labels", "list", "--studies", "s", "--since", "yesterday"], "2026-11-23"),
        (["labels", "list", "--studies", "s", "--since", "0001-01-01T00:00+10:00"], "2026-11-23"),
        (["labels", "confirm", "9" * 20, "--studies", "s"], "2**63"),
        (["predict", "r", "--out", "o"], "--studies"),
    ],
)
def test_wrong_words_are_wrong_use(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["status", "--studies", "{nowhere}"], 1, "does not exist"),
        (["status", "--studies", "http://pacs/dicom-web"], 2, "DICOMweb comes later"),
        (["serve", "--studies", "https://pacs/dicom-web"], 2, "DICOMweb comes later"),
        (["serve", "--studies", "{studies}", "--host", "0.0.0.0"], 2, "no access control"),
        (["serve", "--studies", "{studies}", "--host", "192.168.1.7"], 2, "no access control"),
        (["serve", "--studies", "{studies}", "--host", "myhost"], 2, "no access control"),
        (["serve", "--studies", "{studies}", "--write-back", "http://pacs"], 2, "comes later"),
        (["serve", "--studies", "{studies}", "--app", "{studies}"], 1, "main.py"),
        (["serve", "--studies", "{studies}", "--recipes", "sample_lesion"], 1, "did you mean 'sample_lesions'"),
        (["labels", "revoke", "--studies", "{studies}"], 2, "--author"),
        (["recipe", "check", "{nowhere}"], 1, "no such file"),
        (["recipe", "new", "--studies", "{studies}", "--out", "{studies}/there.toml"], 1, "is there already"),
        (
            ["recipe", "new", "--studies", "{studies}", "--kind", "segmentation", "--answer", "x", "--out", "o.toml"],
            2,
            "--answer",
        ),
        (["predict", "sample_lesions", "--image", "{nowhere}", "--out", "{studies}/o"], 2, "--home"),
        (["predict", "sample_lesions", "--studies", "{studies}", "--out", "{studies}"], 2, "holds the images"),
        (["predict", "sample_lesions", "--studies", "{studies}", "--out", "{studies}/labels/final"], 2, "for labels"),
        (["predict", "sample_lesions", "--image", "{studies}/a.png", "--out", "{studies}/x/.."], 2, "the images"),
        (["predict", "sample_lesions", "--studies", "{studies}", "--out", "{studies}/o"], 1, "train one"),
        (["model", "rollback", "sample_lesions", "--studies", "{studies}"], 1, "no version"),
        (["export", "--studies", "{studies}", "--out", "{studies}/o"], 2, "--recipe"),
        (["import", "{nowhere}", "--studies", "{studies}"], 1, "no folder"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], code: int, hint: str, studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (studies / "there.toml").touch()
    words = [word.format(studies=studies, nowhere=studies / "nowhere") for word in words]
    assert main(words) == code
    said = capsys.readouterr().err
    assert said.startswith("radloop: ")
    assert hint in said
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said


def test_home_is_accepted_before_and_after_the_command(studies: Path, tmp_path: Path) -> None:
    for number, words in enumerate((["--home", "{}", "status"], ["status", "--home", "{}"])):
        home = tmp_path / f"home{number}"
        assert main([*(word.format(home) for word in words), "--studies", str(studies)]) == 0
        assert (home / "ledger.db").is_file()
    assert not (studies / ".radloop").exists()


def test_home_comes_from_the_environment(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADLOOP_HOME", str(tmp_path / "mine"))
    assert main(["status", "--studies", str(studies)]) == 0
    assert (tmp_path / "mine" / "ledger.db").is_file()


@pytest.mark.parametrize("verbose", [False, True])
def test_an_unexpected_failure_says_where_its_trace_is(
    verbose: bool, studies: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing foreseen does this, so it has to be planted
    monkeypatch.setattr(StudiesFolder, "studies", lambda self: 1 / 0)
    (studies / ".radloop" / "logs").mkdir(parents=True)
    assert main(["status", "--studies", str(studies)] + ["--verbose"] * verbose) == 1
    said = capsys.readouterr().err
    assert "radloop: unexpected ZeroDivisionError: division by zero" in said
    assert ("Traceback" in said) == verbose
    log = studies / ".radloop" / "logs" / "cli.log"
    assert f"radloop: details are in {log}" in said
    assert "ZeroDivisionError" in log.read_text()


def test_a_taken_port_is_said(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--studies", str(studies), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"port {port}" in said
    assert "--port" in said


def test_a_reader_that_has_enough_is_no_failure(studies: Path) -> None:
    command = f"{sys.executable} -m radloop.apps.cli recipe --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env={**os.environ})
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_log_gets_lines_of_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from radloop.apps import terminal

    with terminal.bar(3, "quick", "studies") as shown:
        shown.update(3)
        terminal.rename(shown, "still quick")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.01)
    with terminal.bar(3, "slow", "studies") as shown:
        for _ in range(3):
            time.sleep(0.03)
            shown.update()
        terminal.rename(shown, "measure")
    lines = capsys.readouterr().err.split("\n")
    assert lines[0].startswith("slow: 1 of 3 studies")
    assert lines[-2].startswith("measure: 3 of 3 studies")
    assert not any("\r" in line for line in lines)


@pytest.mark.parametrize(
    ("network", "line", "hint"),
    [
        ('name = "unett"', 4, "did you mean 'unet'"),
        ('name = "cnn"', 4, "there is: resunet, unet, unet_attention"),
        ('weights = "nowhere.pt"', 4, "nowhere.pt do not exist"),
        ("strides = [[1, 1, 1], [32, 2, 2]]\nfeatures = [4, 8]", 4, "beyond fit.patch"),
        ("strides = [[1, 1, 1], [16, 16, 16]]\nfeatures = [4, 8]", 4, "one voxel"),
        ("strides = [[1, 1, 1], [5, 2, 2]]\nfeatures = [4, 8]", 4, "cannot be built"),
        ('title = "Kn\xf6chel"', 4, "not UTF-8"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_not_fine(
    network: str, line: int, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    text = f'name = "r"\nlabels = {{ a = 1 }}\n[network]\n{network}\n[fit]\npatch = [16, 16, 16]\n'
    file.write_bytes(text.encode("latin-1"))
    assert main(["recipe", "check", str(file)]) == 1
    said = capsys.readouterr().err
    assert hint in said
    assert f"r.toml:{line}: " in said
    assert len(said.splitlines()) == 1


def test_a_broken_recipe_of_the_home_does_not_stop_another(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipes = studies / ".radloop" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "broken.toml").write_text("name = ")
    out = studies / "new" / "status.json"
    assert main(["status", "--studies", str(studies), "--json", str(out)]) == 0
    assert "recipe broken is left out: broken.toml:1" in capsys.readouterr().err
    assert out.is_file()
