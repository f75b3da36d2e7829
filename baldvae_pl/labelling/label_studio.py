"""Label Studio: an open question as its tasks, its annotations as rows of ``labels.csv``.

All by files here; `baldvae_pl.labelling.label_studio_oracle` does the same by HTTP. What is said
about Label Studio was seen with version 1.23. Nothing here needs torch.
"""

import argparse
import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from baldvae_pl.answer import CANNOT_TELL
from baldvae_pl.data.labels import LabelsFile, Row
from baldvae_pl.data.question_file import OpenQuestion, question_in
from baldvae_pl.data.tally import Tally
from baldvae_pl.errors import SettingError
from baldvae_pl.runs.files import replacing
from baldvae_pl.runs.folder import RunFolder

Task = dict[str, Any]

EMPTY_CONFIG = (
    '<View><Image name="image" value="$image" /><Choices name="label" toName="image" '
    'choice="single" required="true" showInLine="true" /></View>'
)
PROJECT = "--data.oracle.project"

ANNOTATOR = "labelstudio"
"""How names in the labels file begin of those who annotate there."""


def label_config(classes: Iterable[str], config: str = EMPTY_CONFIG) -> str:
    """Return a labelling setup with these classes, and those that it has already.

    Raises:
        SettingError: If it is a setup for something else than the class of an image, or has none.
    """
    view = ET.fromstring(config)
    choices = next((x for x in view.iter("Choices") if x.get("name") == "label"), None)
    if choices is None or choices.get("toName") != "image":
        raise SettingError(
            f'{PROJECT}: its labelling setup has no Choices with name="label" and toName="image". '
            "Name another project; it is made if there is none of that name."
        )
    known = [each.get("alias") or each.get("value") for each in choices.iter("Choice")]
    missing = [name for name in dict.fromkeys(classes) if name not in known]
    for number, name in enumerate(missing, start=len(known) + 1):
        hotkey = {"hotkey": str(number)} if number <= 9 else {}
        ET.SubElement(choices, "Choice", {"value": name, **hotkey})
    if not known and not missing:
        raise SettingError(
            "--data.source.classes: Label Studio has to know the classes beforehand. Name them."
        )
    return ET.tostring(view, encoding="unicode") if missing else config


def classes_of(question: OpenQuestion, labels: LabelsFile) -> list[str]:
    """Return all classes that there are by now."""
    known = Tally(question.declared, labels.rows).classes
    return [*dict.fromkeys([*question.declared, *question.classes, *known])]


def url_prefix_of(question: OpenQuestion, images: str | None = None) -> str:
    """Return what the addresses of the images begin with; left out, that of served local files."""
    if images is None:
        return f"/data/local-files/?d={quote(Path(question.root).name, errors='surrogateescape')}/"
    return images if images.endswith(("/", "=")) else f"{images}/"


def tasks_of(
    question: OpenQuestion, url_prefix: str | None = None, version: str | None = None
) -> list[Task]:
    """Return a task for each image that is asked about.

    Args:
        question: The open question.
        url_prefix: What the addresses of the images begin with; left out, see `url_prefix_of`.
        version: Of the predictions; left out, it follows from the round.

    Raises:
        SettingError: If the name of a file is no text.
    """
    prefix = url_prefix_of(question) if url_prefix is None else url_prefix
    tasks: list[Task] = []
    for asked in question.asked:
        try:
            address = prefix + quote(asked.file)
        except UnicodeEncodeError:  # one such task, and the server fails at every list and export
            raise SettingError(
                f"--data.root: Label Studio cannot take the file name {asked.file!r}, which is no "
                "Unicode. Rename it."
            ) from None
        data = {
            "image": address,
            "file": asked.file,
            "why": asked.why,
            "round": question.round,
            "rank": asked.rank,
            "bald": asked.score,
        }
        tasks.append({"data": data})
        if asked.probs:
            best = max(range(len(asked.probs)), key=asked.probs.__getitem__)
            region = {"from_name": "label", "to_name": "image", "type": "choices"}
            tasks[-1]["predictions"] = [
                {
                    "model_version": version or f"round_{question.round}",
                    # Its uncertainty sampling shows the lowest score first.
                    "score": asked.rank / len(question.asked),
                    "result": [region | {"value": {"choices": [question.classes[best]]}}],
                }
            ]
    return tasks


