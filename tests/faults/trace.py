"""A process's own writes and syncs, recorded by strace, and the disks that a power cut can leave.

The model is stricter than any file system: of what was written since a file's last sync, each
sector may hold its old content or any of the later ones, whatever became of the others; the file
may have any size it had since; a name that was made or removed since the folder's last sync may be
there or not. What a sync covered stays.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CANNOT = None if shutil.which("strace") else "strace is not installed"
_CALLS = (
    "openat,write,pwrite64,pwritev,writev,fdatasync,fsync,sync_file_range,ftruncate,fallocate,"
    "mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2"
)
_KNOWN = ("openat", "write", "pwrite64", "fdatasync", "fsync", "ftruncate", "mkdir", "unlink")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_HEX = re.compile(r'["<]([\\x0-9a-f]*)[">]')


class Call(NamedTuple):
    """A system call: what it did to which path, begun or ended.

    Attributes:
        name: The call's name; "synced" for the end of a sync.
        path: The file or folder.
        data: What was written.
        offset: Where, or the new length.
    """

    name: str
    path: str
    data: bytes = b""
    offset: int = 0


def record(command: Sequence[str], cwd: Path, trace: Path) -> list[Call]:
    """Run a command to its end, and return its calls in order."""
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-s",
        "10000000",
        "-e",
        f"trace={_CALLS}",
    ]
    strace += ["-e", "signal=none", "-o", str(trace)]
    subprocess.run([*strace, *command], cwd=cwd, check=True)
    return list(_parse(trace))


def _parse(trace: Path) -> Iterator[Call]:
    lines = trace.read_text(encoding="ascii").splitlines()
    failed = set(_failed(lines))
    syncing: dict[str, str] = {}
    for number, line in enumerate(lines):
        thread = line.split(" ", 1)[0]
        if "resumed>" in line[:60]:
            if thread in syncing:
                yield Call("synced", syncing.pop(thread))
            continue
        parts = _LINE.match(line)
        if parts is None or number in failed:
            continue
        call = _read(parts[2], parts[3])
        yield call
        if call.name in ("fdatasync", "fsync"):
            if "<unfinished" in line[-60:]:
                syncing[thread] = call.path
            else:
                yield Call("synced", call.path)


def _failed(lines: Sequence[str]) -> Iterator[int]:
    """Yield the lines at which calls begin that fail; another thread's may stand in between."""
    begun: dict[str, int] = {}
    for number, line in enumerate(lines):
        thread = line.split(" ", 1)[0]
        begin = begun.pop(thread, number) if "resumed>" in line[:60] else number
        if "<unfinished" in line[-60:]:
            begun[thread] = begin
        elif "= -1 E" in line[-100:]:
            yield begin


def _read(name: str, arguments: str) -> Call:
    assert name in _KNOWN, f"{name}() is not understood: {arguments[:200]}"
    texts = [bytes.fromhex(each.replace("\\x", "")) for each in _HEX.findall(arguments)]
    if name == "openat":  # the folder it is relative to, then the path
        made = "O_CREAT" in arguments
        return Call("create" if made else "open", texts[1].decode())
    path = texts[0].decode(errors="replace") if texts else ""
    if name in ("write", "pwrite64"):
        offset = re.search(r", (\d+)(?:\) +=| <unfinished)", arguments[-60:])
        assert offset is not None, arguments[-100:]
        return Call(name, path, texts[-1], int(offset[1]))
    length = re.search(r", (\d+)", arguments) if name == "ftruncate" else None
    return Call(name, path, offset=int(length[1]) if length else 0)


