"""Evidence that a third party can check: the tree, signed heads, bundles and their verifier.

Nothing here is imported by ``import tracker``.
"""
