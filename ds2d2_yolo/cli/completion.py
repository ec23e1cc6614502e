"""Completion scripts for bash and zsh: modes, keys and values."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import yaml

from ds2d2_yolo.cli.modes import MODES, SHARED_KEYS, Mode, load
from ds2d2_yolo.errors import BadUseError

SHELLS = ("bash", "zsh")
# words after a mode that are no keys; data sets follow 'data prepare'
DATASETS = ("dota", "dior", "dior-r", "hit-uav")
FOLLOWING_WORDS = {"data": ("prepare", *DATASETS), "completion": SHELLS, "help": tuple(MODES)}

BASH_TEMPLATE = """# ds2d2-yolo: completion for bash. Put it where bash looks:
#   ds2d2-yolo completion bash > ~/.local/share/bash-completion/completions/ds2d2-yolo
_ds2d2_yolo() {{
    local line=${{COMP_LINE:0:COMP_POINT}}
    local cur=${{line##*[[:space:]]}} mode=${{COMP_WORDS[1]}} key prefix=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "{modes}" -- "$cur"))
    elif [[ $cur == *=* ]]; then
        key=${{cur%%=*}} cur=${{cur#*=}}
        [[ $COMP_WORDBREAKS == *=* ]] || prefix=$key=
        case $mode.$key in
{values}
            *) compopt -o filenames; COMPREPLY=($(compgen -P "$prefix" -f -- "$cur")) ;;
        esac
    else
        case $mode in
{keys}
        esac
        [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
    fi
    return 0
}}
complete -F _ds2d2_yolo ds2d2-yolo
"""

ZSH_TEMPLATE = """#compdef ds2d2-yolo
# ds2d2-yolo: completion for zsh. Put it into a folder of $fpath:
#   ds2d2-yolo completion zsh > ~/.zfunc/_ds2d2-yolo      with, before compinit:  fpath=(~/.zfunc $fpath)
_ds2d2_yolo() {{
    local mode=$words[2] key
    if (( CURRENT == 2 )); then
        compadd -- {modes}
    elif [[ $PREFIX == *=* ]]; then
        key=${{PREFIX%%=*}}
        compset -P '*='
        case $mode.$key in
{values}
            *) _files ;;
        esac
    else
        case $mode in
{keys}
        esac
    fi
}}
if [[ $funcstack[1] == _ds2d2-yolo ]]; then _ds2d2_yolo "$@"; else compdef _ds2d2_yolo ds2d2-yolo; fi
"""


def script(shell: str) -> str:
    """Return the completion script of a shell. It holds the keys of the installed Ultralytics.

    Args:
        shell (str): 'bash' or 'zsh'.

    Returns:
        (str): The script. Completing with it starts no program.

    Raises:
        BadUseError: For another shell.
    """
    if shell not in SHELLS:
        raise BadUseError(f"completion for '{shell}': the shells are {', '.join(SHELLS)}")
    template, keys, values = (
        (BASH_TEMPLATE, _bash_keys, _bash_values) if shell == "bash" else (ZSH_TEMPLATE, _zsh_keys, _zsh_values)
    )
    keys_by_mode = {name: keys_of(mode) for name, mode in MODES.items()}
    return template.format(
        modes=" ".join(MODES),
        keys="\n".join(f"            {name}) {keys(name, list(choices))} ;;" for name, choices in keys_by_mode.items()),
        values="\n".join(
            f"            {name}.{key}) {values(words)} ;;"
            for name, choices in keys_by_mode.items()
            for key, words in choices.items()
            if words
        ),
    )


def keys_of(mode: Mode) -> dict[str, tuple[str, ...]]:
    """Return the keys of a mode, each with its valid words; keys with numbers or paths have none.

    Args:
        mode (Mode): A mode of the command line.

    Returns:
        (dict[str, tuple[str, ...]]): Valid words by key, Ultralytics' keys included.
    """
    options = {f.name: f.metadata["check"].choices for f in mode.option_fields()}
    passing = dict.fromkeys(load(mode.ultralytics_keys), ()) if mode.ultralytics_keys else {}
    return {**ultralytics_keys(mode.ultralytics_sections), **passing, **dict.fromkeys(mode.required, ()), **options}


def ultralytics_keys(sections: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Read the keys of sections of Ultralytics' settings file, without importing Ultralytics.

    Args:
        sections (tuple[str, ...]): Beginnings of section headings, such as 'Val/Test'.

    Returns:
        (dict[str, tuple[str, ...]]): Keys with their valid words, `SHARED_KEYS` of the train section included.
    """
    spec = find_spec("ultralytics")
    if not sections or spec is None or spec.origin is None:
        return {}
    text = (Path(spec.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8")
    keys: dict[str, tuple[str, ...]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line if line.endswith("---") else heading
        elif ": " in line and any(heading.startswith(f"# {s}") for s in (*sections, "Train")):
            key = line.split(":")[0]
            if any(heading.startswith(f"# {s}") for s in sections) or key in SHARED_KEYS:
                keys[key] = ("True", "False") if isinstance(yaml.safe_load(line)[key], bool) else ()
    return keys


def _bash_keys(name: str, keys: list[str]) -> str:
    """Return bash code that completes the keys of a mode and the words that follow it."""
    words = " ".join([*FOLLOWING_WORDS.get(name, ()), *(f"{key}=" for key in keys)])
    return f'COMPREPLY=($(compgen -W "{words}" -- "$cur"))'


def _bash_values(words: tuple[str, ...]) -> str:
    """Return bash code that completes one of several values."""
    return f'COMPREPLY=($(compgen -P "$prefix" -W "{" ".join(words)}" -- "$cur"))'


def _zsh_keys(name: str, keys: list[str]) -> str:
    """Return zsh code that completes the keys of a mode and the words that follow it."""
    words = FOLLOWING_WORDS.get(name, ())
    parts = [f"compadd -- {' '.join(words)}"] if words else []
    parts += [f"compadd -S '=' -- {' '.join(keys)}"] if keys else []
    return "; ".join(parts) or ":"


def _zsh_values(words: tuple[str, ...]) -> str:
    """Return zsh code that completes one of several values."""
    return f"compadd -- {' '.join(words)}"
