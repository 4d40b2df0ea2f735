//! The 22 queries of TPC-H with the validation parameters, and the answers on generated data, compiled in so that the
//! check works on any machine.
//!
//! Owns: [`QUERIES`]. The files are in `tools/runner/tpch`.

/// A query and its stored answers.
pub(super) struct QueryText {
    /// `q01` to `q22`.
    pub(super) name: &'static str,
    sql: &'static str,
    answers: [&'static str; ANSWERED_SCALES.len()],
}

/// Scale factors with stored answers.
const ANSWERED_SCALES: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// Query 11's fraction at scale factor 1, as it is written in the text.
const Q11_FRACTION: &str = "0.0001000000";

macro_rules! queries {
    ($($name:literal)*) => {
        &[$(QueryText {
            name: $name,
            sql: include_str!(concat!("../../tpch/queries/", $name, ".sql")),
            answers: [
                include_str!(concat!("../../tpch/answers/sf0.01/", $name, ".csv")),
                include_str!(concat!("../../tpch/answers/sf0.1/", $name, ".csv")),
                include_str!(concat!("../../tpch/answers/sf1/", $name, ".csv")),
                include_str!(concat!("../../tpch/answers/sf10/", $name, ".csv")),
            ],
        }),*]
    };
}

/// All queries, in order.
pub(super) static QUERIES: &[QueryText] = queries!(
    "q01" "q02" "q03" "q04" "q05" "q06" "q07" "q08" "q09" "q10" "q11"
    "q12" "q13" "q14" "q15" "q16" "q17" "q18" "q19" "q20" "q21" "q22"
);

impl QueryText {
    /// The text for data of scale factor `scale`: query 11 asks for a share of 0.0001 / SF (TPC-H 2.4.11.3).
    pub(super) fn sql_at(&self, scale: f64) -> String {
        self.sql.replace(Q11_FRACTION, &format!("{:.10}", 0.0001 / scale))
    }

    /// The answer on data of scale factor `scale`, if one is stored.
    pub(super) fn answer_at(&self, scale: f64) -> Option<&'static str> {
        ANSWERED_SCALES.iter().position(|s| *s == scale).map(|i| self.answers[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_follows_the_scale() {
        let holders: Vec<&str> =
            QUERIES.iter().filter(|q| q.sql.contains(Q11_FRACTION)).map(|q| q.name).collect();
        assert_eq!(holders, ["q11"]);
        assert!(QUERIES[10].sql_at(10.0).contains("* 0.0000100000"));
        assert!(QUERIES[10].sql_at(0.01).contains("* 0.0100000000"));
        assert_eq!(QUERIES[10].sql_at(1.0), QUERIES[10].sql);
    }

    #[test]
    fn every_answer_has_a_header() {
        for query in QUERIES {
            assert!(query.answers.iter().all(|a| a.lines().count() > 0), "{}", query.name);
            assert!(query.answer_at(3.0).is_none());
        }
    }
}