@dataclass(eq=False)
class _File:
    """What a file holds for certain, and what was done to it since its last sync."""

    kept: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)
    syncing: int = 0

    def sync(self) -> None:
        """Keep what was pending when the sync began."""
        for call in self.pending[: self.syncing]:
            _apply(call, self.kept)
        del self.pending[: self.syncing]
        self.syncing = 0

    def after_a_cut(self, chance: random.Random, unit: int, survival: float) -> bytes:
        """Return what a power cut may leave; each unit's last writes survive so likely."""
        now, sizes = bytearray(self.kept), [len(self.kept)]
        versions: dict[int, list[bytes]] = {}
        for call in self.pending:
            touched = _apply(call, now)
            sizes.append(len(now))
            for number in range(touched.start // unit, -(-touched.stop // unit)):
                content = bytes(now[number * unit : (number + 1) * unit])
                versions.setdefault(number, []).append(content)
        size = chance.choice([*sizes, sizes[-1], sizes[0]])
        left = bytearray(max(len(self.kept), *sizes))
        left[: len(self.kept)] = self.kept
        for number, contents in versions.items():
            if chance.random() < survival:
                content = chance.choice([contents[-1], chance.choice(contents)])
                left[number * unit : number * unit + len(content)] = content
        return bytes(left[:size])


def _apply(call: Call, content: bytearray) -> range:
    """Do to `content` what the call did; return the bytes it touched."""
    before = len(content)
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return range(min(before, call.offset), len(content))
    content.extend(bytes(max(0, call.offset - before)))
    content[call.offset : call.offset + len(call.data)] = call.data
    return range(min(before, call.offset), call.offset + len(call.data))


class Disk:
    """A folder on a disk, as the calls so far left it.

    Args:
        folder: The folder; what goes on elsewhere is not followed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        self._kept: dict[str, _File | None] = {}
        self._names: list[tuple[str, _File | None]] = []
        self._syncing = 0
        self._made = False
        self.folder_kept = True
        """Whether the folder itself would outlast a cut."""

    def concerns(self, call: Call) -> bool:
        """Tell whether a call is about the folder or anything in it."""
        return f"{call.path}/".startswith(f"{self._folder}/")

    def follow(self, call: Call) -> None:
        """Take the next call into account."""
        if call.path == self._folder:
            self._follow_folder(call)
        elif call.name == "synced" and self._folder.startswith(call.path + "/"):
            self.folder_kept = True
        elif self.concerns(call) and not call.path.endswith("-shm"):
            self._follow_file(call, call.path.removeprefix(self._folder + "/"))

    def _follow_folder(self, call: Call) -> None:
        if call.name == "mkdir" and not self._made:  # later ones find it there
            self._made, self.folder_kept = True, False
        elif call.name in ("fdatasync", "fsync"):
            self._syncing = len(self._names)
        elif call.name == "synced":
            self._kept.update(self._names[: self._syncing])
            del self._names[: self._syncing]
            self._syncing = 0

    def _follow_file(self, call: Call, name: str) -> None:
        if call.name == "create" and name not in self._files:
            self._files[name] = _File()
            self._names.append((name, self._files[name]))
        elif call.name == "unlink" and name in self._files:  # and not a pipe
            del self._files[name]
            self._names.append((name, None))
        elif call.name in ("pwrite64", "ftruncate"):
            self._files[name].pending.append(call)
        elif call.name in ("fdatasync", "fsync"):
            self._files[name].syncing = len(self._files[name].pending)
        elif call.name == "synced":
            self._files[name].sync()

    def cut_power(self, target: Path, chance: random.Random) -> None:
        """Leave in `target` one of the states that a power cut could leave now."""
        target.mkdir(parents=True)
        unit, survival = chance.choice([512, 4_096]), chance.choice([0, 0.1, 0.5, 0.9, 1])
        possible: dict[str, list[_File | None]] = {name: [it] for name, it in self._kept.items()}
        for name, file in self._names:
            possible.setdefault(name, [None]).append(file)
        for name, files in possible.items():
            file = chance.choice(files)
            if file is not None:
                (target / name).write_bytes(file.after_a_cut(chance, unit, survival))
                if chance.random() < 0.5:  # what was shared memory is anything at all
                    (target / f"{name}-shm").write_bytes(chance.randbytes(32_768))
