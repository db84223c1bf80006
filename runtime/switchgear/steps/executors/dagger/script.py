"""The shell script that runs a step's commands inside the engine, and what it tells at its end. Pure.

One script for all commands: it bounds the outputs where they arise, holds the time limit (the engine has none), and
brings every exit code back as data (the engine hands on 0 to 127 only). Needs `sh`, `tail`, `wc`, `rm` and `sleep` of
the image. What is left running when it ends, the engine kills with the container.
"""

from __future__ import annotations

import math
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from switchgear import ids
from switchgear.steps.executors.dagger.lines import FOLLOW, FOLLOWED

if TYPE_CHECKING:
    from switchgear.steps.spec import StepSpec

RUN = "SWITCHGEAR_RUN"
"""Variable that differs in each run: part of what the engine compares, unless the step may come from its cache."""
UNHEARD = "-"
"""How the name of a run begins whose lines nobody is sent while it runs."""

_BEGIN = """\
r=${SWITCHGEAR_RUN-}; m=@MARK@; t=; p=; c=0; b=; f=
o=${TMPDIR:-/tmp}/.$m.$$; { : >"$o"; } 2>/dev/null || { o=./.$m.$$; : >"$o" || exit 125; }
e=$o.e; : >"$e"; exec 3<&0 </dev/null
trap 't=1; [ -z "$p" ] || kill -9 "$p" 2>/dev/null' USR1
read -r b x 2>/dev/null </proc/uptime
"""
_WATCH = "{ sleep @SECONDS@ 2>/dev/null || sleep @WHOLE@; kill -USR1 $$; } >/dev/null 2>&1 3<&- &\n"
_COMMAND = """\
( @LIMITS@exec @ARGV@ ) >>"$o" 2>>"$e" @INPUT@3<&- & p=$!
wait "$p"; c=$?; [ -z "$t" ] || { wait "$p"; break; }
case $c in @CODES@) ;; *) break;; esac
"""
# Each program that is started costs a millisecond or more, so none is for what is empty. Of what a failed execution
# wrote an engine strips both ends: a point there keeps what is between.
_END = """\
read -r f x 2>/dev/null </proc/uptime
@FOLLOWED@so="0 0"; se="0 0"; y=
[ ! -s "$o" ] || so=$(wc -lc <"$o"); [ ! -s "$e" ] || se=$(wc -lc <"$e")
@OUTPUTS@
k=1; [ -n "$t" ] || case $c in @CODES@) k=;; esac
z="$m $c ${t:-0} ${b:--} ${f:--} $so $se ${r:--} ${y:--}"
x=0; [ -z "$k" ] || [ @REUSABLE@ = 0 ] || { x=1; printf .; }
[ ! -s "$o" ] || tail -c @LIMIT@ "$o"
[ $x = 0 ] || { exec 4>&1 >&2; printf .; }
printf '\\n%s:e\\n' "$m"; [ ! -s "$e" ] || tail -c @LIMIT@ "$e"
[ $x = 0 ] || { printf .; exec >&4; }
printf '\\n%s\\n' "$z"; @CLEAN@exit $x
"""
_OUTPUT = "if [ -d @PATH@ ]; then y=${y}d; elif [ -f @PATH@ ]; then y=${y}f; else y=${y}-; fi"

Kind = Literal["directory", "file", "missing"]
_KINDS: dict[str, Kind] = {"d": "directory", "f": "file", "-": "missing"}
_FIELDS = 11
_KILLED = 137


class Frame(NamedTuple):
    """What the script told."""

    exit_code: int
    timed_out: bool
    stdout: str
    stderr: str
    truncated: int
    """Bytes that were cut off both outputs together."""
    lines: tuple[int, int]
    """Ends of lines in each output, also in what was cut off."""
    duration: timedelta | None
    """None where the image has no /proc."""
    run: str
    """The run whose answer this is: another one's, if it came from the cache."""
    outputs: tuple[Kind, ...]
    """What stands at the paths of the declared outputs, in their order."""


class Unframed(Exception):
    """A text that did not come from the script."""


def mark(spec: StepSpec) -> str:
    """What tells the script's own lines from the output: the same for equal specs, so that caches may answer."""
    from switchgear.contract import codec

    same = tuple(pair for pair in spec.environment if not is_volatile(pair[0]))
    return f"sg-{ids.short_digest(codec.encode(replace(spec, environment=same)), 20)}"


