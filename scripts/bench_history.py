"""The history at size: a million records in SQLite, a hundred thousand in a real Cassandra. Used by scripts/bench."""

import json
import os
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ("newest", "oldest days", "of a model", "of a rare label", "of a model, label and day")


def fill(binaries, kind, place, count):
    done = subprocess.run([os.path.join(binaries, "examples", "fill"), kind, place, str(count)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_cassandra(binaries, count):
    with tempfile.TemporaryDirectory() as folder:
        port = 17042
        script = os.path.join(ROOT, "scripts", "cassandra")
        subprocess.run([script, "start", folder, str(port)], check=True)
        try:
            return fill(binaries, "cassandra", f"127.0.0.1:{port}", count)
        finally:
            subprocess.run([script, "stop", folder], check=True)


def in_sqlite(binaries, count):
    with tempfile.TemporaryDirectory() as folder:
        got = fill(binaries, "sqlite", folder, count)
        got["megabytes"] = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)) >> 20
        return got


def row(name, got):
    memory = got["memory_mb"]
    size = f"{got['megabytes']} MB" if "megabytes" in got else "-"
    cells = [name, f"{got['records']:,}", f"{got['per_second']:,.0f}", size, *(f"{got['pages'][page]:.2f}" for page in PAGES),
             f"{memory[1]} to {max(memory[1:])}"]
    return "| " + " | ".join(cells) + " |"


def section(binaries, quick):
    """The text of the section, its heading first."""
    few = 10 if quick else 1
    rows = [row("SQLite", in_sqlite(binaries, 1_000_000 // few)), row("Cassandra 5.0, one node", in_cassandra(binaries, 100_000 // few))]
    head = ["store", "records", "put, a second", "on disk", *(f"page: {page}, ms" for page in PAGES), "memory, MB"]
    return "\n".join([
        "## The history at size",
        "Records of about 900 bytes without pictures, spread over 30 days, put in groups of 64 as the gateway's delivery does; SQLite syncs "
        "each group, Cassandra its log. Pages of 24, the median of eleven. Memory is the filling process's own, from the first tenth of the "
        "records to the end; the gateway is not part of this, nor is Cassandra's memory (512 MB of heap).\n",
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *rows,
    ]) + "\n"
