#!/usr/bin/env python3
"""Fills the expected rows of .slt files from DuckDB, the oracle.

    cargo test --test slt -- --list          # writes the tables
    pip install duckdb
    python tests/slt/generate.py target/tmp/tables-1 [FILE.slt ...]

Queries are kept as written; their column types and the rows after `----` are replaced. `statement error` records are
checked to fail in DuckDB too, unless a comment line right above them starts with `# gristmill:` and says why we differ;
such a comment above a query keeps its rows as they are.
"""

import datetime
import decimal
import math
import pathlib
import sys

import duckdb


def float_text(value):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.11e}".split("e")
    exponent = int(exponent)
    sign = "-" if value < 0 else ""
    digits = mantissa.lstrip("-").replace(".", "").rstrip("0")
    if not -5 <= exponent < 15:
        return sign + digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + f"e{exponent}"
    if exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return sign + digits[: exponent + 1] + "." + digits[exponent + 1 :]


def text(value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return value.hex() or "(empty)"
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (int, str)):
        return str(value) or "(empty)"
    raise TypeError(f"no text for {value!r} of {type(value)}")


def column_type(name):
    name = str(name)
    if name.startswith("DECIMAL"):
        return "I" if name.endswith(",0)") else "R"
    if "INT" in name and name != "INTERVAL":
        return "I"
    return {"FLOAT": "R", "DOUBLE": "R", "VARCHAR": "T"}.get(name, "?")


def generate(path, connection):
    lines = path.read_text().splitlines()
    out, i, problems = [], 0, []
    while i < len(lines):
        line = lines[i]
        words = line.split()
        if not words or words[0] not in ("query", "statement"):
            out.append(line)
            i += 1
            continue
        ours = bool(out) and out[-1].startswith("# gristmill:")
        start = i
        i += 1
        sql = []
        while i < len(lines) and lines[i].strip() and lines[i] != "----":
            sql.append(lines[i])
            i += 1
        if i < len(lines) and lines[i] == "----":
            i += 1
        while i < len(lines) and lines[i].strip():
            i += 1
        if ours or words[0] == "statement" or words[1] == "error":
            out.extend(lines[start:i])
            if not ours:
                try:
                    connection.execute("\n".join(sql)).fetchall()
                    failed = False
                except duckdb.Error:
                    failed = True
                if failed != ("error" in words[1:]):
                    problems.append(f"{path.name}:{start + 1}: DuckDB {'fails' if failed else 'does not fail'}")
            continue
        try:
            cursor = connection.execute("\n".join(sql))
            rows = [[text(value) for value in row] for row in cursor.fetchall()]
        except (duckdb.Error, TypeError) as error:
            problems.append(f"{path.name}:{start + 1}: {error}")
            out.extend(lines[start:i])
            continue
        types = "".join(column_type(column[1]) for column in cursor.description)
        mode = words[2:] if words[1] not in ("rowsort", "nosort") else words[1:]
        if "rowsort" in mode:
            rows.sort()
        out.append(" ".join(["query", types, *mode]))
        out.extend(sql)
        out.append("----")
        out.extend(" ".join(row) for row in rows)
    path.write_text("\n".join(out).rstrip("\n") + "\n")
    return problems


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    connection = duckdb.connect()
    for table in sorted(pathlib.Path(sys.argv[1]).glob("*.parquet")):
        connection.execute(f"create view {table.stem} as select * from '{table}'")
    files = [pathlib.Path(f) for f in sys.argv[2:]] or sorted(pathlib.Path(__file__).parent.glob("*.slt"))
    problems = [problem for file in files for problem in generate(file, connection)]
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
