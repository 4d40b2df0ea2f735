//! `date_part(part, moment)`, which `extract(part from moment)` also is. The epoch has a fraction, other parts are
//! whole.

use super::super::date_parts::Part;
use super::super::support::{each, flats, strings, text, wrong_arguments};
use super::{Moments, is_moment, moment_type};
use crate::data::{DataType, Value, Vector};
use crate::error::Result;
use crate::expr::{CallTypes, EvalCx, Expr, ScalarFunction};

pub(super) struct DatePart;

impl ScalarFunction for DatePart {
    fn name(&self) -> &'static str {
        "date_part"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["datepart", "extract"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [DataType::Utf8, t] if is_moment(t) => {
                Ok((vec![DataType::Utf8, moment_type(t)], DataType::Int64))
            }
            given => Err(wrong_arguments("date_part(part, date or timestamp)", given)),
        }
    }
    fn refined(&self, arguments: &[Expr], result: DataType) -> DataType {
        match arguments {
            [Expr::Literal(part), _] if matches!(&part.value, Value::Utf8(p) if p.eq_ignore_ascii_case("epoch")) => {
                DataType::Float64
            }
            _ => result,
        }
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let flats = flats(&arguments[1..], cx.account)?;
        let moments = Moments::new(&flats[0], &types.arguments[1])?;
        if *types.result == DataType::Float64 {
            return each(rows, cx, |row| {
                let moment = moments.get(row);
                moment.days as f64 * 86_400.0 + moment.nanos as f64 / 1e9
            });
        }
        if let Vector::Constant { value, .. } = &arguments[0] {
            let name = value.as_bytes().unwrap_or_default();
            let part = Part::named(&String::from_utf8_lossy(name))?;
            return each(rows, cx, |row| part.of(moments.get(row)));
        }
        let names = arguments[0].flatten(cx.account)?;
        let texts = strings(&names)?;
        let mut error = None;
        let is_null = |row: usize| names.is_null(row) || flats[0].is_null(row);
        let result = each(rows, cx, |row| match Part::named(text(texts, row)) {
            Ok(part) => part.of(moments.get(row)),
            Err(_) if is_null(row) => 0,
            Err(e) => {
                error.get_or_insert(e);
                0
            }
        });
        error.map_or(result, Err)
    }
}
