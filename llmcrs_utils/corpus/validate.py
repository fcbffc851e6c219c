"""Checks one's own dialogues, product knowledge and behaviour before anything else is done with them.

    python -m llmcrs_utils.corpus.validate FOLDER [--encoding gb18030] [--bad-records set_aside] [--report report.json]

Prints the size of the data and everything that is wrong with it. Exit code: 0 if the data are in order (notes are allowed), 1 if
they have errors, 2 if the check cannot run.
"""

import argparse
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path

from llmcrs_utils.corpus.faults import BAD_RECORDS, CorpusError, Report
from llmcrs_utils.corpus.folders import data_folder
from llmcrs_utils.corpus.schema import SPLITS, WRONG, Corpus, same_turn
from llmcrs_utils.corpus.u_need import collect_corpus
from llmcrs_utils.files.atomic import write_atomically

IN_ORDER, NOT_IN_ORDER, NOT_RUN = 0, 1, 2


def sizes_of(corpus: Corpus) -> dict:
    """Number of dialogues without errors by split and category, and numbers of utterances, items, tuples and actions."""
    dialogues = {split: dict(Counter(dialogue.domain for dialogue in corpus.dialogues[split])) for split in SPLITS}
    return {
        "dialogues": dialogues,
        "utterances": sum(len(dialogue.dialogue) for split in SPLITS for dialogue in corpus.dialogues[split]),
        "items": corpus.knowledge["item_id_encrypt"].nunique(),
        "tuples": len(corpus.knowledge),
        "actions": len(corpus.behaviour),
    }


def lacks_items(corpus: Corpus) -> str:
    """Says which recommendation has too few items to choose among (``tasks.candidates`` draws them), or ``""``."""
    every = [dialogue for split in SPLITS for dialogue in corpus.dialogues[split]]
    named = {item for dialogue in every for one in dialogue.dialogue for items in (one.rec_item_id, *one.rec_item_candidates) for item in items}
    known = len(named.union(corpus.knowledge["item_id_encrypt"]))
    for dialogue in every:
        right, previous = set(), ""
        for utterance in dialogue.dialogue:
            if not same_turn(previous, utterance.act_tag):
                right = set()  # all items of a turn are right, so none of them is a wrong candidate
            right, previous = right.union(utterance.rec_item_id), utterance.act_tag
            if right and known - len(right) < WRONG:
                return f"dialogue {dialogue.sid}, seq_no {utterance.seq_no}: {known - len(right) + 1} items to choose among, a recommendation needs {WRONG + 1}; add product knowledge of more items"
    return ""


def sizes_table(sizes: dict) -> str:
    lines = []
    for split, domains in sizes["dialogues"].items():
        parts = ", ".join(f"{domain} {count}" for domain, count in sorted(domains.items()))
        lines.append(f"{split:11}{sum(domains.values()):8} dialogues" + (f" ({parts})" if parts else ""))
    return "\n".join([*lines, *(f"{name:11}{sizes[name]:8}" for name in ("utterances", "items", "tuples", "actions"))])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.corpus.validate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="folder with the corpus in U-NEED's release format (docs/your-data.md)")
    parser.add_argument("--encoding", default="utf-8", help="encoding of all files (default: %(default)s)")
    parser.add_argument(
        "--bad-records", default="stop", choices=BAD_RECORDS, help="what a run would do with bad records (default: %(default)s)"
    )
    parser.add_argument("--set-aside", metavar="FILE", help="file for what --bad-records set_aside leaves out (default: none)")
    parser.add_argument("--report", metavar="FILE", help="write the findings as JSON")
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code
    if chosen.set_aside and chosen.bad_records == "stop":
        print("error: --set-aside FILE needs --bad-records set_aside", file=sys.stderr)
        return NOT_RUN
    try:
        folder = data_folder(chosen.folder)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_RUN
    if not folder.is_dir():
        print(f"error: {chosen.folder}: no such folder; give the one that holds the corpus", file=sys.stderr)
        return NOT_RUN
    report = Report(chosen.bad_records, chosen.set_aside)
    try:
        corpus = collect_corpus(folder, chosen.encoding, report)
        with contextlib.suppress(CorpusError):  # the summary below says the same
            report.finish()
        found, sizes = report.to_json(), sizes_of(corpus)
        if chosen.report:
            record = {"folder": chosen.folder, "encoding": chosen.encoding, "bad_records": chosen.bad_records}
            record |= {"in_order": not found["errors"], "sizes": sizes, **found}
            write_atomically(Path(chosen.report), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_RUN
    except OSError as error:
        path = Path(error.filename)
        path = path.parent if path.suffix == ".part" else path  # a file is first written under a temporary name
        print(f"error: {path}: cannot be written ({error.strerror})", file=sys.stderr)
        return NOT_RUN
    print(sizes_table(sizes))
    if lacking := lacks_items(corpus):
        print(f"note: no run is possible yet: {lacking}")
    print(report.summary())
    print("the data are in order" if not found["errors"] else "the data are not in order")
    return NOT_IN_ORDER if found["errors"] else IN_ORDER


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
