//! `date_trunc(part, moment)`: the beginning of the part the moment lies in, as a timestamp.

use super::super::date_parts::Part;
use super::super::support::{each, flats, strings, text, wrong_arguments};
use super::{Moments, is_moment};
use crate::data::{DataType, TimeUnit, Vector};
use crate::error::{Error, Result};
use crate::expr::{CallTypes, EvalCx, ScalarFunction};

pub(super) struct DateTrunc;

impl ScalarFunction for DateTrunc {
    fn name(&self) -> &'static str {
        "date_trunc"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["datetrunc"]
    }
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        match arguments {
            [DataType::Utf8, t @ DataType::Timestamp(..)] => Ok((vec![DataType::Utf8, t.clone()], t.clone())),
            [DataType::Utf8, t] if is_moment(t) => {
                Ok((vec![DataType::Utf8, DataType::Date], DataType::Timestamp(TimeUnit::Microsecond, None)))
            }
            given => Err(wrong_arguments("date_trunc(part, date or timestamp)", given)),
        }
    }
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector> {
        let flats = flats(arguments, cx.account)?;
        let moments = Moments::new(&flats[1], &types.arguments[1])?;
        let names = strings(&flats[0])?;
        let DataType::Timestamp(unit, _) = types.result else {
            return Err(Error::internal("the signature answers a timestamp"));
        };
        let per_second = unit.per_second();
        let mut last: Option<(&str, Part)> = None;
        let mut error = None;
        let result = each(rows, cx, |row| {
            let name = text(names, row);
            let part = match last {
                Some((known, part)) if known == name => part,
                _ => match Part::named(name) {
                    Ok(part) => part,
                    Err(_) if flats[0].is_null(row) || flats[1].is_null(row) => return 0,
                    Err(e) => {
                        error.get_or_insert(e);
                        return 0;
                    }
                },
            };
            last = Some((name, part));
            let cut = part.truncate(moments.get(row));
            let whole = cut.days.wrapping_mul(86_400 * per_second);
            whole.wrapping_add(cut.nanos / (1_000_000_000 / per_second))
        });
        error.map_or(result, Err)
    }
}
