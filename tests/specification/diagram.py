"""The picture of section 7: the table of states in rawws/protocol/connection.py, to docs/understand/states.svg.

The places are chosen here; what stands there and which arrows there are is read from the table.
"""

from __future__ import annotations

from math import hypot
from typing import Final

from rawws.protocol.phases import TRANSITIONS, Phase, Step, state_of
from tests.specification.pages import FOLDER

__all__ = ["PICTURE", "draw"]

PICTURE: Final = FOLDER.parent / "states.svg"

WIDTH, HEIGHT, BOX, TALL = 1120, 480, 180, 54
PLACES: Final = {
    Phase.OPEN: (110, 240),
    Phase.CLOSE_SENT: (420, 60),
    Phase.CLOSE_RECEIVED: (420, 190),
    Phase.VIOLATED: (420, 420),
    Phase.CLOSE_DONE: (730, 125),
    Phase.FAILED: (730, 380),
    Phase.ENDED: (1010, 250),
}
LABELS: Final = {
    Step.SEND_CLOSE: "we send a Close",
    Step.RECEIVE_CLOSE: "a Close comes",
    Step.RECEIVE_VIOLATION: "a violation comes",
    Step.FAIL: "we fail it",
    Step.END: "TCP ends",
}
STYLE: Final = """
text { font: 14px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
.what { font-size: 12px; fill: #57606a }
.paper { fill: #fff; stroke: #d0d7de }
.state { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5 }
.arrow { stroke: #57606a; stroke-width: 1.5; marker-end: url(#head) }
.back { fill: #fff }
"""


def draw() -> str:
    """Return the picture."""
    # That TCP may end is said in words, where it is not the only thing that can happen.
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for phase, steps in TRANSITIONS.items():
        for step, next_phase in steps.items():
            if step != Step.END or len(steps) == 1:
                arrows.setdefault((phase, next_phase), []).append(LABELS[step])
    ends = [phase.name for phase, steps in TRANSITIONS.items() if Step.END in steps]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>The states of a connection, RFC 6455 section 7</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
            ' orient="auto">',
            '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>',
            f'<rect class="paper" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="8"/>',
            *(_arrow(*places) for places in arrows),
            *(_label(*places, labels) for places, labels in arrows.items()),
            *(_state(phase) for phase in TRANSITIONS),
            f'<text class="what" x="1010" y="320">TCP may end in {len(ends)} states at any</text>',
            '<text class="what" x="1010" y="336">time, which leads to ENDED</text>',
            "</svg>\n",
        ]
    )


def _state(phase: Phase) -> str:
    x, y = PLACES[phase]
    return (
        f'<rect class="state" x="{x - BOX / 2:g}" y="{y - TALL / 2:g}" width="{BOX}" height="{TALL}" rx="8"/>'
        f'<text x="{x}" y="{y - 3}">{phase.name}</text>'
        f'<text class="what" x="{x}" y="{y + 15}">application: {state_of(phase).name}</text>'
    )


def _ends(start: Phase, end: Phase) -> tuple[float, float, float, float]:
    """Return where the arrow leaves one box and meets the other."""
    (x1, y1), (x2, y2) = PLACES[start], PLACES[end]
    dx, dy = x2 - x1, y2 - y1
    out = min((BOX / 2) / abs(dx) if dx else 9, (TALL / 2) / abs(dy) if dy else 9)
    gap = 3 / hypot(dx, dy)
    return x1 + dx * out, y1 + dy * out, x2 - dx * (out + gap), y2 - dy * (out + gap)


def _arrow(start: Phase, end: Phase) -> str:
    x1, y1, x2, y2 = _ends(start, end)
    return f'<line class="arrow" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>'


def _label(start: Phase, end: Phase, labels: list[str]) -> str:
    x1, y1, x2, y2 = _ends(start, end)
    x, y = x1 + (x2 - x1) / 2, y1 + (y2 - y1) / 2 - 8 * (len(labels) - 1)
    return "".join(
        f'<rect class="back" x="{x - 3.3 * len(label):.0f}" y="{y - 9 + 16 * row:.0f}" width="{6.6 * len(label):.0f}"'
        f' height="17"/><text class="what" x="{x:.0f}" y="{y + 4 + 16 * row:.0f}">{label}</text>'
        for row, label in enumerate(labels)
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
