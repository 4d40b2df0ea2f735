//! Tables an embedder provides: anything that can make Arrow record batches.
//!
//! Owns: [`TableProvider`], the embedder's side, and [`ProvidedTable`], the engine's.
//!
//! Invariants:
//! 1. What a provider makes is charged before a row of it goes on, and rows go on as copies in the engine's memory: what
//!    a query holds of a table counts, whatever made it.
//! 2. A provider's mistake (an error, a panic, a batch unlike its schema) fails the query that reads it and names the
//!    table.
//!
//! Must not know: plans, SQL text, other sources.

mod scan;

use crate::catalog::{self, TableStatistics};
use crate::data::{DataType, Field, PhysicalType, Schema};
use crate::error::{Error, Result};
use crate::exec::SourceBox;
use crate::scan::{ScanProvider, ScanRequest};
use arrow::array::RecordBatchReader;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use scan::ProvidedScan;
use std::sync::Arc;

/// Bytes of a batch where a provider does not say.
const DEFAULT_BATCH_BYTES: usize = 1 << 20;

/// A table that makes its rows as Arrow record batches, for
/// [`Session::register_table`](crate::Session::register_table).
///
/// ```
/// use gristmill::arrow::array::{Int64Array, RecordBatch, RecordBatchIterator, RecordBatchReader};
/// use gristmill::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
/// use gristmill::arrow::error::ArrowError;
/// use std::sync::Arc;
///
/// /// The squares of 0 to 99,999, in four parts.
/// struct Squares;
///
/// impl gristmill::TableProvider for Squares {
///     fn schema(&self) -> SchemaRef {
///         let field = |name| Field::new(name, DataType::Int64, false);
///         Arc::new(Schema::new(vec![field("n"), field("square")]))
///     }
///
///     fn rows(&self) -> Option<u64> {
///         Some(100_000)
///     }
///
///     fn partitions(&self) -> usize {
///         4
///     }
///
///     fn scan(
///         &self,
///         partition: usize,
///         projection: &[usize],
///     ) -> Result<Box<dyn RecordBatchReader + Send>, ArrowError> {
///         let (schema, projection) = (self.schema(), projection.to_vec());
///         let projected = Arc::new(schema.project(&projection)?);
///         let starts = (0..25_000).step_by(1000).map(move |at| at + partition as i64 * 25_000);
///         // Made when it is asked for, so that no more than a batch is in memory.
///         let batches = starts.map(move |start| {
///             let numbers = Int64Array::from_iter_values(start..start + 1000);
///             let squares = Int64Array::from_iter_values((start..start + 1000).map(|n| n * n));
///             RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(squares)])?.project(&projection)
///         });
///         Ok(Box::new(RecordBatchIterator::new(batches, projected)))
///     }
/// }
///
/// # fn main() -> gristmill::Result<()> {
/// let session = gristmill::Engine::builder().threads(2).build()?.session();
/// session.register_table("squares", Arc::new(Squares))?;
/// let rows = session.query("select count(*) from squares where square % 10 = 6")?.collect()?;
/// assert_eq!(rows[0].column(0).as_ref(), &Int64Array::from(vec![20_000]));
/// # Ok(())
/// # }
/// ```
pub trait TableProvider: Send + Sync + 'static {
    /// Its columns. Asked once, when it is registered.
    fn schema(&self) -> SchemaRef;

    /// How many rows it has, if that is known without reading them: for the planner, and for a query's progress. May be
    /// an estimate.
    fn rows(&self) -> Option<u64> {
        None
    }

    /// Into how many parts it falls, at least 1. Parts are read in parallel, one by as many workers at a time as there
    /// are; rows of a table with one part come in its order.
    fn partitions(&self) -> usize {
        1
    }

    /// About how many bytes its largest batch has: so much memory is kept for each worker that reads it. Default: 1 MiB.
    /// Larger batches are read if there is memory; if not, the query fails with an error that says so.
    fn batch_bytes(&self) -> usize {
        DEFAULT_BATCH_BYTES
    }

    /// Begins to read part `partition`: batches with the columns at the places of `projection` in the schema, in that
    /// order. There may be none, if a query only counts rows; batches must say how many then (as
    /// [`RecordBatch::project`](arrow::array::RecordBatch::project) makes them).
    ///
    /// Called, and the reader asked for batches, on the engine's workers while a query runs, perhaps several at a time:
    /// a call that takes long keeps a worker, and a query cannot be cancelled meanwhile. A reader is dropped once it has
    /// ended or its query has.
    ///
    /// # Errors
    /// Whatever keeps it from reading. The query fails with it, and an [`Error`] within an
    /// [`ArrowError::ExternalError`] comes out as it is.
    fn scan(
        &self,
        partition: usize,
        projection: &[usize],
    ) -> Result<Box<dyn RecordBatchReader + Send>, ArrowError>;
}

/// A provider as the engine sees it.
pub(crate) struct ProvidedTable {
    provider: Arc<dyn TableProvider>,
    arrow_schema: SchemaRef,
    schema: Schema,
}

impl ProvidedTable {
    /// A table of `provider`'s rows.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for types the engine has no values for, and for nested columns.
    pub(crate) fn new(provider: Arc<dyn TableProvider>) -> Result<Self> {
        let arrow_schema = provider.schema();
        let fields = arrow_schema.fields().iter().map(|field| {
            let data_type = DataType::from_arrow(field.data_type())?;
            if data_type.physical() == PhysicalType::Nested {
                let message = format!("column '{}' of type {data_type} in a provided table", field.name());
                return Err(Error::unsupported(message, None));
            }
            Ok(Field { name: field.name().clone(), data_type, nullable: field.is_nullable() })
        });
        let schema = fields.collect::<Result<_>>()?;
        Ok(Self { provider, arrow_schema, schema })
    }
}

impl catalog::TableProvider for ProvidedTable {
    fn schema(&self) -> Schema {
        Arc::clone(&self.schema)
    }

    fn statistics(&self) -> TableStatistics {
        TableStatistics { rows: self.provider.rows(), columns: Vec::new() }
    }
}

impl ScanProvider for ProvidedTable {
    fn scan(&self, request: ScanRequest) -> Result<SourceBox> {
        let types = request.columns.iter().map(|(_, at)| self.schema[*at].data_type.clone());
        let types: Vec<DataType> = types.collect();
        let scan = ProvidedScan::new(Arc::clone(&self.provider), &self.arrow_schema, &types, request);
        Ok(SourceBox::new(scan))
    }
}