def read_export(text: str) -> list[Task]:
    """Return the items of an export: JSON, JSON-MIN, CSV or TSV.

    Raises:
        ValueError: If it is none of these.
    """
    items: list[Task]
    if text.lstrip().startswith(("[", "{")):
        items = json.loads(text)
        heads = (
            [x if isinstance(x, dict) else {} for x in items] if isinstance(items, list) else [{}]
        )
    else:
        header = text.split("\n", 1)[0]
        separator = next((x for x in "\t;" if x in header), ",")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        items, heads = [*table], [dict.fromkeys(table.fieldnames or [])]
    if not all({"annotations", "annotation_id", "label"} & head.keys() for head in heads):
        raise ValueError("it has neither annotations nor labels")
    return items


def rows_of(export: list[Task] | str, url_prefix: str = "") -> tuple[list[Row], list[str]]:
    """Turn an export into rows of a labels file, in the order of their times.

    Args:
        export: Items of an export, or its text.
        url_prefix: What the addresses of images begin with, where a task does not say its file.

    Returns:
        The rows, and a sentence for whatever could not be taken.

    Raises:
        ValueError: If it is no export.
    """
    rows, complaints, guessed = [], [], []
    items = read_export(export) if isinstance(export, str) else export
    for item in items:
        flat = "annotations" not in item  # then it is one annotation, or a task that has none
        data = item if flat else item.get("data") or {}
        said = item.get("annotation_id") or item.get("label")
        annotations = [item][: bool(said)] if flat else item["annotations"]
        file, sure = file_of(data, url_prefix)
        guessed += [file] * (len(annotations) if file and not sure else 0)
        if item.get("drafts") and not annotations:
            complaints.append(f"{file}: a class was chosen in Label Studio, but not submitted")
        for each in annotations:
            names, others = said_in(each, flat)
            label = unicodedata.normalize("NFC", names[0].strip()) if len(names) == 1 else ""
            begun, time = (moment(each.get(key)) for key in ("created_at", "updated_at"))
            what = f"{file or 'a task'}, annotation {each.get('annotation_id' if flat else 'id')}:"
            if each.get("was_cancelled"):
                if label and time[:19] > begun[:19]:  # who skips at once skips the guess shown
                    complaints.append(f"{what} {label!r} in what was skipped is 'cannot tell'")
                label, others = CANNOT_TELL, []
            if others:
                complaints.append(f"{what} what is no choice of a class is left out ({others[0]})")
            if not (label and file and (time or begun)):
                lacks = "time" if label and file else "name of a file" if label else "class"
                found = f"{len(names)} classes" if len(names) > 1 else f"no {lacks}"
                complaints.append(f"{what} left out, as it has {found}")
                continue
            who = annotator_of(each.get("annotator" if flat else "completed_by"))
            seconds, round = (
                "" if value is None else str(value).removesuffix(".0")  # which its CSV adds
                for value in (each.get("lead_time"), data.get("round"))
            )
            why = str(data.get("why") or "import")
            rows.append(Row(file, label, who, seconds, round, why, time or begun))
    if guessed:
        complaints.append(
            f"{len(guessed):,} answers are of tasks that do not say their file; it was taken from "
            f"the address of the image, such as {guessed[0]!r}"
        )
    if any("annotations" not in item for item in items):
        complaints.append(
            "JSON-MIN and CSV lack the tasks that were skipped, each of them a 'cannot tell'; "
            "export as JSON to have these too"
        )
    return sorted(rows, key=lambda row: row.time), complaints


def file_of(data: Task, url_prefix: str) -> tuple[str, bool]:
    """Return the file that a task is about, and whether that is sure."""
    image = str(data.get("image") or "")
    if data.get("file"):
        return str(data["file"]), True
    if url_prefix and image.startswith(url_prefix):
        return unquote(image[len(url_prefix) :]), True
    address = urlsplit(image)
    if address.scheme == "data":  # the image itself
        return "", False
    if served := parse_qs(address.query).get("d"):
        return served[0], False
    name = PurePosixPath(unquote(address.path)).name
    uploaded = "/data/upload/" in address.path  # which puts eight digits before the name
    return re.sub("^[0-9a-f]{8}-", "", name) if uploaded else name, False


def said_in(annotation: Task, flat: bool) -> tuple[list[str], list[str]]:
    """Return the classes that an annotation says, and kinds of regions that are something else."""
    if not flat:
        regions = annotation.get("result") or []
        choices = [each for each in regions if each.get("type") == "choices"]
        ours = [each for each in choices if each.get("from_name") == "label"] or choices
        names = [str(x) for each in ours for x in each.get("value", {}).get("choices", [])]
        return names, [str(each.get("type")) for each in regions if each not in ours]
    value = annotation.get("label") or []
    if isinstance(value, str) and value[0] in "[{":  # CSV holds what is not one choice as JSON
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        return [str(x) for x in value.get("choices", [])], []
    return ([], ["regions"][: len(value)]) if isinstance(value, list) else ([str(value)], [])


