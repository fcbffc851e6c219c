"""What a figure's title claims, counted in the table that the figure draws, so that it holds for any corpus."""

import pandas as pd


def span(values: pd.Series, style: str = ".0%") -> str:
    """The smallest and the largest value; one of them where they look alike."""
    least, most = format(values.min(), style), format(values.max(), style)
    return least if least == most else f"{least} to {most}"


def changes(table: pd.DataFrame, what: str) -> str:
    """How many gains and losses are significant.

    Args:
        table: ``gain, p (Holm)``, the latter NaN where nothing is tested.
        what: what each row is a change of, in the plural.
    """
    tested = table[table["p (Holm)"].notna()]
    if tested.empty:
        return f"None of the changes of {len(table)} {what} by help can be tested"
    held = tested[tested["p (Holm)"] < 0.05]
    if held.empty:
        return f"Help changes none of {len(tested)} {what} significantly"
    return f"Of {len(tested)} {what}, help raises {(held['gain'] > 0).sum()} and lowers {(held['gain'] < 0).sum()} significantly"


def towards_the_helper(table: pd.DataFrame) -> str:
    """``complementarity.pull``; rows in which a system has collapsed are not counted."""
    counted = table[table["collapsed"] == ""]
    return f"Help moves a system's score towards its helper's in {counted['towards'].sum()} of {len(counted)} cases"


def only_one_is_right(table: pd.DataFrame) -> str:
    """``complementarity.outcomes``."""
    alone = table[table["outcome"].str.startswith("only")].groupby(["crs", "llm", "task"])["share"].sum()
    return f"Only one of the two is right in {span(alone)} of the answers"


def headroom_left(table: pd.DataFrame) -> str:
    """``complementarity.headroom``."""
    rooms = table[table["headroom"] > 0]
    return f"Collaborations use less than half of their headroom in {(rooms['realised'] < 0.5).sum()} of {len(rooms)} cases"


def following_the_helper(table: pd.DataFrame) -> str:
    """``complementarity.following``."""
    return f"With help, agreement with the helper rises in {(table['moved'] > 0).sum()} of {len(table)} cases"


def corrected_and_spoiled(table: pd.DataFrame) -> str:
    """``complementarity.help_and_harm``."""
    return f"Help corrects more answers than it spoils in {(table['help'] > table['harm']).sum()} of {len(table)} cases"


def categories_raised(table: pd.DataFrame) -> str:
    """Rows with the mean scores ``alone`` and ``helped`` of a category."""
    return f"Help raises the score in {(table['helped'] > table['alone']).sum()} of {len(table)} combinations of direction, task and category"


def smaller_when_cross_fitted(table: pd.DataFrame) -> str:
    """``cross_fitting.both_gains``."""
    return f"With cross-fitted help the gain is smaller in {(table['change'] < 0).sum()} of {len(table)} cases"


def controls_suffice(table: pd.DataFrame) -> str:
    """``controls.over_the_best_control``; only its sound rows are counted."""
    known = table[table["sound"]]
    if known.empty:
        return "No collaboration can be compared with a control"
    return f"The best control, which costs no training, is at least as good as the collaboration in {(known['gain'] <= 0).sum()} of {len(known)} cases"


def attention_falls(table: pd.DataFrame) -> str:
    """The attention that goes to help, by its kind in training (``analysis_figures.attention_figure``)."""
    shares = table.groupby("help")["share"].mean()
    return f"The LLM gives {shares['in-sample']:.0%} of its attention to the help; trained with cross-fitted help, {shares['cross-fitted']:.0%}"
