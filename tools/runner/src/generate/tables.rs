//! The eight TPC-H tables: names, sizes, generators.
//!
//! Owns: [`Table`]. A table is generated in independent chunks; a chunk becomes a row group.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

/// Row groups a Parquet file may have, by the signed 16-bit ordinal in its footer.
const MAX_ROW_GROUPS: u64 = 32_767;

/// Lines per order, on average.
const LINES_PER_ORDER: i64 = 4;

/// A TPC-H table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the tables of the TPC-H specification")]
pub enum Table {
    Nation,
    Region,
    Part,
    Supplier,
    Partsupp,
    Customer,
    Orders,
    Lineitem,
}

/// The rows of one chunk.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

impl Table {
    /// Name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nation => "nation",
            Self::Region => "region",
            Self::Part => "part",
            Self::Supplier => "supplier",
            Self::Partsupp => "partsupp",
            Self::Customer => "customer",
            Self::Orders => "orders",
            Self::Lineitem => "lineitem",
        }
    }

    /// Its file in `folder` when it is one file.
    pub fn file_in(self, folder: &Path) -> PathBuf {
        folder.join(self.name()).with_extension("parquet")
    }

    /// Whether it can be generated in chunks; the fixed tables cannot.
    pub(super) fn is_divisible(self) -> bool {
        !matches!(self, Self::Nation | Self::Region)
    }

    /// Row groups of about `row_group_bytes` at scale factor `scale`.
    pub(super) fn row_groups(self, scale: f64, row_group_bytes: u64) -> usize {
        // Encoded bytes a row takes, as tpchgen-cli estimates them, so that files have the layout of its files.
        let (rows, row_bytes) = match self {
            Self::Nation | Self::Region => return 1,
            Self::Part => (PartGenerator::calculate_row_count(scale, 1, 1), 70),
            Self::Supplier => (SupplierGenerator::calculate_row_count(scale, 1, 1), 164),
            Self::Partsupp => (PartSuppGenerator::calculate_row_count(scale, 1, 1), 564),
            Self::Customer => (CustomerGenerator::calculate_row_count(scale, 1, 1), 168),
            Self::Orders => (OrderGenerator::calculate_row_count(scale, 1, 1), 75),
            Self::Lineitem => (LINES_PER_ORDER * OrderGenerator::calculate_row_count(scale, 1, 1), 64),
        };
        let groups = (rows.unsigned_abs() * row_bytes / row_group_bytes + 1).min(MAX_ROW_GROUPS);
        groups as usize
    }

    /// Its columns.
    pub(super) fn schema(self) -> SchemaRef {
        match self {
            Self::Nation => NationArrow::schema_ref(),
            Self::Region => RegionArrow::schema_ref(),
            Self::Part => PartArrow::schema_ref(),
            Self::Supplier => SupplierArrow::schema_ref(),
            Self::Partsupp => PartSuppArrow::schema_ref(),
            Self::Customer => CustomerArrow::schema_ref(),
            Self::Orders => OrderArrow::schema_ref(),
            Self::Lineitem => LineItemArrow::schema_ref(),
        }
    }

    /// Chunk `chunk` (from 1) of `chunks`.
    pub(super) fn generate(self, scale: f64, chunk: i32, chunks: i32) -> Batches {
        match self {
            Self::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, chunk, chunks))),
            Self::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, chunk, chunks))),
            Self::Part => Box::new(PartArrow::new(PartGenerator::new(scale, chunk, chunks))),
            Self::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, chunk, chunks))),
            Self::Partsupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, chunk, chunks))),
            Self::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, chunk, chunks))),
            Self::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale, chunk, chunks))),
            Self::Lineitem => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, chunk, chunks))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_tpchgen_cli() {
        let default = 7 << 20;
        assert_eq!(Table::Nation.row_groups(10.0, default), 1);
        assert_eq!(Table::Lineitem.row_groups(1.0, default), 53);
        assert_eq!(Table::Lineitem.row_groups(10.0, default), 524);
        assert_eq!(Table::Orders.row_groups(1.0, default), 16);
        assert_eq!(Table::Lineitem.row_groups(10_000.0, default), MAX_ROW_GROUPS as usize);
    }
}
