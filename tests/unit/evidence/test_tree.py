"""The tree: every proof of small trees, tiles in place of digests, the frontier."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evidence.trees import Kept, defined_root, digest
from tracker.evidence.tree import TILE, Frontier, Tree, TreeError
from tracker.evidence.verifier import (
    EMPTY_ROOT,
    NotProvenError,
    is_extension,
    is_included,
    leaf_hash,
    root_of,
)

MOST = 70
ROOTS = [defined_root([digest(seq) for seq in range(1, size + 1)]) for size in range(MOST + 1)]
OTHER = bytes(31) + b"\1"


def damaged(path: list[bytes]) -> list[list[bytes]]:
    """Return the path with each hash changed, cut, one too many, and swapped."""
    changed = [[*path[:at], OTHER, *path[at + 1 :]] for at in range(len(path))]
    swapped = [path[::-1]] if path != path[::-1] else []
    return [*changed, *([path[:-1], path[1:]] if path else []), [*path, OTHER], *swapped]


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_each_leaf_of_each_small_tree_is_proved(size: int) -> None:
    """By the algorithm of RFC 9162; no damaged path is taken, nor one for another place."""
    tree, root = Tree(Kept(size), size), ROOTS[size]
    assert tree.root() == root
    for seq in range(1, size + 1):
        leaf, path = leaf_hash(digest(seq)), tree.inclusion(seq)
        assert is_included(leaf, seq - 1, size, path, root)
        assert not is_included(leaf_hash(OTHER), seq - 1, size, path, root)
        assert not is_included(leaf, seq - 1, size, path, OTHER)
        assert not any(is_included(leaf, seq - 1, size, each, root) for each in damaged(path))
        assert not any(
            is_included(leaf, at, size, path, root) for at in {-1, seq - 2, seq, size} - {seq - 1}
        )


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_each_small_tree_is_proved_to_extend_each_smaller_one(size: int) -> None:
    """By the algorithm of RFC 9162; no damaged path is taken, nor one from another tree."""
    tree, root = Tree(Kept(size), size), ROOTS[size]
    assert tree.consistency(0) == []
    assert is_extension(0, EMPTY_ROOT, size, root, [])
    assert not is_extension(0, OTHER, size, root, [])
    assert not is_extension(0, EMPTY_ROOT, size, root, [OTHER])
    for old in range(1, size + 1):
        path = tree.consistency(old)
        assert is_extension(old, ROOTS[old], size, root, path)
        assert not is_extension(old, OTHER, size, root, path)
        assert not is_extension(old, ROOTS[old], size, OTHER, path)
        assert not any(is_extension(old, ROOTS[old], size, root, each) for each in damaged(path))
        assert not is_extension(size + 1, ROOTS[old], size, root, path)


@given(st.data())
def test_the_leaves_of_some_events_and_the_cover_give_the_root(data: st.DataObject) -> None:
    """With any other leaf, another place, or a hash more or less they do not."""
    size = data.draw(st.integers(1, MOST))
    seqs = data.draw(st.sets(st.integers(1, size)))
    cover = Tree(Kept(size), size).cover(seqs)
    leaves = {seq - 1: leaf_hash(digest(seq)) for seq in seqs}
    assert root_of(size, leaves, cover) == ROOTS[size]
    for seq in seqs:
        assert root_of(size, {**leaves, seq - 1: leaf_hash(OTHER)}, cover) != ROOTS[size]
    for wrong in ([*cover, OTHER], cover[:-1]):
        if wrong != cover:
            with pytest.raises(NotProvenError):
                root_of(size, leaves, wrong)
    with pytest.raises(NotProvenError):
        root_of(size, {**leaves, size: leaf_hash(OTHER)}, cover)


def test_the_tree_without_leaves_has_the_root_that_the_rfc_says() -> None:
    """The hash of nothing, for frontier and tree alike."""
    assert Frontier().root() == Tree(Kept(0), 0).root() == EMPTY_ROOT == ROOTS[0]
    assert root_of(0, {}, []) == EMPTY_ROOT


@given(st.lists(st.integers(0, 40), max_size=4))
def test_the_frontier_grows_to_the_same_root_over_restarts(steps: list[int]) -> None:
    """Stored as bytes in between, in at most a hash for each bit of the size."""
    frontier = Frontier()
    for step in steps:
        frontier.extend(digest(frontier.size + 1 + n) for n in range(step))
        raw = frontier.to_bytes()
        assert len(raw) <= 8 + 32 * frontier.size.bit_length()
        frontier = Frontier.from_bytes(raw)
    size = sum(steps)
    assert frontier.size == size
    assert frontier.root() == defined_root([digest(seq) for seq in range(1, size + 1)])


@pytest.mark.parametrize("raw", [b"", bytes(7) + b"\1", bytes(8) + bytes(32), bytes(41)])
def test_a_frontier_that_was_damaged_is_refused(raw: bytes) -> None:
    """It has as many hashes as its size has ones."""
    with pytest.raises(TreeError, match="damaged"):
        Frontier.from_bytes(raw)


SIZE = TILE * TILE + 3 * TILE + 5
"""Leaves of a tree with tiles of both levels in place of digests."""


@pytest.fixture(scope="module")
def grown() -> tuple[Kept, bytes]:
    kept, frontier = Kept(SIZE), Frontier()
    for start in range(1, SIZE + 1, 1000):  # as rounds of an upload would
        of_this_round = [kept.of[n] for n in range(start, min(start + 1000, SIZE + 1))]
        tiles = frontier.extend(of_this_round)
        kept.tiles |= {(each.level, each.idx): each.root for each in tiles}
    return kept, frontier.root()


def test_a_full_tile_is_given_once(grown: tuple[Kept, bytes]) -> None:
    """One of level 1 for each 256 leaves, one of level 2 for each 65,536."""
    expected = {(1, idx) for idx in range(SIZE // TILE)} | {(2, 0)}
    assert grown[0].tiles.keys() == expected


def test_what_is_left_is_proved_after_whole_tiles_were_removed(grown: tuple[Kept, bytes]) -> None:
    """From the tiles, without a digest of theirs; a path has 17 hashes."""
    kept, root = grown
    removed = Kept(0)
    removed.of = {seq: each for seq, each in kept.of.items() if seq > 60_000 // TILE * TILE}
    removed.tiles = kept.tiles
    tree = Tree(removed, SIZE)
    for seq in (60_000, 65_536, 65_537, SIZE):
        path = tree.inclusion(seq)
        assert is_included(leaf_hash(kept.of[seq]), seq - 1, SIZE, path, root)
        assert len(path) <= math.ceil(math.log2(SIZE))
    old = 65_000
    frontier = Frontier()
    frontier.extend(kept.of[seq] for seq in range(1, old + 1))
    assert is_extension(old, frontier.root(), SIZE, root, tree.consistency(old))
    assert removed.read < 12 * TILE


def test_a_leaf_of_a_removed_tile_cannot_be_proved(grown: tuple[Kept, bytes]) -> None:
    """The error says which digest is missing."""
    kept, _ = grown
    gone = Kept(0)
    gone.of = {seq: each for seq, each in kept.of.items() if seq != 300}
    gone.tiles = kept.tiles
    with pytest.raises(TreeError, match="the digest of seq 300 is missing"):
        Tree(gone, SIZE).inclusion(301)


def test_what_is_not_in_the_tree_is_refused() -> None:
    """A seq beyond it, and an older tree that is larger."""
    tree = Tree(Kept(5), 5)
    for seq in (0, 6):
        with pytest.raises(TreeError, match="tree of 5 events"):
            tree.inclusion(seq)
        with pytest.raises(TreeError, match="tree of 5 events"):
            tree.cover([1, seq])
    with pytest.raises(TreeError, match="does not extend"):
        tree.consistency(6)
