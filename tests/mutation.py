#!/usr/bin/env python3
"""Mutation testing: changes the program in one place after the other; a test must fail for each.

usage: tests/mutation.py [--sample N] [--seed N] [--area NAME]... [--only TEXT]... [--list] [--no-baseline] [--near]

cargo-mutants (`cargo install cargo-mutants --locked`) says what can be changed; `--sample` are tried of each area of
`AREAS`, chosen by `--seed`. `--only` tries those whose name contains the text instead. Works on a copy in
target/mutation, with one build at a time. First come the unit tests, then the integration tests that know the area,
then all the others, until one fails. That one is run again alone: only what fails then, too, counts. Before all this
they must pass without a change, unless `--no-baseline` says that they do. `--near` leaves out the third, which takes
minutes for each mutant that survives. Status 1 if one survives.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# What is changed, and which integration tests are likely to notice.
AREAS = {
    "codec": (
        ["src/wire.rs", "src/wire/**/*.rs", "src/net/framed.rs"],
        ["frames::", "framed_public::", "private_frames::", "proxies::", "agent::", "model::"],
    ),
    "tls": (
        ["src/net/tls.rs", "src/net/server_tls.rs", "src/net/pump/records.rs"],
        ["tls_records::", "truncation::", "mutual_tls::", "public::", "reload::", "model::"],
    ),
    "pump": (
        ["src/net/pump.rs", "src/net/pump/plain.rs", "src/net/buffers.rs"],
        ["public::", "bulk::", "truncation::", "framed_public::", "model::"],
    ),
    "session": (
        ["src/net/session.rs", "src/relay/sessions.rs"],
        ["private_frames::", "log_lines::", "public::", "truncation::", "leftovers::", "mapping_options::", "model::"],
    ),
    "eviction": (
        ["src/relay/eviction.rs", "src/fairness.rs"],
        ["fairness::", "monitoring::", "strangers::", "abuse::", "broker::", "hostile::"],
    ),
    "store": (
        ["src/store.rs", "src/store/*.rs"],
        ["durability::", "crashes::", "state::", "api::", "lifecycle::"],
    ),
}
# Shorter than in `cargo test`, and the same each time.
SHORT = {"FUZZ_ROUNDS": "300", "MODEL_SEQUENCES": "24", "RUST_TEST_THREADS": "6"}
# A test that is heard nothing of for so long hangs, seconds.
SILENCE = 120
# What a process of a mutant may have, bytes: some allocate without end.
MEMORY = 8 << 30
QUIET = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_TEST_DEBUG": "0", "CARGO_TERM_QUIET": "true"}

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutation"
SOURCE = WORK / "source"
TARGET = WORK / "target"


def copy_the_source():
    """Files that are as they were keep their time, so that cargo does not build them again."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wanted = [name for name in names.split("\0") if (ROOT / name).is_file()]
    for name in wanted:
        to, content = SOURCE / name, (ROOT / name).read_bytes()
        if not to.is_file() or to.read_bytes() != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to)
            shutil.copymode(ROOT / name, to)
    for left in SOURCE.rglob("*"):
        if left.is_file() and str(left.relative_to(SOURCE)) not in wanted:
            left.unlink()


def mutants(area):
    words = [word for file in AREAS[area][0] for word in ("--file", file)]
    command = ["cargo", "mutants", "--list", "--json", "--diff", *words]
    found = json.loads(subprocess.run(command, cwd=SOURCE, check=True, capture_output=True, text=True).stdout)
    return [mutant | {"area": area} for mutant in found]


