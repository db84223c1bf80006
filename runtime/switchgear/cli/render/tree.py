"""A run as a tree: each task with its state, progress, agent and duration."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from switchgear.cli import words

if TYPE_CHECKING:
    from switchgear.cli.run_tree import Node, RunTree, Seen

_BAR = 12
_MESSAGE = 48
_SIGNS = {"completed": "✓", "rejected": "✗", "dead": "✗", "expired": "✗", "cancelled": "-"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def run(tree: RunTree, now: datetime) -> Tree | Text:
    """The whole run as it stands."""
    root = tree.nodes.get(tree.root)
    if root is None:
        return Text("waiting for the ledger …", style="dim")
    width = max(_depth_width(tree, root, 0), 1)
    drawn = Tree(line(root, now, width), guide_style="dim")
    _add(drawn, tree, root, now, width - 4)
    return drawn


def line(node: Node, now: datetime, width: int) -> Text:
    """One task: sign, capability, state, bar, duration, agent, message."""
    style = words.STYLE.get(node.state, "")
    took = (node.ended or now) - node.submitted
    return Text.assemble(
        (sign(node, now), style),
        " ",
        (node.capability.ljust(width), "bold"),
        "  ",
        (node.state.ljust(10), style),
        " ",
        (bar(node.fraction), style),
        " ",
        words.span(took).rjust(8),
        "  ",
        (node.agent, "dim"),
        "  " if node.agent else "",
        (
            words.one_line(node.message, _MESSAGE) if node.ended is None or not _done(node) else "",
            "",
        ),
        no_wrap=True,
        overflow="ellipsis",
    )


def sign(node: Node, now: datetime) -> str:
    """Its end, or a wheel that turns while it is open."""
    if node.ended is not None:
        return _SIGNS.get(node.state, "·")
    if node.state == "running":
        return _SPINNER[int(now.timestamp() * 10) % len(_SPINNER)]
    return "·"


def bar(fraction: float | None) -> str:
    """How much is done; blank while nobody said."""
    if fraction is None:
        return " " * _BAR
    full = round(min(max(fraction, 0.0), 1.0) * _BAR)
    return "█" * full + "░" * (_BAR - full)


def happened(seen: Seen, start: datetime) -> str:
    """One event of the run on one line, for pipes."""
    event = seen.event
    percent = "" if event.fraction is None else f"{event.fraction:.0%} "
    left = f"{words.after(start, event.time):>11}  {seen.node.capability:<14} {event.event:<16}"
    return f"{left} {event.writer:<28} {percent}{words.one_line(event.detail, 160)}".rstrip()


def _add(drawn: Tree, tree: RunTree, node: Node, now: datetime, width: int) -> None:
    for child in tree.children(node.id):
        branch = drawn.add(line(child, now, max(width, len(child.capability))))
        _add(branch, tree, child, now, width - 4)


def _depth_width(tree: RunTree, node: Node, depth: int) -> int:
    """Columns that capability names need, each level indented by four."""
    below = [_depth_width(tree, child, depth + 1) for child in tree.children(node.id)]
    return max([len(node.capability) + 4 * depth, *below])


def _done(node: Node) -> bool:
    return node.state == "completed"
