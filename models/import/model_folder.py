"""Puts a finished model folder where the server looks, in one step."""

import os
import shutil


def replace(target, part):
    """`part` becomes `target`.

    A folder cannot be put over a full one: the old one steps aside first, and no half-removed one is ever seen.
    """
    old = target + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.isdir(target):
        os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old, ignore_errors=True)
