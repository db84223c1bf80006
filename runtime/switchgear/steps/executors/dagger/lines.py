"""The lines of a step while it runs: how its script sends them, and how each is handed on once and in order. Pure.

A record of an engine's log may end anywhere, and one that is not UTF-8 is dropped. So the script sends complete lines,
as printable ASCII with all else escaped, and says their number and size: what is missing or torn is seen, and comes
with the final text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from switchgear.steps.masking import MASK, Mask
from switchgear.steps.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from switchgear.steps.executor import OnLine

FOLLOW = """\
w=; case $r in ''|-*) ;; *) (
LC_ALL=C; N='\n'; T='\t'; h=$N$m\\ $r$N; n5=0 n6=0 y5= y6=
exec 3<&- 5<"$o" 6<"$e" >&2; ulimit -v 65536 2>/dev/null
escaped() {
  s=$1; while [ -n "$s" ]; do
    l=${s%%"$N"*}; s=${s#*"$N"}
    while case $l in *[!$T\\ -~]*) ;; *) false;; esac; do
      a=${l%%[!$T\\ -~]*}; l=${l#"$a"}; printf '%s\\001%o;' "$a" "'$l"; l=${l#?}
    done
    printf '%s\\n' "$l"
  done
}
while sleep 0.1 2>/dev/null || sleep 1; do
  for i in 5 6; do
    eval "n=\\$n$i y=\\$y$i"; k=0
    while [ $k -lt 16 ] && [ ${#y} -lt 65536 ]; do
      k=$((k+1)); b=
      while [ ${#b} -lt 3500 ]; do
        IFS= read -r x <&$i || { y=$y$x; k=16; break; }
        n=$((n+1)); x=$y$x; y=; b="$b$i.$n ${#x} $x $i.$n$N"
      done
      [ -n "$b" ] || break
      case $b in *[!$T$N\\ -~]*) b=$(escaped "$b")$N;; esac
      printf %s "$h$b"; h=
    done
    eval "n$i=\\$n y$i=\\$y"
  done
done
) & w=$!;; esac
"""
"""Beside the commands, for a run whose name does not begin with `-`: a process of the shell's own that reads `$o` and
`$e` as they grow, at most 56 kB of each in a tenth of a second, and never holds up what writes them. Sends `$m $r`,
then lines like `5.17 4 text 5.17`: the seventeenth of the standard output (`6`: of the error output), of 4 bytes."""

FOLLOWED = '[ -z "$w" ] || { kill -9 "$w"; wait "$w"; } 2>/dev/null\n'
"""Ends it. What it has not sent by then comes with the final text."""

_BEGINNING = re.compile(r"\nsg-[a-z0-9]+ ([0-9a-f]+)\n")
_LINE = re.compile("([56])[.]([0-9]+) ([0-9]+) ((?:[^\x01]|\x01[0-7]+;)*) \\1[.]\\2")
_ESCAPED = re.compile("\x01([0-7]+);")
_STREAMS = {"5": "stdout", "6": "stderr"}
_LONGEST = 1024 * 1024
"""Characters of the longest line that is waited for."""


def beginning(record: str) -> tuple[str, str] | None:
    """The run that this record is the first of, and what follows in it; None: it is no first one."""
    found = _BEGINNING.match(record)
    return None if found is None else (found[1], record[found.end() :])


class Lines:
    """What a step's two outputs have told so far, and what is still to be told."""

    def __init__(self, on_line: OnLine | None, secrets: Sequence[str]) -> None:
        """`on_line`: None: nobody wants them."""
        # The engine takes secrets out of what the script sends, so no part of one may be escaped or numbered there.
        self.live = on_line is not None and all(
            text.isascii() and text.isprintable() for text in secrets
        )
        """Whether lines can be sent while the step runs."""
        tell = on_line or _unheard
        self._streams = {name: _Stream(name, tell, secrets) for name in _STREAMS.values()}
        self._part = ""

    def feed(self, record: str) -> None:
        """The next record of what the script sends."""
        *lines, self._part = (self._part + record).split("\n")
        if len(self._part) > _LONGEST:
            self._part = ""
        for line in lines:
            if found := _LINE.fullmatch(line):
                self._streams[_STREAMS[found[1]]].sent(int(found[2]), int(found[3]), found[4])

    def end(self, texts: Sequence[str], lines: Sequence[int]) -> None:
        """The step has ended. `texts`: the last part of each output; `lines`: how many lines each had in all."""
        for stream, text, count in zip(self._streams.values(), texts, lines, strict=True):
            stream.end(text, count)


class _Stream:
    def __init__(self, name: str, on_line: OnLine, secrets: Sequence[str]) -> None:
        self._mask = Mask(secrets)
        self._tail = Tail(0, lambda line: on_line(name, line))
        self._told = 0

    def sent(self, number: int, size: int, text: str) -> None:
        """A line, if it is the next and whole: after a gap there is none."""
        data = _ESCAPED.sub(_byte, text).encode("latin-1", "replace")
        # The engine puts a mask where a secret was.
        if number == self._told + 1 and (len(data) == size or MASK in data):
            self._told = number
            self._tail.feed(self._mask.feed(data + b"\n"))

    def end(self, text: str, count: int) -> None:
        """Counted from the end, since the beginning may be cut off."""
        known = max(0, text.count("\n") - (count - self._told)) if self._told else 0
        *_, rest = text.split("\n", known)
        self._tail.feed(self._mask.feed(rest.encode(errors="replace")) + self._mask.close())
        self._tail.close()


def _byte(found: re.Match[str]) -> str:
    # Shells differ on whether a byte is a number below zero.
    return chr(int(found[1], 8) & 0xFF)


def _unheard(stream: str, line: str) -> None:
    """Nobody wants it."""
