"""Shell completion of the commands: `--completion bash|zsh|fish` prints a script.

The script is made of the parser, so it knows every command and option, and of values that a command
names, such as those of presets. It is printed once and read by the shell; completing starts no
Python.
"""

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")

Parsers = Mapping[str, argparse.ArgumentParser]
Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        names: "--target", or "-h" and "--help".
        help: What it does.
        takes: Whether a value follows.
        choices: Its values, where they are known.
    """

    names: tuple[str, ...]
    help: str
    takes: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """A command, or the program itself under the name "".

    Attributes:
        name: The command.
        help: What it does.
        options: Its options.
        values: What its arguments may be, where that is known.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    values: tuple[str, ...]


def add(
    parser: argparse.ArgumentParser,
    more: Callable[[], Parsers] = dict,
    values: Callable[[], Values] = dict,
) -> None:
    """Add the option `--completion` to a parser.

    Args:
        parser: The parser of the program, with its commands, if argparse knows them.
        more: Returns the parsers of commands that the program tells apart by itself.
        values: Returns what arguments and options may be, by their name in the parser.
    """

    class Print(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values_: object,
            option: str | None = None,
        ) -> None:
            print(script(str(values_), parser, more(), values()), end="")
            parser.exit()

    parser.add_argument(
        "--completion",
        action=Print,
        choices=SHELLS,
        help="print what lets a shell complete this command, and end",
    )


def script(shell: str, parser: argparse.ArgumentParser, more: Parsers, values: Values) -> str:
    """Return the script for a shell.

    Args:
        shell: One of `SHELLS`.
        parser: The parser of the program.
        more: Parsers of other commands, by name.
        values: What arguments may be, by their name in the parser.
    """
    words = [_read("", parser, values), *_commands(parser, more, values)]
    if shell == "fish":
        return _fish(parser.prog, words)
    bash = _bash(parser.prog, words)
    if shell == "bash":
        return bash
    # zsh has the functions of bash's completion.
    start = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    return start + bash


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    # argparse has no public list of what was added to a parser; this one is as old as argparse.
    return list(parser._actions)


def _commands(parser: argparse.ArgumentParser, more: Parsers, values: Values) -> list[Word]:
    parsers: dict[str, argparse.ArgumentParser] = dict(more)
    for action in _actions(parser):
        if isinstance(action.choices, dict):
            parsers.update(action.choices)
    return [_read(name, made, values) for name, made in parsers.items()]


def _read(name: str, parser: argparse.ArgumentParser, values: Values) -> Word:
    options: list[Option] = []
    known: list[str] = []
    for action in _actions(parser):
        if action.option_strings:
            choices = tuple(map(str, action.choices or values.get(action.dest, ())))
            text = " ".join((action.help or "").replace("%%", "%").split())
            takes = action.nargs != 0
            options.append(Option(tuple(action.option_strings), text, takes, choices))
        else:
            known += values.get(action.dest, ())
    return Word(name, parser.description or "", tuple(options), tuple(dict.fromkeys(known)))


def _function(program: str) -> str:
    return "_" + program.replace("-", "_")


def _bash(program: str, words: Sequence[Word]) -> str:
    names = "|".join(shlex.quote(word.name) for word in words if word.name) or '""'
    after, offers = [], []
    for word in words:
        for option in word.options:
            if option.takes:
                places = "|".join(f'"{word.name} {name}"' for name in option.names)
                offer = f"offer={shlex.quote(' '.join(option.choices))};"
                after.append(f"        {places}) {offer} values=1 ;;")
        flags = [name for option in word.options for name in option.names]
        also = [other.name for other in words if other.name] if not word.name else []
        offered = " ".join([*also, *word.values, *flags])
        offers.append(f'            "{word.name}") offer={shlex.quote(offered)} ;;')
    lines = [
        f'# Completion of {program} in bash. To have it: eval "$({program} --completion bash)"',
        f"{_function(program)}() {{",
        "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
        '    local command="" offer="" values="" place',
        "    for ((place = 1; place < COMP_CWORD; place++)); do",
        "        case ${COMP_WORDS[place]} in",
        f"            {names}) command=${{COMP_WORDS[place]}}; break ;;",
        "        esac",
        "    done",
        '    case "$command $previous" in',
        *after,
        "    esac",
        "    if [[ -z $values ]]; then",
        '        case "$command" in',
        *offers,
        "        esac",
        "        # The shell takes a colon for the end of a word.",
        '        [[ $previous == : ]] && offer=${offer//"${COMP_WORDS[COMP_CWORD-2]}:"/}',
        '        [[ $current == : ]] && offer=${offer//"$previous:"/} current=""',
        "    fi",
        '    COMPREPLY=($(compgen -W "$offer" -- "$current"))',
        "}",
        f"complete -o default -F {_function(program)} {program}",
    ]
    return "\n".join(lines) + "\n"


def _fish(program: str, words: Sequence[Word]) -> str:
    lines = [f"# Completion of {program} in fish. To have it: {program} --completion fish | source"]
    names = " ".join(word.name for word in words if word.name)
    for word in words:
        where = f"__fish_seen_subcommand_from {word.name}"
        if not word.name:
            where = f"not __fish_seen_subcommand_from {names}" if names else "true"
        start = f"complete -c {program} -n {_quoted(where)}"
        if word.name:
            top = f"not __fish_seen_subcommand_from {names}"
            lines.append(
                f"complete -c {program} -n {_quoted(top)} -a {word.name} -d {_quoted(word.help)}"
            )
        if word.values:
            lines.append(f"{start} -a {_quoted(' '.join(word.values))}")
        for option in word.options:
            flags = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            )
            value = " -r" if option.takes else ""
            value += f" -f -a {_quoted(' '.join(option.choices))}" if option.choices else ""
            lines.append(f"{start} {flags}{value} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as one word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
