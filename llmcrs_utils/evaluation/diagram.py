"""The picture of the two directions of collaboration, with one question of the reference study as the example."""

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

CRS_COLOUR, LLM_COLOUR, TEXT_COLOUR = "#CC6677", "#332288", "#333333"


class Partner(NamedTuple):
    """One of the two systems: its role, what it sees, its colour and its answer to the example."""

    role: str
    sees: str
    colour: str
    answer: str


def two_directions(shopper: str, crs: Partner, llm: Partner, helped_llm: str, helped_crs: str) -> Figure:
    """Two rows, "a CRS helps an LLM" and "an LLM helps a CRS": the dialogue, the assistant's answer, the system that reads both, its answer.

    Args:
        shopper: what the shopper said.
        crs, llm: the two systems and their answers alone.
        helped_llm, helped_crs: the answer of each with the other's help.
    """
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(11, 4.2), layout="constrained")
    draw_direction(upper, "A CRS helps an LLM", shopper, assistant=crs, base=llm, helped=helped_llm)
    draw_direction(lower, "An LLM helps a CRS", shopper, assistant=llm, base=crs, helped=helped_crs)
    return figure


def draw_direction(axes: Axes, title: str, shopper: str, assistant: Partner, base: Partner, helped: str) -> None:
    axes.set(xlim=(0, 100), ylim=(0, 25))
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=TEXT_COLOUR)
    box(axes, 0, 9, 21, 14, f"Shopper:\n{shopper}", "#777777", "#f4f4f4")
    box(axes, 27, 9, 18, 14, f"{assistant.role}\n{assistant.sees}", assistant.colour, "white")
    box(axes, 49, 12, 13, 8, assistant.answer, assistant.colour, tinted(assistant.colour))
    box(axes, 67, 9, 18, 14, f"{base.role}\n{base.sees}", base.colour, "white")
    box(axes, 89, 12, 11, 8, helped, base.colour, tinted(base.colour))
    for start, end in ((21, 27), (45, 49), (62, 67), (85, 89)):
        axes.annotate("", (end, 16), (start, 16), arrowprops={"arrowstyle": "-|>", "color": TEXT_COLOUR})
    # The base reads the dialogue, too.
    axes.plot([10.5, 10.5, 76], [9, 2, 2], color=TEXT_COLOUR, linewidth=1)
    axes.annotate("", (76, 9), (76, 2), arrowprops={"arrowstyle": "-|>", "color": TEXT_COLOUR, "shrinkA": 0})
    axes.text(55.5, 9.5, "its answer becomes\npart of the input", ha="center", va="top", fontsize=8.5, color=assistant.colour)
    axes.text(94.5, 9.5, f"alone it says:\n{base.answer}", ha="center", va="top", fontsize=8.5, color=TEXT_COLOUR)


def box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str, edge: str, face: str) -> None:
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=1.2", edgecolor=edge, facecolor=face, linewidth=1.4))
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=9.5, color=TEXT_COLOUR)


def tinted(colour: str) -> tuple[float, float, float, float]:
    """The same colour, pale enough to write on."""
    return to_rgba(colour, 0.18)
