"""What a figure's title claims, counted in the table that the figure draws, so that it holds for any corpus.

Rows in which somebody has collapsed (``collapsed`` names them) are never counted.
"""

import pandas as pd

ALL_COLLAPSED = "In every case one of the systems has collapsed"


def span(values: pd.Series, style: str = ".0%") -> str:
    """The smallest and the largest value; one of them where they look alike."""
    least, most = format(values.min(), style), format(values.max(), style)
    return least if least == most else f"{least} to {most}"


def counted(table: pd.DataFrame, holds: pd.Series, text: str) -> str:
    """``text`` and in how many of the sound rows it ``holds``."""
    sound = table["collapsed"] == ""
    return f"{text} in {(holds & sound).sum()} of {sound.sum()} cases" if sound.any() else ALL_COLLAPSED


def significant(table: pd.DataFrame) -> tuple[int, int, int]:
    """How many rows are tested (``p (Holm)`` is a number), and of these how many gains are significantly above and below zero."""
    held = table["p (Holm)"] < 0.05
    return table["p (Holm)"].notna().sum(), (held & (table["gain"] > 0)).sum(), (held & (table["gain"] < 0)).sum()


def changes(table: pd.DataFrame, what: str) -> str:
    """How many gains and losses are significant.

    Args:
        table: ``gain, p (Holm)``, the latter NaN where nothing is tested.
        what: what each row is a change of, in the plural.
    """
    tested, up, down = significant(table)
    if not tested:
        return f"None of the changes of {len(table)} {what} by help can be tested"
    if not up + down:
        return f"Help changes none of {tested} {what} significantly"
    return f"Of {tested} {what}, help raises {up} and lowers {down} significantly"


def towards_the_helper(table: pd.DataFrame) -> str:
    """``complementarity.pull``: how many changes are significant or, if none is tested, how many intervals exclude zero."""
    tested = table[table["p (Holm)"].notna()]
    if len(tested):
        held = tested[tested["holds"]]
        said = f"Help changes {len(held)} of {len(tested)} scores significantly"
        if held.empty:
            return said
        towards, past = held["towards"].sum(), (held["towards"] & ((held["helped"] - held["helper"]) * held["gain"] > 0)).sum()
        every = {1: "1", 2: "both"}.get(len(held), "all")
        return f"{said}; {every if towards == len(held) else towards} towards the helper's score" + (f", {past} past it" if past else "")
    clear, sound = table[table["clear"]], (table["collapsed"] == "").sum()
    if clear.empty:
        return f"For none of {sound} changes by help the uncorrected 95% interval excludes zero"
    towards = clear["towards"].sum()
    which = f"all {len(clear)} go" if towards == len(clear) > 1 else f"{towards} {'goes' if towards == 1 else 'go'}"
    return f"For {len(clear)} of {sound} changes by help the uncorrected 95% interval excludes zero; {which} towards the helper's score"


def by_the_lead(table: pd.DataFrame) -> str:
    """``complementarity.pull``, with ``lead``: how much better the helper alone is than the helped system alone."""
    ahead, behind = table[table["lead"] > 0], table[table["lead"] < 0]
    return (
        f"Where the helper is ahead, help raises {(ahead['gain'] > 0).sum()} of {len(ahead)} scores; "
        f"where it is behind, it lowers {(behind['gain'] < 0).sum()} of {len(behind)} (not tested)"
    )


def by_size(table: pd.DataFrame) -> str:
    """``figures.dialogues_curve``'s table: in how many tasks each system that was trained on several sizes scores higher with the most dialogues than with the fewest."""
    scores = table.drop_duplicates(["system", "task", "dialogues"]).sort_values("dialogues")
    said = []
    for name, part in scores.groupby("system", sort=False):
        ends, sizes = part.groupby("task")["ours"].agg(["first", "last"]), part["dialogues"]
        if sizes.nunique() > 1:
            said.append(f"{name} scores higher in {(ends['last'] > ends['first']).sum()} of {len(ends)} tasks with {sizes.max():,} than with {sizes.min():,} dialogues")
    return f"{'; '.join(said)} (not tested)" if said else "Every system has one size"


def only_one_is_right(table: pd.DataFrame) -> str:
    """``complementarity.outcomes``."""
    sound = table[(table["collapsed"] == "") & table["outcome"].str.startswith("only")]
    if sound.empty:
        return ALL_COLLAPSED
    return f"Only one of the two is right in {span(sound.groupby(['crs', 'llm', 'task'])['share'].sum())} of the questions"


def headroom_left(table: pd.DataFrame) -> str:
    """``complementarity.headroom``."""
    rooms = table[table["headroom"] > 0]
    return counted(rooms, rooms["realised"] < 0.5, "Collaborations use less than half of their headroom, or lose,") if len(rooms) else "There is no headroom"


def following_the_helper(table: pd.DataFrame) -> str:
    """``complementarity.following``."""
    return counted(table, table["moved"] > 0, "With help, agreement with the helper rises")


def following_the_training(table: pd.DataFrame) -> str:
    """``cross_fitting.reliance``, of several studies."""
    together = table["lead"].corr(table["moved"], method="spearman")
    if pd.isna(together):
        return "Too few cases to say whether an LLM follows help that was better in training"
    return f"The further the help in training is ahead, the {'more' if together > 0 else 'less'} an LLM follows it: rank correlation {together:.2f} ({len(table)} cases, not tested)"


def corrected_and_spoiled(table: pd.DataFrame) -> str:
    """``complementarity.help_and_harm``."""
    return counted(table, table["help"] > table["harm"], "Help corrects more answers than it spoils")


def categories_raised(table: pd.DataFrame) -> str:
    """``categories.category_levels``."""
    return f"Help raises the score in {(table['helped'] > table['alone']).sum()} of {len(table)} combinations of direction, task and category (not tested)"


def cross_fitting_changes(table: pd.DataFrame) -> str:
    """``cross_fitting.both_gains``."""
    tested, up, down = significant(table.assign(**{"gain": table["change"], "p (Holm)": table["change p (Holm)"]}))
    if tested:
        return f"Cross-fitted instead of in-sample help: {up} of {tested} scores significantly higher, {down} lower"
    return counted(table, table["change"] < 0, "A collaboration scores lower with cross-fitted than with in-sample help")


def controls_suffice(table: pd.DataFrame) -> str:
    """``controls.over_the_best_control``."""
    tested, up, down = significant(table)
    if tested:
        return f"Of {tested} comparisons with the best control, collaborations are significantly better in {up} and worse in {down}"
    known = table[table["sound"]]
    if known.empty:
        return ALL_COLLAPSED
    return f"A collaboration scores higher than the best control in {(known['gain'] > 0).sum()} of {len(known)} cases (not tested)"


def attention_to_help(table: pd.DataFrame) -> str:
    """The means over tasks and layers of ``analysis_figures.attention_figure``'s table."""
    shares = table.groupby("help")["share"].mean()
    return "Attention to the help: " + ", ".join(f"{share:.0%} when trained with {kind} help" for kind, share in shares.sort_index(ascending=False).items())
