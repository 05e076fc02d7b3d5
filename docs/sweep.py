"""Inspect every model type of the installed transformers without weights, and write docs/architectures.md.

    python docs/sweep.py -j 2                  # resumes where it stopped; about half an hour on two cores
    python docs/sweep.py bert qwen2_audio      # only these, again
    python docs/sweep.py --table-only          # write the page from the records there are

Each type runs in a process of its own, under a time limit and a memory limit: its default (or nearest valid)
configuration is built, wrapped with target_modules="all-linear" (or what PEFT allows, where it refuses that), and
goes through `tree` and `gradcheck`. Seconds are those of the inspection, without imports.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MEMORY = 8 << 30  # bytes of address space above what the imports take
ALLOWED_TARGETS = re.compile(r"A config that works: target_modules=(\[.*?\])")
EXCLUDED = re.compile(r"--exclude-modules (\S+)")


def examine(model_type: str, results: Connection) -> None:
    """Inspect one type, and send its record after each step that worked."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + (8 << 30), MEMORY + (8 << 30)))
    started = time.perf_counter()
    record = {"type": model_type, "state": "not built", "why": "", "targets": "all-linear", "linear": True}
    results.send(record)
    try:
        _inspect(model_type, record, results)
    except Exception as error:
        record["why"] = " ".join(str(error).split())
        if type(error).__name__ != "InspectionError":
            record["why"] = f"{type(error).__name__}: {record['why']}"
            record["crashed"] = True
    record["seconds"] = round(time.perf_counter() - started, 1)
    record["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    results.send(record)


def _inspect(model_type: str, record: dict, results: Connection) -> None:
    """One inspection where all goes well; where it does not, a tree of less says how far it got."""
    from peft_inspect.api import inspect
    from peft_inspect.records import InspectionError, Request

    excluded: list[str] = []

    def asked(targets: object) -> Request:
        fields = {"target_modules": targets, "exclude_modules": list(excluded)} if targets else {}
        return Request(model=f"arch:{model_type}", lora_fields=fields)

    try:
        report = inspect(asked("all-linear"), "gradcheck", verify=False)
    except InspectionError as error:
        targets = _suggested(str(error), excluded)
        if targets is None:
            record["linear"] = "has no linear layer" not in str(error)
            _how_far(asked, record, results)
            raise
        record["targets"] = targets
        _how_far(asked, record, results)
        report = inspect(asked(targets), "gradcheck", verify=False)
    _record_tree(report, record)
    rows = [row for row in report.trace.gradients if row.layer]
    record.update(
        state="gradcheck",
        towers=_towers(report.structure, set(report.trace.calls_of)),
        connected=sum(row.arrived for row in rows),
        total=len(rows),
        crashed=any(outcome.status == "crashed" for outcome in report.outcomes),
        why="; ".join(f"{outcome.code} {outcome.why}" for outcome in report.outcomes if outcome.status == "crashed"),
        findings=[_finding(finding) for finding in report.findings],
    )


def _suggested(error: str, excluded: list[str]) -> object:
    """The targets that the error says work, where it names any; a module that it says to leave out joins `excluded`."""
    if (unfit := EXCLUDED.search(error)) is not None:
        excluded.append(unfit[1])
        return "all-linear"
    suggested = ALLOWED_TARGETS.search(error)
    return None if suggested is None or "has no linear layer" in error else json.loads(suggested[1])


def _how_far(asked: Callable[[object], object], record: dict, results: Connection) -> None:
    from peft_inspect.api import inspect

    for targets in (None, record["targets"]) if record["linear"] else (None,):
        _record_tree(inspect(asked(targets), "tree"), record)
        results.send(record)


def _record_tree(report, record: dict) -> None:
    from peft_inspect.formats.tree.drawing import ModelTree

    str(ModelTree(report))
    structure = report.structure
    record.update(model=structure.base_type, state="tree" if structure.adapter_layers else "built", adapters=len(structure.adapter_layers))
    record["towers"] = _towers(structure, set())


def _towers(structure, ran: set[str]) -> dict[str, list[int]]:
    """By tower: adapter layers that ran, and all of them."""
    found: dict[str, list[int]] = {}
    for path in {layer.path for layer in structure.adapter_layers}:
        tower = found.setdefault(structure.tower_of(path), [0, 0])
        tower[0] += path in ran
        tower[1] += 1
    return dict(sorted(found.items()))


def _finding(finding) -> dict:
    source = f"{Path(finding.source.file).name}:{finding.source.line}" if finding.source else None
    return {"code": finding.code, "rule": finding.rule, "severity": str(finding.severity), "message": finding.message, "source": source}


def run_all(types: list[str], records: Path, jobs: int, limit: float) -> None:
    """One process per type; each record is on disk as soon as it is there."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch",
            "transformers",
            "peft",
            "peft_inspect.load",
            "peft_inspect.structure",
            "peft_inspect.trace",
            "peft_inspect.fixes",
            "peft_inspect.rules",
            "peft_inspect.formats.tree.drawing",
        ]
    )
    pending, running = list(types), {}
    with records.open("a", encoding="utf-8") as file:
        while pending or running:
            while pending and len(running) < jobs:
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=examine, args=(pending.pop(0), send))
                process.start()
                send.close()
                running[receive] = (process, time.monotonic() + limit, {})
            ready = wait(list(running), timeout=1)
            for receive, (process, deadline, record) in list(running.items()):
                ended = False
                try:
                    if receive in ready:
                        record.update(receive.recv())
                except EOFError:
                    ended = True
                if time.monotonic() > deadline:
                    process.kill()
                    record.update(why=f"not done after {limit:.0f} s", seconds=limit)
                    ended = True
                if ended:
                    process.join()
                    if "seconds" not in record:
                        record.update(why=f"the process ended with {process.exitcode}", crashed=True)
                    del running[receive]
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    print(f"{record['type']:36} {record['state']:10} {record.get('seconds', '')} {record['why'][:110]}", flush=True)


def read(records: Path) -> dict[str, dict]:
    """The last record of each type."""
    if not records.exists():
        return {}
    lines = (json.loads(line) for line in records.read_text(encoding="utf-8").splitlines())
    return dict(sorted({record["type"]: record for record in lines}.items()))


def _complete(record: dict) -> bool:
    return record["state"] == "gradcheck" and all(ran for ran, _ in record["towers"].values())


def page(found: dict[str, dict]) -> str:
    """The whole of docs/architectures.md."""
    import peft
    import torch
    import transformers

    versions = f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__.split('+')[0]}"
    lines = [
        "# Architectures",
        "",
        f"Every model type of {versions}: its default or nearest valid configuration at full size, without weights, every linear layer",
        "adapted. Written by `python docs/sweep.py`. Towers: adapter layers that ran of those there are, per tower. Connected: adapter",
        "parameters that the loss reaches. Seconds without imports. A type is built where a tree of the bare model was drawn.",
        "",
        f"{len(found)} of {len(list(transformers.CONFIG_MAPPING))} types have been inspected so far.",
        "",
        *_summary(list(found.values())),
        "",
        "| type | model | tree | gradcheck | towers | connected | findings | s | why not |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(record) for record in found.values() if record["state"] != "not built"),
        "",
        "## Error findings",
        "",
        "On models that nobody changed; [findings.md](findings.md) looks at some of them closely.",
        "",
        "| rule | line in transformers | types | what (of the first) |",
        "|---|---|---|---|",
        *_errors(found),
        "",
        "## Not built",
        "",
        "| type | why |",
        "|---|---|",
        *(f"| {record['type']} | {_cell(record['why'])} |" for record in found.values() if record["state"] == "not built"),
        "",
    ]
    return "\n".join(lines)


def _errors(found: dict[str, dict]) -> list[str]:
    """One row per fault, with all types that have it."""
    faults: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for record in found.values():
        for finding in record.get("findings", ()):
            if finding["severity"] == "error":
                key = finding["code"], finding["rule"], finding["source"] or ""
                faults.setdefault(key, []).append((record["type"], finding["message"]))
    return [
        f"| {code} {rule} | {source and f'`{source}`'} | {', '.join(name for name, _ in seen)} | {_cell(seen[0][1])} |"
        for (code, rule, source), seen in sorted(faults.items())
    ]


def _summary(found: list[dict]) -> list[str]:
    built = [record for record in found if record["state"] != "not built"]
    bare = [record for record in built if record["state"] == "built" and record["linear"]]
    linear = [record for record in built if record["linear"]]
    ran = [record for record in linear if record["state"] == "gradcheck"]
    multimodal = [record for record in linear if len([path for path in record.get("towers", ()) if path]) > 1]
    complete = [record for record in multimodal if all(ran for path, (ran, _) in record["towers"].items() if path)]
    errors = [record for record in ran if any(finding["severity"] == "error" for finding in record["findings"])]
    seconds = sorted(record["seconds"] for record in ran) or [0.0]
    return [
        "| figure | |",
        "|---|---|",
        f"| types that build | {len(built)} of {len(found)} |",
        f"| of these `tree` works | {_share(built, built)}; {len(bare)} only without an adapter, which PEFT refuses |",
        f"| of these with a linear layer, `gradcheck` completes | {_share(ran, linear)} |",
        f"| types with several towers, of which all run | {_share(complete, multimodal)} |",
        f"| types with an error finding | {len(errors)} |",
        f"| seconds per type, median and longest | {seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f} |",
        f"| peak memory, imports included | {max((record['peak_mb'] for record in ran), default=0)} MB |",
    ]


def _share(part: list, whole: list) -> str:
    return f"{len(part)} of {len(whole)} ({len(part) / max(len(whole), 1):.1%})"


def _row(record: dict) -> str:
    done = record["state"] == "gradcheck"
    tree = "bare" if record["state"] == "built" and record["linear"] else "yes"
    towers = ", ".join(f"{path.rpartition('model.')[2] or path} {ran}/{of}" for path, (ran, of) in record.get("towers", {}).items() if path)
    connected = f"{record['connected']}/{record['total']}" if done else ""
    findings = " ".join(sorted({finding["code"] for finding in record.get("findings", ())}))
    why = "" if done and not record.get("crashed") else record["why"]
    if isinstance(record["targets"], list):
        why = f"{why} targets: {', '.join(record['targets'])}".strip()
    cells = (
        record["type"],
        record.get("model", ""),
        tree,
        "yes" if done else "no",
        towers,
        connected,
        findings,
        record.get("seconds", ""),
        _cell(why),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _cell(text: str) -> str:
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 240 else f"{text[:239]}…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types; default: all that have no record yet")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=180, help="seconds per type")
    parser.add_argument("--records", type=Path, default=ROOT.parent / "build" / "sweep.jsonl")
    parser.add_argument("--retry", action="store_true", help="run again what did not complete or left a tower idle")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    options.records.parent.mkdir(parents=True, exist_ok=True)
    if not options.table_only:
        from transformers import CONFIG_MAPPING

        known = read(options.records)
        open_ones = [
            name for name in sorted(CONFIG_MAPPING) if name not in known or (options.retry and known[name]["state"] != "gradcheck")
        ]
        run_all(options.types or open_ones, options.records, options.jobs, options.limit)
    (ROOT / "architectures.md").write_text(page(read(options.records)), encoding="utf-8")


if __name__ == "__main__":
    main()
