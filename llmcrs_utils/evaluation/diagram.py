"""Pictures drawn by code: the two directions of collaboration, with one question as the example; what a CRS and an LLM are made of."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from llmcrs_utils.evaluation.figures import LOOKS
from llmcrs_utils.evaluation.labels import figure_text

INK, GREY, HELP_COLOUR = "#333333", "#777777", "#AA7700"
ARROW = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}


class Partner(NamedTuple):
    """One of the two systems: its role, what it reads of the example, and its answers alone and with the other's help."""

    role: str
    reads: str
    alone: str
    helped: str

    @property
    def colour(self) -> str:
        return LOOKS[self.role.lower()][0]


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
    box(axes, 0, 9, 21, 14, f"Shopper:\n{said}", GREY, 0.08)
    box(axes, 26, 9, 17, 14, f"{assistant.role}\n{assistant.reads}", assistant.colour, 0)
    box(axes, 47, 12, 14, 8, assistant.alone, assistant.colour, 0.2)
    box(axes, 65, 9, 17, 14, f"{base.role}\n{base.reads},\nand the {assistant.role}'s answer", base.colour, 0)
    box(axes, 86, 12, 14, 8, base.helped, base.colour, 0.2)
    for start, end in ((21, 26), (43, 47), (61, 65), (82, 86)):
        _arrow(axes, (start, 16), (end, 16))
    axes.plot([10.5, 10.5, 73.5], [9, 2, 2], color=INK, linewidth=1)  # the base reads the dialogue, too
    _arrow(axes, (73.5, 2), (73.5, 9))
    alone, desk = (text.replace("\n", " ") for text in (base.alone, right))
    axes.text(93, 10.5, f"alone it says:\n{alone}", ha="center", va="top", fontsize=8.5, color=INK)
    axes.text(93, 1.2, f"the desk: {desk}", ha="center", va="bottom", fontsize=8.5, color="#1b7f3b")


def crs_diagram(assistant: str = "") -> Figure:
    """What UniMIND is made of (paper section 3.3), and where the help of ``assistant`` enters (section 3.5); empty: it works alone."""
    figure, axes = _canvas(3.6)
    read = "dialogue and noted needs" + (f",\n[LLM] the answer of {assistant}" if assistant else "")
    box(axes, 0, 24, 25, 10, read, HELP_COLOUR if assistant else GREY, 0.12)
    box(axes, 0, 4, 25, 10, "what the shopper clicked on", GREY, 0.08)
    box(axes, 33, 24, 17, 10, "encoder-decoder\n(BART, CPT)", LOOKS["crs"][0], 0)
    box(axes, 33, 4, 17, 10, "self-attention\nover items (SASRec)", LOOKS["crs"][0], 0)
    box(axes, 58, 4, 17, 10, "user\nrepresentation", LOOKS["crs"][0], 0)
    box(axes, 82, 24, 18, 10, "understand, elicit,\nrespond: a text", LOOKS["crs"][0], 0.2)
    box(axes, 82, 4, 18, 10, "recommend: dot product\nwith every item", LOOKS["crs"][0], 0.2)
    for start, end in (((25, 29), (33, 29)), ((25, 9), (33, 9)), ((50, 29), (82, 29)), ((50, 9), (58, 9)), ((75, 9), (82, 9)), ((50, 25), (62, 14))):
        _arrow(axes, start, end)
    if assistant:
        axes.annotate("+ the item that\nthe helper chose", (70, 14), (76, 20), ha="center", va="center", fontsize=9, color=HELP_COLOUR, arrowprops=ARROW | {"color": HELP_COLOUR})
    return figure


def llm_diagram(assistant: str = "", ranking: str = "letter", tuned: bool = True, whole: Sequence[str] = (), served: bool = False) -> Figure:
    """How an LLM is tuned and asked (paper section 3.2), and where the help of ``assistant`` enters (section 3.4); empty: it works alone.

    Args:
        ranking: how the candidates are ranked (``llm.ranking``).
        tuned: False for an LLM that is asked as it is.
        whole: layers that are trained whole, beside LoRA's matrices.
        served: True for an LLM that is asked at an address.
    """
    how = {"letter": "by the logits\nof their letters", "candidates": "by a learned score\nof each description", "likelihood": "by how likely the dialogue\nmakes each description"}[ranking]
    figure, axes = _canvas(3.6)
    box(axes, 0, 24, 25, 10, "instruction and dialogue,\ndescriptions of 20 candidates", GREY, 0.08)
    if assistant:
        box(axes, 0, 4, 25, 10, f"the answer of {assistant}", HELP_COLOUR, 0.12)
        _arrow(axes, (25, 9), (38, 24), HELP_COLOUR)
    model = "language model\nat an address" if served else f"causal language model,\n{'all other ' if tuned and whole else ''}weights frozen"
    box(axes, 38, 24, 20, 10, model, GREY, 0)
    if tuned:
        also = f";\nin full: {', '.join(whole)}" if whole else ""
        box(axes, 40, 4, 24, 10, f"trained: LoRA's two small\nmatrices in each layer{also}", LOOKS["llm"][0], 0)
        _arrow(axes, (52, 14), (52, 24))
    box(axes, 76, 24, 24, 10, "understand, elicit,\nrespond: a text", LOOKS["llm"][0], 0.2)
    box(axes, 76, 4, 24, 10, f"recommend: the candidates\n{how}", LOOKS["llm"][0], 0.2)
    for start, end in (((25, 29), (38, 29)), ((58, 29), (76, 29)), ((58, 25), (76, 12))):
        _arrow(axes, start, end)
    return figure


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.5, 100.5), ylim=(2, 36))
    axes.axis("off")
    return figure, axes


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    axes.annotate("", end, start, arrowprops=ARROW | {"color": colour})


def box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str, colour: str, tint: float) -> None:
    """A box with text in it, filled with ``tint`` (0..1) of its edge's colour."""
    shape = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=1.2", edgecolor=colour, facecolor=to_rgba(colour, tint), linewidth=1.4)
    axes.add_patch(shape)
    axes.text(left + width / 2, bottom + height / 2, figure_text(text), ha="center", va="center", fontsize=9.5, color=INK)