def is_volatile(variable: str) -> bool:
    """Whether this variable is of the runtime, and differs between runs of one step."""
    return variable.startswith("SWITCHGEAR_")


def script(spec: StepSpec) -> str:
    """What `sh -c` is to run."""
    codes = "|".join(map(str, spec.exit_codes))
    last = len(spec.commands) - 1
    parts = [_filled(_BEGIN, MARK=mark(spec))]
    if spec.time_limit is not None:
        seconds = spec.time_limit.total_seconds()
        parts.append(_filled(_WATCH, SECONDS=f"{seconds:g}", WHOLE=str(math.ceil(seconds))))
    parts += [FOLLOW, "while :; do\n"]
    for number, argv in enumerate(spec.commands):
        reads = number == last and spec.input is not None
        parts.append(
            _filled(
                _COMMAND,
                LIMITS=limits(spec),
                ARGV=shlex.join(argv),
                INPUT="<&3 " if reads else "",
                CODES=codes,
            )
        )
    parts.append("break; done\n")
    outputs = "\n".join(
        _filled(_OUTPUT, PATH=shlex.quote(path if path.startswith("/") else f"./{path}"))
        for _, path in spec.declared_outputs
    )
    parts.append(
        _filled(
            _END,
            FOLLOWED=FOLLOWED,
            OUTPUTS=outputs,
            CODES=codes,
            LIMIT=str(spec.output_limit),
            REUSABLE=str(int(spec.reusable)),
            # Where it writes, an output may be: else nobody sees the container again.
            CLEAN='rm -f "$o" "$e"; ' if spec.declared_outputs or spec.caches else "",
        )
    )
    return "".join(parts)


def parse(spec: StepSpec, stdout: str, stderr: str | None = None) -> Frame:
    """What the script told. `stderr`: of a failed execution; None: both outputs are in one. Raises Unframed."""
    name = mark(spec)
    body, found, trailer = stdout.rstrip("\n").rpartition(f"\n{name} ")
    fields = f"{name} {trailer}".split()
    if not found or len(fields) != _FIELDS:
        raise Unframed(stdout[-500:])
    _, code, late, begun, ended, out_lines, out, err_lines, err, run, kinds = fields
    if stderr is None:
        body, _, stderr = body.rpartition(f"\n{name}:e\n")
    else:  # behind what was sent while it ran
        body, stderr = body.removeprefix("."), stderr.rpartition(f"\n{name}:e\n")[2]
        stderr = stderr.removesuffix(".")
    limit = spec.output_limit
    return Frame(
        exit_code=_KILLED if late == "1" else int(code),
        timed_out=late == "1",
        stdout=_whole(body, cut=int(out) > limit),
        stderr=_whole(stderr, cut=int(err) > limit),
        truncated=max(0, int(out) - limit) + max(0, int(err) - limit),
        lines=(int(out_lines), int(err_lines)),
        duration=None if "-" in {begun, ended} else _between(begun, ended),
        run="" if run == "-" else run,
        outputs=tuple(_KINDS[one] for one in kinds) if spec.declared_outputs else (),
    )


def _between(begun: str, ended: str) -> timedelta:
    return timedelta(seconds=max(0.0, float(ended) - float(begun)))


def _whole(text: str, *, cut: bool) -> str:
    """Without what is left of a character that was cut in two."""
    return text.lstrip("\ufffd") if cut else text


def limits(spec: StepSpec) -> str:
    """What a shell does first, so that whatever it starts has the limits of this spec."""
    wanted: list[str] = []
    if spec.memory_limit is not None:
        wanted.append(f"ulimit -v {math.ceil(spec.memory_limit / 1024)}")
    if spec.cpu_limit is not None:
        wanted.append(f"ulimit -t {math.ceil(spec.cpu_limit.total_seconds())}")
    if spec.open_limit is not None:
        wanted.append(f"ulimit -n {spec.open_limit}")
    return "".join(f"{one} || exit 125; " for one in wanted)


def _filled(template: str, **values: str) -> str:
    """One pass: what is filled in is not looked at again."""
    out = template.split("@")
    return "".join(part if number % 2 == 0 else values[part] for number, part in enumerate(out))
