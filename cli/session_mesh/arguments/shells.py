"""Completion in a shell: the script that asks us, for the shell that is named.

Invariant: files are offered only where a file is meant.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from typer._completion_shared import get_completion_script, install

from meshnode.client.errors import UsageError

PROGRAM, VARIABLE = "session-mesh", "_SESSION_MESH_COMPLETE"
INSTALL, SHOW = "--install-completion", "--show-completion"
OWN = {  # how typer's has files wherever nothing is known, and ours only behind these words
    "bash": """
_session_mesh_completion() {
    local IFS=$'\\n' one words=() last=-1
    for one in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do  # --output=json comes as three
        if [[ $one == = && ${words[last]} == --* ]]; then continue; fi
        words+=("$one")
        last=$((last + 1))
    done
    if [[ ${COMP_WORDS[COMP_CWORD]} == = ]]; then words+=(""); last=$((last + 1)); fi
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" COMP_CWORD=$last \\
                   %(variable)s=complete_bash $1 ) )
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        case "${words[last-1]}" in %(options)s) compopt -o default ;; esac
        case $'\\n'"${words[*]}"$'\\n' in *$'\\n--\\n'*|%(verbs)s) compopt -o default ;; esac
    fi
    return 0
}

complete -F _session_mesh_completion %(program)s
""",
    "zsh": """
#compdef %(program)s

_session_mesh_completion() {
  local said=$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \\
                   %(variable)s=complete_zsh %(program)s)
  local option=${words[CURRENT-1]}
  if [[ ${words[CURRENT]} == --*=* ]]; then  # --output=json is one word
    option=${words[CURRENT]%%%%=*}
    compset -P '*='
  fi
  if [[ $said != _files ]]; then
    eval $said
  else
    case $option in (%(options)s) _files; return ;; esac
    case $'\\n'${(F)words[1,CURRENT-1]}$'\\n' in (*$'\\n--\\n'*|%(verbs)s) _files ;; esac
  fi
}

if [[ $funcstack[1] == _%(program)s ]]; then  # loaded by the first Tab, which waits for it
  _session_mesh_completion
else
  compdef _session_mesh_completion %(program)s
fi
""",
}
SHELLS = (*OWN, "fish", "powershell", "pwsh")
FILE = re.compile(r"\b(FILE|DIR|PATH)\b", re.ASCII)


def asked(words: Sequence[str], command: Any) -> str | None:  # noqa: ANN401 - typer's own
    """Return what to print for the options of completion; None if none is among the words.

    Raises UsageError for a shell that there is no completion for, and for files that refuse it.
    """
    option = next((word for word in words if word in {INSTALL, SHOW}), None)
    if option is None:
        return None
    named = words[words.index(option) + 1 :][:1]
    shell = named[0] if named else _current()
    if shell not in SHELLS:
        said = f"no completion for {shell[:60]!r}" if shell else "which shell?"
        raise UsageError(said, f"name it: {option} {'|'.join(SHELLS)}")
    script = _script(shell, command)
    if option == SHOW:
        return f"{script}\n"
    path = _installed(shell, script)
    return f"{shell} completes {PROGRAM} from its next start on: {path}\n"


def _installed(shell: str, script: str) -> Path:
    """Write what the shell reads at its start; returns where the script is. Raises UsageError."""
    try:
        _, path = install(shell, PROGRAM, VARIABLE)
        if shell in OWN:
            path.write_text(f"{script}\n")
    except UnicodeDecodeError as error:  # of the only file that is read
        why: object = f"{Path.home() / f'.{shell}rc'} is not UTF-8"
        raise _refused(shell, why) from error
    except FileNotFoundError as error:
        why = f"no {shell} in PATH" if error.filename == shell else error
        raise _refused(shell, why) from error
    except FileExistsError as error:  # of what would be made a directory
        raise _refused(shell, f"{error.filename} is not a directory") from error
    except (OSError, SubprocessError, RuntimeError) as error:  # the last: nobody knows the home
        raise _refused(shell, error) from error
    return path


def _refused(shell: str, why: object) -> UsageError:
    if isinstance(why, OSError):
        why = f"{why.filename or Path.home()}: {why.strerror}"
    said = f"cannot install completion for {shell}: {why}"
    return UsageError(said, f"{PROGRAM} {SHOW} {shell} prints it, for a file of your choice")


def _current() -> str:
    """Return the shell that has called us, or else the user's."""
    import psutil  # noqa: PLC0415 - for this alone

    with suppress(psutil.Error):
        for one in psutil.Process().parents():
            if one.name().lstrip("-") in SHELLS:
                return str(one.name()).lstrip("-")
    return Path(os.environ.get("SHELL", "")).name


def _script(shell: str, command: Any) -> str:  # noqa: ANN401 - as above
    if shell not in OWN:
        return get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)
    files = list(_files(command, ()))
    options = sorted({word for word in files if word.startswith("-")})
    verbs = sorted({word for word in files if not word.startswith("-")})
    return OWN[shell].strip() % {
        "program": PROGRAM,
        "variable": VARIABLE,
        "options": "|".join(options),
        "verbs": "|".join(f"*$'\\n{verb}\\n'*" for verb in verbs),
    }


def _files(command: Any, path: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401 - as above
    """Yield options that take a file, and as lines the verbs that do."""
    for one in command.params:
        is_file = one.type_descriptor.annotation in {Path, Path | None} or FILE.search(
            one.metavar or ""
        )
        if is_file and one.param_type_name == "option":
            yield from one.opts
        elif is_file:
            yield "\\n".join(path)
    names = command.list_commands(None) if hasattr(command, "list_commands") else ()
    for name in names:
        yield from _files(command.get_command(None, name), (*path, name))
