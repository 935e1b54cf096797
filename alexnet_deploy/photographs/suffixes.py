"""The suffixes by which a search knows photographs, and what of them it leaves out."""

from collections import Counter
from collections.abc import Iterable, Mapping

from alexnet_deploy.installed import has_module

RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef"),
    *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srw", ".x3f"),
)
"""Of camera raw files."""

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
PHOTO_SUFFIXES = (
    *(*_JPEG_SUFFIXES, ".png", ".apng", ".gif", ".bmp", ".dib"),
    *(".webp", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".qoi", *RAW_SUFFIXES),
)
"""Of photographs that are read whatever is installed, in upper or lower case."""

HEIF_SUFFIXES, HEIF_MODULE, HEIF_EXTRA = (".heic", ".heif", ".hif"), "pillow_heif", "photos"
_NAMED_SUFFIXES = (
    *(".psd", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".icb", ".vda", ".vst"),
    *(".heics", ".heifs", ".avifs"),
)
"""Of files that are seldom photographs, or not even pictures: read if they are named themselves."""

_UNREAD_SUFFIXES = (".jxl", ".svg", ".ico", ".exr", ".hdr", ".pfm", ".dds", ".eps", ".xcf")
"""Of pictures that nothing here reads."""


class Suffixes:
    """What a search reads and what it leaves out, with what is installed now."""

    def __init__(self) -> None:
        heif = HEIF_SUFFIXES if has_module(HEIF_MODULE) else ()
        self.read = frozenset((*PHOTO_SUFFIXES, *heif))
        every = (*HEIF_SUFFIXES, *_NAMED_SUFFIXES, *_UNREAD_SUFFIXES)
        self.left_out = frozenset(every) - self.read
        self._developed = frozenset((*_JPEG_SUFFIXES, *heif))

    def without_twins(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Split a folder's photographs in those to read, and the raw files beside their JPEGs."""
        stems = {stem for stem, suffix in map(split, names) if suffix in self._developed}
        twins = {
            name
            for name in names
            if (parts := split(name))[1] in RAW_SUFFIXES and parts[0] in stems
        }
        return [name for name in names if name not in twins], sorted(twins)


def searched_for() -> str:
    """Say what a search of folders looks for, with what is installed now."""
    read = Suffixes().read
    usual = [suffix for suffix in (*PHOTO_SUFFIXES, *HEIF_SUFFIXES) if suffix in read]
    named = " ".join(suffix for suffix in usual if suffix not in RAW_SUFFIXES)
    return f"files with the suffixes {named} and of camera raw files"


def split(name: str) -> tuple[str, str]:
    """Return a file's stem, and its suffix in lower case."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot and stem else (name, "")


def needs_extra(path: str) -> bool:
    """Return whether a photograph is left out only because an extra is not installed."""
    return split(path)[1] in HEIF_SUFFIXES


class LeftOut:
    """How many photographs a search has left out, by suffix.

    Attributes:
        counts: raw files among them lie beside their JPEGs.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, path: str) -> None:
        """Count a photograph."""
        self.counts[split(path)[1]] += 1

    def line(self) -> str:
        """Render the counts in one line, "" without any."""
        return f"left out: {describe_left_out(self.counts)}" if self.counts else ""


def describe_left_out(counts: Mapping[str, int]) -> str:
    """Render how many photographs were left out, by suffix, and what would read them."""
    others = sorted(counts.keys() - {*HEIF_SUFFIXES, *RAW_SUFFIXES, *_NAMED_SUFFIXES})
    kinds = (
        (HEIF_SUFFIXES, f" (to read them: pip install 'alexnet-deploy[{HEIF_EXTRA}]')"),
        (RAW_SUFFIXES, " beside their JPEGs"),
        (_NAMED_SUFFIXES, " (read if named themselves)"),
        (others, " (not read)"),
    )
    return "; ".join(
        _counted(counts, suffixes) + what for suffixes, what in kinds if counts.keys() & {*suffixes}
    )


def _counted(counts: Mapping[str, int], suffixes: Iterable[str]) -> str:
    return ", ".join(f"{counts[one]:,} {one}" for one in suffixes if one in counts)
