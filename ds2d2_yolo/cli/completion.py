"""Scripts that complete modes, keys and values in bash and zsh."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import yaml

from ds2d2_yolo.cli.modes import MODES, SHARED, Mode, load
from ds2d2_yolo.errors import BadUseError

SHELLS = ("bash", "zsh")
WORDS = {"data": ("prepare",), "completion": SHELLS, "help": tuple(MODES)}
DATASETS = ("dota", "dior", "dior-r", "hit-uav")

BASH = """# ds2d2-yolo: completion for bash. Put it where bash looks:
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

ZSH = """#compdef ds2d2-yolo
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
    """Return the completion script of a shell, with the keys of the installed Ultralytics.

    Args:
        shell (str): 'bash' or 'zsh'.

    Returns:
        (str): The script; it starts no program when it completes.

    Raises:
        BadUseError: For another shell.
    """
    if shell not in SHELLS:
        raise BadUseError(f"completion for '{shell}': the shells are {', '.join(SHELLS)}")
    template, keys, values = (BASH, _bash_keys, _bash_values) if shell == "bash" else (ZSH, _zsh_keys, _zsh_values)
    pairs = {name: keys_of(name, mode) for name, mode in MODES.items()}
    return template.format(
        modes=" ".join(MODES),
        keys="\n".join(f"            {name}) {keys(name, list(found))} ;;" for name, found in pairs.items()),
        values="\n".join(
            f"            {name}.{key}) {values(words)} ;;"
            for name, found in pairs.items()
            for key, words in found.items()
            if words
        ),
    )


def keys_of(name: str, mode: Mode) -> dict[str, tuple[str, ...]]:
    """Return the keys of a mode, each with the words that its values may be (none: a number or a path)."""
    ours = {f.name: f.metadata["check"].words for f in mode.option_fields()}
    passing = dict.fromkeys(load(mode.passing), ()) if mode.passing else {}
    return {**theirs(mode.theirs), **passing, **dict.fromkeys(mode.needs, ()), **ours}


def theirs(sections: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return Ultralytics' keys of some sections of its settings file, which is read without importing Ultralytics."""
    spec = find_spec("ultralytics")
    if not sections or spec is None or spec.origin is None:
        return {}
    text = (Path(spec.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line if line.endswith("---") else heading
        elif ": " in line and any(heading.startswith(f"# {s}") for s in (*sections, "Train")):
            key = line.split(":")[0]
            if any(heading.startswith(f"# {s}") for s in sections) or key in SHARED:
                found[key] = ("True", "False") if isinstance(yaml.safe_load(line)[key], bool) else ()
    return found


def _bash_keys(name: str, keys: list[str]) -> str:
    """Return the bash that completes the keys of a mode, or the words that follow it."""
    words = " ".join([*WORDS.get(name, ()), *(DATASETS if name == "data" else ()), *(f"{key}=" for key in keys)])
    return f'COMPREPLY=($(compgen -W "{words}" -- "$cur"))'


def _bash_values(words: tuple[str, ...]) -> str:
    """Return the bash that completes one of several values."""
    return f'COMPREPLY=($(compgen -P "$prefix" -W "{" ".join(words)}" -- "$cur"))'


def _zsh_keys(name: str, keys: list[str]) -> str:
    """Return the zsh that completes the keys of a mode, or the words that follow it."""
    follow = [*WORDS.get(name, ()), *(DATASETS if name == "data" else ())]
    parts = [f"compadd -- {' '.join(follow)}"] if follow else []
    parts += [f"compadd -S '=' -- {' '.join(keys)}"] if keys else []
    return "; ".join(parts) or ":"


def _zsh_values(words: tuple[str, ...]) -> str:
    """Return the zsh that completes one of several values."""
    return f"compadd -- {' '.join(words)}"