def annotator_of(who: Any) -> str:
    """Return the name in the labels file of one who annotates."""
    if isinstance(who, dict):  # an id is in every export, an address is not
        who = who.get("id") or who.get("email")
    return f"{ANNOTATOR}:{who}" if who else ANNOTATOR


def moment(text: Any) -> str:
    """Return a time such that times of all exports are in order and comparable; "" for none."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def import_rows(labels: LabelsFile, rows: Iterable[Row]) -> int:
    """Append the rows that are new, and return how many.

    An answer is known by its time. One that is older than what its annotator says there about the
    same file is not new either: it has been corrected since.

    Raises:
        SettingError: If they cannot be written.
    """
    try:
        with labels.lock:  # two that import at once would both add what is new
            labels.refresh()
            known = {(row.file, row.label, row.annotator, row.time) for row in labels.rows}
            last: dict[tuple[str, str], str] = {}
            new = []
            for row in labels.rows:
                who = row.file, row.annotator
                last[who] = max(last.get(who, ""), row.time)
            for row in rows:
                key = row.file, row.label, row.annotator, row.time
                if key not in known and row.time >= last.get((row.file, row.annotator), ""):
                    known.add(key)
                    new.append(row)
            labels.append(new)
    except (OSError, NotImplementedError) as error:
        raise SettingError(
            f"{labels.setting}: {labels.path} cannot be locked ({error}). Fix its folder."
        ) from error
    return len(new)


def main(arguments: list[str]) -> None:
    """Write tasks for Label Studio, or read what it exports.

    Raises:
        SettingError: If there is nothing to write, or a file cannot be read or written.
    """
    parser = argparse.ArgumentParser(
        "baldvae tasks", description="Exchange questions and answers with Label Studio by files."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a run's open question as tasks")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument(
        "--file", type=Path, default=Path("tasks.json"), help="(default: tasks.json)"
    )
    export.add_argument(
        "--images",
        metavar="PREFIX",
        help="what the addresses of the images begin with; left out, Label Studio is to serve them "
        "from the folder above theirs (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT)",
    )
    back = commands.add_parser("import", help="append the answers of an export to a labels file")
    back.add_argument("export", type=Path, metavar="EXPORT", help="JSON, JSON-MIN, CSV or TSV")
    back.add_argument("--labels", type=Path, required=True, help="the labels.csv of the images")
    given = parser.parse_args(arguments)
    if given.command == "export":
        write_tasks(given.run, given.file, given.images)
    else:
        read_answers(given.export, given.labels)


def write_tasks(run: Path, path: Path, images: str | None) -> None:
    """Write a run's open question as tasks, and the labelling setup beside it."""
    question = question_in(RunFolder(run).question)
    if question is None or not question.asked:
        raise SettingError(f"RUN: {run} asks nothing now. Name a run that waits for answers.")
    setup = path.with_name("label_config.xml")
    config = label_config(classes_of(question, LabelsFile(Path(question.labels))))
    tasks = tasks_of(question, url_prefix_of(question, images))
    with replacing(setup, "w", encoding="utf-8") as file:
        file.write(config + "\n")
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump(tasks, file, indent=1)
    print(f"{len(tasks):,} tasks are in {path}, the labelling setup for them is in {setup}.")


def read_answers(export: Path, path: Path) -> None:
    """Append the answers of an export to a labels file, and say what could not be taken."""
    if not export.is_file():
        raise SettingError(f"EXPORT: there is no file {export}. Name what Label Studio exported.")
    if not path.parent.is_dir():
        raise SettingError(f"--labels: there is no folder {path.parent} to write {path.name} to.")
    try:
        rows, complaints = rows_of(export.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:
        raise SettingError(f"EXPORT: {export} is no export of Label Studio ({error}).") from None
    new = import_rows(LabelsFile(path, "--labels"), rows)
    print(f"{new:,} of {len(rows):,} answers are new in {path}; older ones are passed over.")
    for text in complaints:
        print(f"{export}: {text}.")
    if complaints and not rows:
        raise SettingError(f"EXPORT: no answer in {export} could be taken.")
