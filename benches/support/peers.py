#!/usr/bin/env python3
"""Answers one query in one engine, for `cargo bench --bench tpch -- --peers`.

    peers.py ENGINE --path DIR --runs N --threads N --spill-dir DIR [--memory-limit BYTES] < query.sql

ENGINE is duckdb, polars or datafusion. DIR holds the tables: files NAME.parquet, or folders NAME/ of such files.

The protocol (its other side is benches/tpch/process.rs) is a line of JSON each on standard output: {"ready": VERSION}
once the engine is open and knows the tables; then, when the query has come on standard input, {"seconds", "rows"} for
each of N + 1 runs, or {"error": TEXT}. Memory is measured from outside.

What is fair: every engine has the same number of threads and the same memory limit, keeps what it learns of the files
from one run to the next if it can, runs to the last row, and gives the result in its own columnar form: no Python object
is made of any value.

Only the engine's module is imported, so that no other is in its memory.
"""

import argparse
import json
import os
import sys
import time


def tables(folder):
    """The tables of a folder: name, path, and whether it is a folder of files."""
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if entry.endswith(".parquet"):
            yield entry.removesuffix(".parquet"), path, False
        elif os.path.isdir(path) and any(part.endswith(".parquet") for part in os.listdir(path)):
            yield entry, path, True


def open_duckdb(options):
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {options.threads}")
    connection.execute(f"set temp_directory = '{options.spill_dir}'")
    # It may return rows in any order where the query does not say, which needs less memory; footers are kept.
    connection.execute("set preserve_insertion_order = false")
    connection.execute("set parquet_metadata_cache = true")
    if options.memory_limit:
        connection.execute(f"set memory_limit = '{options.memory_limit}B'")
    for name, path, is_folder in tables(options.path):
        files = os.path.join(path, "*.parquet") if is_folder else path
        connection.execute(f"create view {name} as from read_parquet('{files}')")
    return duckdb.__version__, lambda sql: connection.sql(sql).to_arrow_table().num_rows


def open_polars(options):
    # It reads these when it is imported.
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)
    os.environ["POLARS_TEMP_DIR"] = options.spill_dir
    os.environ["POLARS_OOC_SPILL_DIR"] = options.spill_dir
    if options.memory_limit:
        # Where it begins to spill; it does not keep to it.
        os.environ["POLARS_OOC_MEMORY_BUDGET_MB"] = str(max(options.memory_limit // 1_000_000, 1))
    import polars

    context = polars.SQLContext(eager=False)
    for name, path, is_folder in tables(options.path):
        context.register(name, polars.scan_parquet(os.path.join(path, "*.parquet") if is_folder else path))
    return polars.__version__, lambda sql: context.execute(sql).collect(engine="streaming").height


def open_datafusion(options):
    # Threads of its runtime; partitions are what its plans have in parallel.
    os.environ["TOKIO_WORKER_THREADS"] = str(options.threads)
    import datafusion

    config = datafusion.SessionConfig().with_target_partitions(options.threads)
    runtime = datafusion.RuntimeEnvBuilder().with_disk_manager_specified(options.spill_dir)
    if options.memory_limit:
        runtime = runtime.with_fair_spill_pool(options.memory_limit)
    context = datafusion.SessionContext(config, runtime)
    for name, path, is_folder in tables(options.path):
        context.register_parquet(name, path + "/" if is_folder else path)
    return datafusion.__version__, lambda sql: sum(batch.num_rows for batch in context.sql(sql).collect())


def say(**message):
    print(json.dumps(message), flush=True)


def main():
    engines = {"duckdb": open_duckdb, "polars": open_polars, "datafusion": open_datafusion}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=engines)
    parser.add_argument("--path", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--spill-dir", required=True)
    parser.add_argument("--memory-limit", type=int)
    options = parser.parse_args()
    # Panics of Rust code in the engines derive from BaseException only.
    try:
        version, run = engines[options.engine](options)
        say(ready=version)
        sql = sys.stdin.read()
        for _ in range(options.runs + 1):
            started = time.perf_counter()
            rows = run(sql)
            say(seconds=time.perf_counter() - started, rows=rows)
    except BaseException as error:
        say(error=f"{type(error).__name__}: {error}")
    # Taking an engine down is not measured, and some take their time.
    os._exit(0)


main()
