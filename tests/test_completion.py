"""Shell completion, made of the parsers: bash runs it where it is installed."""

import re
import shutil
import subprocess

import pytest

from snukeras import _completion
from snukeras.export import command as export_command
from snukeras.zoo import command as zoo_command


def printed(main, capsys, shell):
    try:
        assert main(["--completion", shell]) == 0
    except SystemExit as end:
        assert end.code == 0
    return capsys.readouterr().out


@pytest.fixture
def complete(capsys):
    """Complete the last of the words of a command line by bash; a colon is a word there."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    scripts: dict[str, str] = {}

    def complete(*words):
        main = zoo_command.main if words[0] == "snukeras-zoo" else export_command.main
        if words[0] not in scripts:
            scripts[words[0]] = printed(main, capsys, "bash")
        line = " ".join(f"'{word}'" for word in words)
        script = scripts[words[0]] + (
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
            f"_{words[0].replace('-', '_')}\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "--norc", "-u", "-c", script], capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.split()

    return complete


def test_bash_completes_commands_options_names_and_values(complete):
    assert complete("snukeras-zoo", "in") == ["info"]
    assert {"list", "train", "doctor", "--version"} <= set(complete("snukeras-zoo", ""))
    assert complete("snukeras-zoo", "info", "jsb_snu_l") == ["jsb_snu_loop_pcm"]
    assert complete("snukeras-zoo", "train", "jsb_snu", "--se") == ["--seeds"]
    assert complete("snukeras-zoo", "--completion", "f") == ["fish"]
    assert complete("snukeras-zoo", "list", "--task", "j") == ["jsb_chorales"]
    assert complete("snukeras-zoo", "list", "--unit", "Conv") == ["ConvSNU2D"]
    assert complete("snukeras-zoo", "list", "jsb_snu_l") == ["jsb_snu_loop_pcm"]
    # What a shell does not know, such as files, is left to it.
    assert complete("snukeras-zoo", "train", "--runs", "") == []


def test_bash_completes_models_behind_a_colon(complete):
    assert complete("snukeras-export", "zoo", ":", "jsb_snu_l") == ["jsb_snu_loop_pcm"]
    assert "jsb_snu" in complete("snukeras-export", "zoo", ":")
    assert complete("snukeras-export", "--scale", "") == ["tensor", "column"]
    assert complete("snukeras-export", "ver") == ["verify"]
    assert complete("snukeras-export", "readback", "--mo") == ["--model"]
    assert complete("snukeras-export", "verify", "--mo") == []


@pytest.mark.parametrize("main", [zoo_command.main, export_command.main], ids=["zoo", "export"])
def test_fish_and_zsh_get_every_option(main, capsys):
    parser = (zoo_command if main is zoo_command.main else export_command)._parser()
    options = re.findall(r"--([a-z][a-z0-9-]*)", parser.format_usage())
    fish, zsh = (printed(main, capsys, shell) for shell in ("fish", "zsh"))
    for option in options:
        assert f"-l {option} " in fish and f"--{option}" in zsh
    assert "bashcompinit" in zsh
    for shell, script in (("fish", fish), ("zsh", zsh)):
        if shutil.which(shell):
            assert subprocess.run([shell, "-n"], input=script, text=True).returncode == 0


def test_quotes_and_percents_of_help_survive():
    import argparse

    parser = argparse.ArgumentParser(prog="x")
    parser.add_argument("--a", help="it's 5 %% of \\ it")
    text = _completion.script("fish", parser, {}, {})
    assert r"-l a -r -d 'it\'s 5 % of \\ it'" in text


def test_an_unknown_shell_is_refused(capsys):
    assert export_command.main(["--completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err
