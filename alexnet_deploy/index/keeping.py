"""Keep the vectors of an index compressed, or not, as its user and its size want it."""

from collections.abc import Callable
from pathlib import Path

from alexnet_deploy.choices import ANNS, CODE_BITS, Ann
from alexnet_deploy.errors import ArgumentError
from alexnet_deploy.index.binary_codes import BinaryCoder, check_bits
from alexnet_deploy.index.compressed_files import remove_compressed
from alexnet_deploy.index.compressed_record import record_stamp
from alexnet_deploy.index.plan import Plan, plan
from alexnet_deploy.index.storage import Storage
from alexnet_deploy.installed import has_module
from alexnet_deploy.photographs.pipeline import default_threads


class Keeper:
    """Plans before a run how its index will be searched, and does it afterwards.

    Raises an `IncompatibleFileError` if the coder is of another vector space, or is none.

    Args:
        index: open for writing.
        ann: "auto" as it is, and where comparing all would take long; "compressed"; with binary
            codes as well, their bits, one of `CODE_BITS`, or the file of a coder that makes them;
            or "exact", to take all that back.
        threads: that compress and search; None for all cores.
        notify: called with lines for a person.
    """

    def __init__(
        self,
        index: Storage,
        ann: Ann | int | Path,
        threads: int | None,
        notify: Callable[[str], None],
    ) -> None:
        self._index = index
        self._ann = ann
        self._threads = threads or default_threads()
        self._notify = notify
        self._plan: Plan | None = None
        self._codes: int | BinaryCoder | None = None
        if isinstance(ann, Path):
            from alexnet_deploy.index.coder import open_coder  # for which onnx is loaded

            self._codes = open_coder(ann, index.manifest.space)
        elif ann != "auto":
            self._codes = ann if isinstance(ann, int) else 0

    def plan(self, num_later: int) -> None:
        """Decide, for so many more vectors at most, and say what it will take.

        Raises:
            UsageError: they are too few for the codes.
        """
        sql = "SELECT count(*) FROM photographs WHERE position IS NOT NULL"
        (num_vectors,) = self._index.ledger.one(sql)
        dimension = self._index.manifest.space.dimension
        if isinstance(self._codes, int) and self._codes:
            (num_there,) = self._index.ledger.one("SELECT count(*) FROM vectors")
            check_bits(self._codes, num_there + num_later, dimension)
        self._plan = plan(num_vectors + num_later, dimension, self._ann, self._threads)
        if self._plan.is_compressed and record_stamp(self._index.directory) is None:
            self._notify(self._plan.line())

    def carry_out(self, *, repair: bool) -> None:
        """Bring the compressed vectors up to date, or remove them, or what a killed run left.

        Args:
            repair: check them first, and make them again where they are not those of the index.
        """
        directory = self._index.directory
        is_wanted = self._plan is not None and self._plan.is_compressed
        if self._ann == "exact" or not (is_wanted or record_stamp(directory) is not None):
            remove_compressed(directory)
            return
        if self._ann == "auto" and not has_module("faiss"):
            self._notify("without FAISS the vectors are not compressed: pip install faiss-cpu")
            return
        # FAISS is loaded for it, and most runs do without.
        from alexnet_deploy.index.compressing import compress

        compress(
            self._index,
            codes=self._codes,
            check=repair,
            threads=self._threads,
            notify=self._notify,
        )


def check_ann(ann: object) -> None:
    """Refuse what says nothing of how vectors are kept.

    Raises:
        ArgumentError: it is neither a word nor a number of bits nor a `Path`.
    """
    if isinstance(ann, bool) or not (isinstance(ann, Path) or ann in (*ANNS, *CODE_BITS)):
        expected = ", ".join(map(str, (*ANNS, *CODE_BITS)))
        raise ArgumentError("ann", ann, f"one of {expected}, or the Path of a coder")