def build(*words):
    """The programs that cargo has made, by name; None if it does not compile."""
    command = ["cargo", *words, "--locked", "--message-format=json"]
    env = os.environ | QUIET | {"CARGO_TARGET_DIR": str(TARGET)}
    done = subprocess.run(command, cwd=SOURCE, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        return None
    made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {it["target"]["name"]: it["executable"] for it in made if it.get("executable")}


def clean_up(child):
    """Nothing that a test has started stays, not even daemons in a process group of their own."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
    for process in pathlib.Path("/proc").iterdir():
        try:
            if process.name.isdigit() and os.readlink(process / "exe").startswith(str(TARGET)):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass


def outcomes(child):
    """Lines of the test program as they come; ends with None if nothing comes any more."""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        rest = b""
        while selector.select(SILENCE):
            piece = os.read(child.stdout.fileno(), 65536)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
    yield None


def first_failure(program, words):
    """The name of the test that fails first, "hangs", "crashes", or None."""
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        # Some tests are about other users, who have to reach their files.
        os.chmod(folder, 0o755)
        env = os.environ | SHORT | {"TMPDIR": folder, "FUZZ_SEED": "1", "CARGO_MANIFEST_DIR": str(SOURCE)}
        child = subprocess.Popen(
            [program, *words],
            cwd=SOURCE,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )
        try:
            for line in outcomes(child):
                if line is None:
                    return "hangs"
                if line.startswith("test ") and line.endswith("FAILED"):
                    return line.removeprefix("test ").rsplit(" ... ", 1)[0].split(" - ")[0]
            return None if child.wait() == 0 else "crashes"
        finally:
            clean_up(child)


def killer(program, words):
    """The test that fails, in company and alone; one that fails in company only is left out from then on."""
    skipped = []
    while (name := first_failure(program, [*words, *skipped])) is not None:
        if name in ("hangs", "crashes") or first_failure(program, ["--exact", name]) is not None:
            return name
        skipped += ["--skip", name]
    return None


def rounds(programs, near, only_near):
    """Unit tests, the integration tests that are likely to notice, the others."""
    yield programs["iofog_connector"], []
    yield programs["connector"], near
    if not only_near:
        yield programs["connector"], [word for name in near for word in ("--skip", name)]


def try_one(mutant, connector, only_near):
    file = SOURCE / mutant["file"]
    before = file.read_bytes()
    try:
        patch = ["patch", "--silent", "--no-backup-if-mismatch", str(file)]
        subprocess.run(patch, input=mutant["diff"], check=True, text=True, stdout=subprocess.DEVNULL)
        unit = build("test", "--lib", "--no-run")
        if unit is None:
            return "unviable"
        # The integration tests use the daemon's program alone: theirs need not be built again.
        near = AREAS[mutant["area"]][1]
        for number, (program, words) in enumerate(rounds(unit | connector, near, only_near)):
            if number == 1 and build("build", "--bin", "iofog-connector") is None:
                return "unviable"
            name = killer(program, words)
            if name is not None:
                return f"killed by {name}"
        return "SURVIVED"
    finally:
        file.write_bytes(before)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--area", action="append", choices=AREAS)
    parser.add_argument("--only", action="append")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--near", action="store_true")
    options = parser.parse_args()
    copy_the_source()
    chosen, count = [], 0
    for area in options.area or AREAS:
        there = mutants(area)
        count += len(there)
        if options.only:
            chosen += [mutant for mutant in there if any(text in mutant["name"] for text in options.only)]
        else:
            chosen += random.Random(f"{options.seed} {area}").sample(there, min(options.sample, len(there)))
    # One area after the other, so that a run that is ended early has tried something of each.
    random.Random(options.seed).shuffle(chosen)
    print(f"{count} mutants in all, {len(chosen)} of them with seed {options.seed}", flush=True)
    if options.list:
        print(*(mutant["name"] for mutant in chosen), sep="\n")
        return 0
    programs = build("test", "--lib", "--test", "connector", "--no-run")
    if programs is None:
        sys.exit("it does not compile as it is")
    connector = {"connector": programs["connector"]}
    for program in [] if options.no_baseline else ["iofog_connector", "connector"]:
        if (name := killer(programs[program], [])) is not None:
            sys.exit(f"{name} fails as it is")
    tally = {}
    for mutant in chosen:
        begin = time.monotonic()
        result = try_one(mutant, connector, options.near)
        kind = result.split()[0]
        tally[mutant["area"], kind] = tally.get((mutant["area"], kind), 0) + 1
        print(f"{mutant['area']}: {mutant['name']}: {result} ({time.monotonic() - begin:.0f} s)", flush=True)
    for (area, kind), number in sorted(tally.items()):
        print(f"{area}: {number} {kind}")
    return 1 if any(kind == "SURVIVED" for _, kind in tally) else 0


if __name__ == "__main__":
    sys.exit(main())
