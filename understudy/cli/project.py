"""Commands on a project: make, check, plan, run, look, tidy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.app import AllowSecrets, AsOf, Json, RunId, app, open_project
from understudy.errors import ConfigError, RemoteError, UnderstudyError


@app.command()
def init(name: Annotated[str, typer.Argument(help="Project name, also the folder that is made.")]) -> None:
    """Make a folder with a commented starter understudy.yaml."""
    from understudy.configfile import starter
    from understudy.core.artifact import write_synced

    folder = Path(name)
    file = folder / "understudy.yaml"
    if file.exists():
        raise ConfigError("CFG_EXISTS", file, "is there already", "edit it, or choose another name")
    text = starter(folder.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    write_synced(file, text)
    _ignore(folder / ".gitignore")
    typer.echo(f"wrote {file}; put your data under {folder}/data and edit the file, then: understudy run -C {name}")


def _ignore(file: Path) -> None:
    """Have git pass over what the project writes; lines that are there stay."""
    from understudy.config import OWN_FOLDERS

    before = file.read_bytes() if file.is_file() else b""
    missing = [line for line in (f"{name}/".encode() for name in OWN_FOLDERS) if line not in before.splitlines()]
    if missing:
        joint = b"\n" if before and not before.endswith(b"\n") else b""
        with open(file, "ab") as f:  # a full disk takes nothing from what is there
            f.write(joint + b"\n".join(missing) + b"\n")


@app.command()
def prompts() -> None:
    """Copy the prompt templates into prompts/, to edit them."""
    from understudy.promptfiles import write

    project = open_project()
    lines = []
    for file, setting, fresh in write(project.root):
        name = file.relative_to(project.root).as_posix()
        typer.echo(f"wrote {name}" if fresh else f"{name} is there already; left as it is")
        lines.append(f"{setting}: {name}")
    typer.echo("each is used once understudy.yaml names it:\n  " + "\n  ".join(lines))


@app.command()
def check(allow_secrets: AllowSecrets = False) -> None:
    """Look for everything a run needs; nothing runs."""
    from understudy.preflight import outlook, warnings

    project = open_project(allow_secrets)
    for line in warnings(project):
        typer.echo(f"warning: {line}", err=True)
    for line in outlook(project):
        typer.echo(line)
    cfg = project.config
    counted = f"{len(cfg.sources)} source" + ("s" if len(cfg.sources) > 1 else "")
    typer.echo(f"ok: {cfg.name}, {counted}, {'a' if cfg.coverage else 'no'} coverage set")


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="config (understudy.yaml) or show (understudy show --json).")] = "config",
) -> None:
    """Print a JSON Schema."""
    if what == "config":
        from understudy.configfile import schema as build

        value = build()
    elif what == "show":
        from understudy.summary import Summary

        value = Summary.model_json_schema()
    else:
        raise ConfigError("USAGE", what, "no such schema", "config or show")
    typer.echo(json.dumps(value, indent=2))


@app.command()
def run(
    new: Annotated[bool, typer.Option("--new", help="Bind afresh: a new run even if nothing changed.")] = False,
    control: Annotated[
        str | None,
        typer.Option(
            help="Run a negative control, such as shuffled_answers; its gate must fail. A wrong name lists all."
        ),
    ] = None,
    mitigate: Annotated[
        bool,
        typer.Option("--mitigate", help="Add a round on counterfactually augmented rows; its model is the candidate."),
    ] = False,
    as_of: AsOf = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    allow_secrets: AllowSecrets = False,
) -> None:
    """Run the whole life cycle; finished steps are reused. Exit 7 when the gate says no."""
    from understudy.preflight import refuse, refuse_full
    from understudy.project import require_passed
    from understudy.summary import verdict_of
    from understudy.terminal import RunWatcher, print_summary

    project = open_project(allow_secrets)
    refuse(project)
    try:
        with project.locked():
            current, built, fresh = project.open_run(new=new, control=control, mitigate=mitigate, as_of=as_of)
            _note_changed(project, current, fresh)
            refuse_full(project, built)
            with RunWatcher(quiet) as watcher, _announced(watcher, project, current) as announcer:
                outcomes = project.execute(current, built, announcer)
    finally:
        _note_edited(project)
    if watcher.cached == len(outcomes):
        typer.echo(f"nothing to do: all {len(outcomes)} steps of {current.id} are there (see: understudy show)")
    else:
        print_summary(project.summary(current))
        _mirror(project, current)
        announcer.results(current.read("status.json").get("version"))
        _note_waiting(announcer)
    require_passed(verdict_of([o.artifact for o in outcomes]), current.id)


@contextmanager
def _announced(watcher: Any, project: Any, run: Any) -> Iterator[Any]:
    """The watcher that tells people; what stops the run is told too."""
    from understudy.announce import Announcer

    announcer = Announcer(watcher, project, run)
    try:
        yield announcer
    except Exception as e:
        announcer.failed(e.line() if isinstance(e, UnderstudyError) else f"{type(e).__name__}: {e}")
        _note_waiting(announcer)
        raise


def _note_waiting(announcer: Any) -> None:
    if announcer.last and announcer.last.waiting:
        why = "; ".join(announcer.last.why)
        said = f"{announcer.last.waiting} messages wait ({why})"
        typer.echo(f"note: {said}; the next run sends them, or: understudy notify", err=True)


@app.command()
def notify(
    test: Annotated[bool, typer.Option("--test", help="Send every recipient a test message first.")] = False,
) -> None:
    """Send the messages that wait because a server was down."""
    from understudy.notify import Message, Outbox

    project = open_project()
    if project.config.notify is None:
        raise ConfigError("NOTIFY_UNSET", "notify", "understudy.yaml names no recipients", "add `notify: {to: [...]}`")
    outbox = Outbox(project.root / "runs" / "outbox")
    if test:
        name = project.config.name
        outbox.put(Message("test", f"{name}: test message", f"<p>{name} can reach you.</p>"), project.config.notify.to)
    done = outbox.send()
    typer.echo(f"{done.sent} sent, {done.waiting} waiting")
    if done.waiting:
        raise RemoteError("NOTIFY_WAITING", "notify", "; ".join(done.why), "messages are kept; try again later")


def _mirror(project: Any, run: Any) -> None:
    """The mirror in MLflow can be made again, so a server that is away fails no run."""
    try:
        project.mirror(run)
    except RemoteError as e:
        typer.echo(f"note: {run.id} is not in MLflow yet ({e.line()}); later: understudy track {run.id}", err=True)


@app.command()
def track(run_id: RunId = None) -> None:
    """Write a run to MLflow again; `run` does it at its end."""
    project = open_project()
    with project.locked():
        mirrored = project.mirror(project.run(run_id))
    typer.echo(f"MLflow run {mirrored}")


def _note_edited(project: Any) -> None:
    from understudy.core.records import sha256_file

    was = project.loaded.digest[:8]
    try:
        now = sha256_file(project.root / "understudy.yaml")[:8]
    except OSError:
        now = "gone"
    if now != was:
        typer.echo(f"note: understudy.yaml changed during the run ({was} > {now}); this run used {was}", err=True)


def _note_changed(project: Any, current: Any, fresh: bool) -> None:
    before = [r for r in project.runs() if r.id != current.id]
    if fresh and before:
        typer.echo(f"{current.id}: configuration, sources or base differ from {before[-1].id}, or --new", err=True)


@app.command()
def step(
    name: Annotated[str, typer.Argument(help="The step's name in the plan.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="A plan that `understudy plan --bind` wrote.")],
    store: Annotated[Path | None, typer.Option(help="Folder of the store; the project's own when left out.")] = None,
    by_name: Annotated[bool, typer.Option("--by-name", help="STORE keeps one output a step, at STORE/NAME.")] = False,
) -> None:
    """Run one step of a plan; every orchestrator calls this."""
    import understudy.stages  # noqa: F401
    from understudy.core.artifact import Release, Store
    from understudy.core.machine import probe
    from understudy.core.plan import Plan
    from understudy.core.runner import Runner
    from understudy.terminal import RunWatcher

    project = open_project()
    loaded = Plan.load(plan_file)
    wanted = loaded.step(name)
    with RunWatcher() as watcher:
        place = Store(store, by_name=by_name) if store else project.store
        probe(place.root)
        runner = Runner(project.root, place, plan_file.parent / "journal", watcher)
        watcher.started(wanted, loaded.steps.index(wanted), len(loaded.steps))
        outcome = runner.run_step(wanted)
        watcher.finished(wanted, outcome.artifact, outcome.seconds, outcome.state)
    # Only the project's own releases: another store's would be gone with it.
    own = runner.store.root.resolve() == project.store.root.resolve()
    if own and isinstance(outcome.artifact, Release) and wanted.stage == "register":
        project.publish(outcome.artifact)
    typer.echo(f"{outcome.state} {name} {outcome.artifact.content_digest[:12]}")


@app.command()
def runs(as_json: Json = False) -> None:
    """List the runs of this project."""
    rows = []
    for r in open_project().runs():
        status, bound = r.read("status.json"), r.read("bindings.json")
        rows.append(
            {
                "run": r.id,
                "bound": bound.get("at"),
                "finished": status.get("finished"),
                "control": bound.get("control"),
                "version": status.get("version"),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = row["finished"] or "not finished"
        extra = f"  control {row['control']}" if row["control"] else f"  version {row['version'] or '-'}"
        typer.echo(f"{row['run']}  {state}{extra}")


@app.command()
def show(run_id: RunId = None, as_json: Json = False) -> None:
    """Print a run's results: rounds, comparison, verdict, report."""
    from understudy.terminal import print_summary

    project = open_project()
    summary = project.summary(project.run(run_id))
    if as_json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        print_summary(summary)


@app.command()
def explain(name: Annotated[str, typer.Argument(help="A step of the last run.")]) -> None:
    """Say what a step is, was given and made, and where that lies."""
    from understudy.planning import explain_step

    for line in explain_step(open_project(), name):
        typer.echo(line)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Really remove; without it only say what would go.")] = False,
) -> None:
    """Remove artifacts that no kept run and no version needs."""
    from understudy.planning import collect_garbage

    project = open_project()
    with project.locked():
        for line in collect_garbage(project, delete=delete):
            typer.echo(line)
