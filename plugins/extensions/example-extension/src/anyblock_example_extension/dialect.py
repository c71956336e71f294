"""A configuration dialect: run files that say `teacher` and `student` where AnyBlock says `model` and `output`."""

from __future__ import annotations

from typing import ClassVar, Final

from anyblock.contract.config_dialect import ConfigDialect, DialectTools
from anyblock.contract.config_tree import Tree

WORDS: Final = {"teacher": "model", "student": "output"}


class TeacherStudent(ConfigDialect):
    """The vocabulary of distillation; everything below the top level is AnyBlock's own."""

    summary: ClassVar[str] = "run files that say teacher and student"

    def matches(self, tree: Tree, tools: DialectTools) -> bool:
        """See `ConfigDialect.matches`."""
        return bool(WORDS.keys() & tree.data.keys())

    def translate(self, tree: Tree, tools: DialectTools) -> Tree:
        """See `ConfigDialect.translate`: keys are renamed, and keep the lines where they were written."""
        data = {WORDS.get(key, key): value for key, value in tree.data.items()}
        origins = {(WORDS.get(str(path[0]), path[0]), *path[1:]): place for path, place in tree.origins.items()}
        return Tree(data, origins)
