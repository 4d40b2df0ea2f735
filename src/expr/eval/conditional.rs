//! AND, OR and CASE: operands count only in the rows that reach them.

use super::program::Node;
use super::run::{Frame, Run, is_about_values};
use crate::data::{BitmapMut, Scalar, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::blend;
use crate::expr::kernels::boolean::{Connective, true_bits};
use crate::expr::kernels::indices::positions;

impl Run<'_, '_> {
    pub(super) fn connective(&mut self, is_and: bool, node: &Node, frame: &mut Frame<'_>) -> Result<Vector> {
        let account = self.account();
        let mut state = Connective::new(is_and, frame.rows, account)?;
        for &input in &node.inputs {
            if state.is_settled() {
                break;
            }
            let operand = match self.eval_plain(input, frame) {
                Err(error) if is_about_values(&error) => {
                    let open: Vec<u32> = state.open_rows().collect();
                    if open.len() == frame.rows {
                        return Err(error);
                    }
                    self.eval_rows(input, frame, &open)?
                }
                other => other?,
            };
            state.merge(&operand, frame.rows, account)?;
        }
        Ok(state.finish(account)?)
    }

    pub(super) fn case(&mut self, node: &Node, frame: &mut Frame<'_>) -> Result<Vector> {
        let account = self.account();
        let rows = frame.rows;
        let mut open = BitmapMut::ones(account, rows)?.freeze();
        let mut taken = Vec::new();
        let mut result = None;
        let branches = node.inputs.chunks_exact(2);
        let otherwise = branches.remainder().first().copied();
        for branch in branches {
            let condition = self.eval_where(branch[0], frame, open.words(), open.count_ones())?;
            let mask = true_bits(&condition, rows, account)?.and(&open, account)?;
            let count = mask.count_ones();
            if count == 0 {
                continue;
            }
            let value = self.eval_where(branch[1], frame, mask.words(), count)?;
            if count == rows {
                return Ok(value);
            }
            open = open.zip(&mask, account, |open, mask| open & !mask)?;
            if open.count_ones() == 0 {
                result = Some(value);
                break;
            }
            taken.push((mask, value));
        }
        let mut result = match (result, otherwise) {
            (Some(value), _) => value,
            (None, Some(otherwise)) => self.eval_where(otherwise, frame, open.words(), open.count_ones())?,
            (None, None) => Vector::Constant { value: Scalar::null(node.data_type.clone()), len: rows },
        };
        for (mask, value) in taken.iter().rev() {
            result = blend(mask, value, &result, &node.data_type, account)?;
        }
        Ok(result)
    }

    /// A node over all rows, or, if that fails, over the `count` rows whose bits are set.
    fn eval_where(&mut self, id: usize, frame: &mut Frame<'_>, mask: &[u64], count: usize) -> Result<Vector> {
        match self.eval_plain(id, frame) {
            Err(error) if is_about_values(&error) && count < frame.rows => {
                let rows = positions(mask, self.account())?;
                self.eval_rows(id, frame, &rows)
            }
            other => other,
        }
    }
}
