//! Joins of every kind, at random, over small tables with nulls and duplicates: the same rows in any order of joins.

mod support;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use gristmill::{Engine, Session, TestKnobs};
use std::fmt::Write;
use std::sync::Arc;
use support::rows;

/// Tables `t0` and so on.
const TABLES: usize = 4;
/// Orders each query is joined in, beside the cheapest.
const ORDERS: u64 = 4;
const QUERIES: u64 = 300;

/// Numbers that follow from a seed (Steele, Lea and Flood: SplitMix).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Rows `(k, v)` with values 0 to 3, one in four null.
fn table(random: &mut Random, rows: u64) -> RecordBatch {
    let mut column = || -> Int32Array {
        (0..rows).map(|_| (random.below(4) > 0).then(|| random.below(4) as i32)).collect()
    };
    let columns = [column(), column()];
    let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int32, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    RecordBatch::try_new(schema, columns.map(|c| Arc::new(c) as _).to_vec()).expect("columns of a length")
}

fn session(engine: &Engine) -> Session {
    let session = engine.session();
    let mut random = Random(7);
    for at in 0..TABLES {
        let batch = table(&mut random, [6, 3, 8, 1][at]);
        session.register_batches(&format!("t{at}"), vec![batch]).expect("a table");
    }
    session
}

/// A query in the making.
struct Generator {
    random: Random,
    aliases: usize,
}

impl Generator {
    fn alias(&mut self) -> (String, String) {
        let (table, alias) = (self.random.below(TABLES as u64), format!("a{}", self.aliases));
        self.aliases += 1;
        (format!("t{table} as {alias}"), alias)
    }

    fn column(&mut self, of: &[String]) -> String {
        let alias = &of[self.random.below(of.len() as u64) as usize];
        format!("{alias}.{}", self.random.one_of(&["k", "v"]))
    }

    fn condition(&mut self, left: &[String], right: &[String]) -> String {
        let (l, r) = (self.column(left), self.column(right));
        match self.random.below(8) {
            0 => format!("{l} is not distinct from {r}"),
            1 => format!("coalesce({l}, 1) = {r}"),
            2 => format!("{l} < {r}"),
            3 => format!("{l} = {r} and {} <> {}", self.column(left), self.column(right)),
            4 => format!("{l} = {r} and {} > 0", self.column(right)),
            5 => format!("{l} = {r} and {} > 0", self.column(left)),
            _ => format!("{l} = {r}"),
        }
    }

    /// A FROM item of `relations` tables, and their aliases.
    fn joined(&mut self, relations: u64) -> (String, Vec<String>) {
        if relations == 1 {
            let (item, alias) = self.alias();
            return (item, vec![alias]);
        }
        let of_left = 1 + self.random.below(relations - 1);
        let (left, mut aliases) = self.joined(of_left);
        let (right, others) = self.joined(relations - of_left);
        let kind = self.random.one_of(&["join", "join", "left join", "left join", "right join", "full join"]);
        let on = match kind {
            // Full joins need keys.
            "full join" => format!("{} = {}", self.column(&aliases), self.column(&others)),
            _ => self.condition(&aliases, &others),
        };
        aliases.extend(others);
        (format!("({left} {kind} {right} on {on})"), aliases)
    }

    /// What is asked of a row, with or without a subquery.
    fn question(&mut self, of: &[String]) -> String {
        let (item, alias) = self.alias();
        let inner = [alias];
        let condition = self.condition(of, &inner);
        let (outer, own) = (self.column(of), self.column(&inner));
        match self.random.below(8) {
            0 | 1 => format!("exists (select 1 from {item} where {condition})"),
            2 | 3 => format!("not exists (select 1 from {item} where {condition})"),
            4 => format!("{outer} in (select {own} from {item})"),
            5 => format!("{outer} not in (select {own} from {item} where {own} is not null)"),
            6 => format!("{outer} not in (select {own} from {item})"),
            _ => format!("{outer} >= (select max({own}) from {item} where {condition})"),
        }
    }

    fn query(&mut self) -> String {
        let relations = 1 + self.random.below(4);
        let (from, aliases) = self.joined(relations);
        let mut columns: Vec<String> = aliases.iter().map(|a| format!("{a}.k, {a}.v")).collect();
        if self.random.below(4) == 0 {
            columns.push(format!("{} as answer", self.question(&aliases)));
        }
        let mut conditions = vec![];
        for _ in 0..self.random.below(3) {
            conditions.push(self.question(&aliases));
        }
        let column = self.column(&aliases);
        match self.random.below(5) {
            0 => conditions.push(format!("({column} is null or {column} > 1)")),
            1 => conditions.push(format!("({} or {column} = 2)", self.question(&aliases))),
            _ => {}
        }
        let mut sql = format!("select {} from {from}", columns.join(", "));
        if !conditions.is_empty() {
            write!(sql, " where {}", conditions.join(" and ")).expect("a string");
        }
        sql
    }
}

fn sorted_rows(session: &Session, sql: &str, how: &str) -> Vec<Vec<String>> {
    let batches = session.query(sql).and_then(gristmill::Query::collect);
    let mut rows = rows::texts(&batches.unwrap_or_else(|e| panic!("{how}: {sql}\n{e}")));
    rows.sort();
    rows
}

#[test]
fn joins_of_every_kind_give_the_same_rows_in_any_order() {
    let engine = |rules: &[&str], seed: Option<u64>| {
        let knobs = TestKnobs { join_order_seed: seed, ..TestKnobs::default() };
        let builder = Engine::builder().threads(1).memory_limit(64 << 20).testing(knobs);
        builder.disabled_optimizers(rules.iter().copied()).build().expect("starts")
    };
    let written = engine(&["join_order", "outer_joins", "mark_joins"], None);
    let others: Vec<(String, Engine)> = [None]
        .into_iter()
        .chain((1..=ORDERS).map(Some))
        .flat_map(|seed| {
            let rules: [&[&str]; 2] = [&[], &["outer_joins", "filter_pushdown"]];
            rules.map(|rules| (format!("order {seed:?} without {rules:?}"), engine(rules, seed)))
        })
        .collect();
    let expecting = session(&written);
    let others: Vec<(&str, Session)> = others.iter().map(|(how, e)| (how.as_str(), session(e))).collect();
    let mut any_rows = 0;
    for seed in 0..QUERIES {
        let sql = Generator { random: Random(seed), aliases: 0 }.query();
        let expected = sorted_rows(&expecting, &sql, "as written");
        any_rows += usize::from(!expected.is_empty());
        for (how, session) in &others {
            assert_eq!(sorted_rows(session, &sql, how), expected, "{how}:\n{sql}");
        }
    }
    assert!(any_rows as u64 > QUERIES / 3, "{any_rows} of {QUERIES} queries have rows");
}
