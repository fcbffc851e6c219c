"""The picture of the two directions of collaboration, with one question of the reference study as the example."""

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from llmcrs_utils.evaluation.figures import ALONE_COLOURS

INK = "#333333"


class Partner(NamedTuple):
    """One of the two systems: its role, what it reads of the example, and its answers alone and with the other's help."""

    role: str
    reads: str
    alone: str
    helped: str

    @property
    def colour(self) -> str:
        return ALONE_COLOURS["bcrs" if self.role == "CRS" else "allm"]


def two_directions(said: str, right: str, crs: Partner, llm: Partner, counts: list[str]) -> Figure:
    """Two rows, "a CRS helps an LLM" and "an LLM helps a CRS": what was said, the assistant's answer, the system that reads both, its answer.

    Args:
        said: what the shopper said.
        right: what the desk answered.
        crs, llm: the two systems and their answers.
        counts: for each row how often help corrects and spoils an answer.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    draw_direction(upper, f"A CRS helps an LLM: {counts[0]}", said, right, assistant=crs, base=llm)
    draw_direction(lower, f"An LLM helps a CRS: {counts[1]}", said, right, assistant=llm, base=crs)
    return figure


def draw_direction(axes: Axes, title: str, said: str, right: str, assistant: Partner, base: Partner) -> None:
    axes.set(xlim=(-0.5, 100.5), ylim=(0, 25))
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK)
    box(axes, 0, 9, 21, 14, f"Shopper:\n{said}", "#777777", 0.08)
    box(axes, 26, 9, 17, 14, f"{assistant.role}\n{assistant.reads}", assistant.colour, 0)
    box(axes, 47, 12, 14, 8, assistant.alone, assistant.colour, 0.2)
    box(axes, 65, 9, 17, 14, f"{base.role}\n{base.reads},\nand the {assistant.role}'s answer", base.colour, 0)
    box(axes, 86, 12, 14, 8, base.helped, base.colour, 0.2)
    arrow = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
    for start, end in ((21, 26), (43, 47), (61, 65), (82, 86)):
        axes.annotate("", (end, 16), (start, 16), arrowprops=arrow)
    axes.plot([10.5, 10.5, 73.5], [9, 2, 2], color=INK, linewidth=1)  # the base reads the dialogue, too
    axes.annotate("", (73.5, 9), (73.5, 2), arrowprops=arrow)
    alone, desk = (text.replace("\n", " ") for text in (base.alone, right))
    axes.text(93, 10.5, f"alone it says:\n{alone}", ha="center", va="top", fontsize=8.5, color=INK)
    axes.text(93, 1.2, f"the desk: {desk}", ha="center", va="bottom", fontsize=8.5, color="#1b7f3b")


def box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str, colour: str, tint: float) -> None:
    """A box with text in it, filled with ``tint`` (0..1) of its edge's colour."""
    shape = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=1.2", edgecolor=colour, facecolor=to_rgba(colour, tint), linewidth=1.4)
    axes.add_patch(shape)
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=9.5, color=INK)
