//! Scalar functions: a folder per family, a file per function, a line per function in its family's list.

mod conditional;
mod date;
mod date_parts;
mod math;
mod support;
mod text;

use crate::expr::ScalarFunction;
use std::sync::Arc;

/// Makes one function.
type Maker = fn() -> Arc<dyn ScalarFunction>;

/// The families' lists.
const FAMILIES: [(&str, &[Maker]); 4] =
    [("conditional", conditional::LIST), ("date", date::LIST), ("math", math::LIST), ("text", text::LIST)];

/// The scalar function called `name` (any case).
pub(crate) fn find(name: &str) -> Option<Arc<dyn ScalarFunction>> {
    let is_called = |f: &Arc<dyn ScalarFunction>| {
        f.name().eq_ignore_ascii_case(name) || f.aliases().iter().any(|a| a.eq_ignore_ascii_case(name))
    };
    FAMILIES.iter().flat_map(|(_, list)| list.iter()).map(|make| make()).find(is_called)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataType, Scalar, TimeUnit, Value};
    use crate::error::Result;
    use crate::expr::{Expr, call, cast_to, evaluate_constant};
    use std::collections::BTreeSet;

    #[test]
    fn every_file_is_listed_and_named_after_its_function() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/functions/scalar");
        let mut names = BTreeSet::new();
        for (family, list) in FAMILIES {
            let mut listed: BTreeSet<String> = BTreeSet::new();
            for function in list.iter().map(|make| make()) {
                // An operator's file is named by its alias.
                let name = function.name();
                let file = if name.starts_with(char::is_alphabetic) { name } else { function.aliases()[0] };
                listed.insert(file.to_owned());
                for name in std::iter::once(&name).chain(function.aliases()) {
                    assert!(names.insert(name.to_string()), "'{name}' is defined twice");
                }
            }
            let files = std::fs::read_dir(root.join(family)).expect("the family's folder");
            let files: BTreeSet<String> = files
                .map(|f| {
                    f.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned()
                })
                .filter(|stem| stem != "mod")
                .collect();
            assert_eq!(listed, files, "family {family}");
        }
    }

    fn run(name: &str, arguments: Vec<Scalar>) -> Result<Scalar> {
        let function = find(name).expect(name);
        evaluate_constant(&call(function, arguments.into_iter().map(Expr::Literal).collect())?)
    }

    fn text(s: &str) -> Scalar {
        Scalar::utf8(s)
    }

    fn int(v: i128) -> Scalar {
        Scalar::int(DataType::Int32, v)
    }

    fn decimal(precision: u8, scale: u8, v: i128) -> Scalar {
        Scalar::int(DataType::Decimal { precision, scale }, v)
    }

    fn value(text: &str, to: &DataType) -> Scalar {
        evaluate_constant(&cast_to(Expr::Literal(Scalar::utf8(text)), to).expect(text)).expect(text)
    }

    #[test]
    fn text_functions_answer_as_duckdb() {
        for (name, arguments, want) in [
            ("lower", vec![text("ÄB")], "äb"),
            ("upper", vec![text("äb")], "ÄB"),
            ("substring", vec![text("hello"), int(2), int(3)], "ell"),
            ("substring", vec![text("hello"), int(0), int(3)], "he"),
            ("substring", vec![text("hello"), int(-3), int(2)], "ll"),
            ("substr", vec![text("hello"), int(-3)], "llo"),
            ("substring", vec![text("hello"), int(2), int(-1)], "h"),
            ("substring", vec![text("hello"), int(4), int(-2)], "el"),
            ("substring", vec![text("hello"), int(-10), int(7)], "he"),
            ("substring", vec![text("häello"), int(2), int(2)], "äe"),
            ("trim", vec![text("  a ")], "a"),
            ("trim", vec![text("xxaxx"), text("x")], "a"),
            ("ltrim", vec![text("xyab"), text("yx")], "ab"),
            ("rtrim", vec![text("ab  ")], "ab"),
            ("concat", vec![text("a"), Scalar::null(DataType::Int32), int(1)], "a1"),
            ("||", vec![text("a"), int(1)], "a1"),
            ("replace", vec![text("aXbX"), text("X"), text("yy")], "ayybyy"),
            ("replace", vec![text("abc"), text(""), text("x")], "abc"),
            ("left", vec![text("hello"), int(-2)], "hel"),
            ("right", vec![text("hello"), int(2)], "lo"),
            ("reverse", vec![text("aäb")], "bäa"),
        ] {
            assert_eq!(run(name, arguments.clone()).expect(name), text(want), "{name} {arguments:?}");
        }
        assert!(run("||", vec![text("a"), Scalar::null(DataType::Utf8)]).expect("null").is_null());
        assert_eq!(run("length", vec![text("äöü")]).expect("counts").as_int(), Some(3));
        assert_eq!(run("starts_with", vec![text("abc"), text("ab")]).expect("bool"), Scalar::boolean(true));
        assert_eq!(run("strpos", vec![text("häl"), text("l")]).expect("position").as_int(), Some(3));
    }

    #[test]
    fn numbers_answer_as_duckdb() {
        let got = run("round", vec![decimal(3, 2, 155), int(1)]).expect("rounds");
        assert_eq!(got, decimal(3, 1, 16));
        assert_eq!(run("round", vec![decimal(2, 1, 25)]).expect("rounds"), decimal(2, 0, 3));
        assert_eq!(
            run("round", vec![decimal(10, 2, 1_235_555), int(-2)]).expect("rounds"),
            decimal(10, 0, 12_400)
        );
        assert_eq!(run("round", vec![int(-15), int(-1)]).expect("rounds"), int(-20));
        assert_eq!(run("round", vec![Scalar::float(-2.5)]).expect("rounds"), Scalar::float(-3.0));
        assert_eq!(run("ceil", vec![decimal(2, 1, -15)]).expect("rounds"), decimal(2, 0, -1));
        assert_eq!(run("floor", vec![decimal(2, 1, -15)]).expect("rounds"), decimal(2, 0, -2));
        assert_eq!(run("ceil", vec![int(1)]).expect("a double"), Scalar::float(1.0));
        assert_eq!(run("abs", vec![int(-3)]).expect("fits"), int(3));
        assert!(run("abs", vec![Scalar::int(DataType::Int8, -128)]).is_err());
        assert_eq!(run("pow", vec![int(2), int(3)]).expect("a double"), Scalar::float(8.0));
        assert_eq!(run("sqrt", vec![int(4)]).expect("a double"), Scalar::float(2.0));
        assert_eq!(run("mod", vec![int(-7), int(2)]).expect("fits"), int(-1));
        assert!(run("sqrt", vec![]).is_err());
    }

    #[test]
    fn dates_answer_as_duckdb() {
        let moment = value("2021-05-11 10:11:12.5", &DataType::Timestamp(TimeUnit::Microsecond, None));
        let date = value("2021-05-11", &DataType::Date);
        for (part, want) in [
            ("year", 2021),
            ("month", 5),
            ("day", 11),
            ("quarter", 2),
            ("dow", 2),
            ("isodow", 2),
            ("doy", 131),
            ("week", 19),
            ("isoyear", 2021),
            ("decade", 202),
            ("century", 21),
        ] {
            for moment in [&moment, &date] {
                let got = run("date_part", vec![text(part), moment.clone()]).expect(part);
                assert_eq!(got.as_int(), Some(want), "{part}");
            }
        }
        assert_eq!(run("year", vec![date.clone()]).expect("part").as_int(), Some(2021));
        assert_eq!(
            run("date_part", vec![text("millisecond"), moment.clone()]).expect("part").as_int(),
            Some(12_500)
        );
        let epoch = run("date_part", vec![text("epoch"), moment.clone()]).expect("part");
        assert_eq!(epoch.value, Value::Float(1_620_727_872.5));
        let new_year = value("2021-01-01", &DataType::Date);
        assert_eq!(run("week", vec![new_year.clone()]).expect("part").as_int(), Some(53));
        assert_eq!(run("isoyear", vec![new_year]).expect("part").as_int(), Some(2020));
        for (part, want) in [
            ("month", "2021-05-01"),
            ("quarter", "2021-04-01"),
            ("week", "2021-05-10"),
            ("decade", "2020-01-01"),
            ("century", "2000-01-01"),
            ("hour", "2021-05-11 10:00:00"),
        ] {
            let want = value(want, &moment.data_type);
            assert_eq!(run("date_trunc", vec![text(part), moment.clone()]).expect(part), want, "{part}");
        }
        assert!(run("date_trunc", vec![text("bogus"), date]).is_err());
    }

    #[test]
    fn choices_mind_nulls() {
        let null = || Scalar::null(DataType::Int32);
        assert_eq!(run("greatest", vec![int(1), null(), int(3)]).expect("fits"), int(3));
        assert_eq!(run("least", vec![null(), int(1), int(3)]).expect("fits"), int(1));
        assert!(run("greatest", vec![null(), null()]).expect("null").is_null());
        assert_eq!(run("coalesce", vec![null(), int(2), int(3)]).expect("fits"), int(2));
        assert!(run("nullif", vec![int(1), int(1)]).expect("null").is_null());
        assert_eq!(run("nullif", vec![int(1), null()]).expect("fits"), int(1));
    }
}
