"""What a teacher writes from, and what its rows are held against: seeds, training documents, the rounds before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.config import DedupeConfig
from understudy.core.records import Document, Example, read_examples, read_records
from understudy.data.splits.decontaminate import Firewall, firewall
from understudy.data.synthesis.faithful import Faithful
from understudy.models.template import Template


@dataclass(slots=True)
class Material:
    """Everything that a round may see; nothing of held, and of dev only fingerprints.

    `earlier`: the rows of all earlier rounds. `firewall` refuses what shows a dev or held pair. `near`: how near
    duplicates are told; without it only equal prompts are. `faithful`: the judge's check, where there is one.
    """

    seeds: Sequence[Example]
    documents: Sequence[Document]
    earlier: Sequence[Example] = ()
    firewall: Firewall | None = None
    near: DedupeConfig | None = None
    faithful: Faithful | None = None
    template: Template | None = None
    """Words of the requests; without it, those of the template that ships."""
    replies: str = ""
    """Where the teacher's replies are kept, for a diagnosis."""

    @classmethod
    def read(cls, data: Path, previous: Sequence[Path], guard: Path) -> Material:
        """From the folders of the split, of each earlier round and of the fingerprints."""
        seeds = read_examples(data / "seed.jsonl")
        documents = [r for r in read_records(data / "documents.jsonl") if isinstance(r, Document)]
        earlier = [e for folder in dict.fromkeys(previous) for e in read_examples(folder / "train.jsonl")]
        return cls(seeds, documents, earlier, firewall(guard, [*seeds, *documents]))

    def words(self, role: str) -> str:
        """Digest of the template in whose words teacher or judge is asked; empty for the teacher's shipped one."""
        worded = self.template if role == "teacher" else self.faithful.template if self.faithful else None
        return worded.digest if worded else ""
