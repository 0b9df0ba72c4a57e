//! Pieces of a result as bodies: Drill's vectors, or Arrow's where the client has asked for them.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use protos::shared::RecordBatchDef;
use record_batch::{ArrowEncoder, EncodedBatch, Encoder};
use rpc_bus::BusRuntime;

use crate::{error::UserError, shape::Piece};

/// Pieces below this are worked on where they are: handing them to the pool takes longer.
const INLINE_BYTES_MAX: usize = 32 * 1024;
/// Pieces that are worked on, or wait for the window, at once: the next one while the last one is
/// written.
const PIECES_AHEAD: usize = 2;

/// One batch, ready to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) rows: usize,
    /// `None` with an Arrow body.
    pub(crate) def: Option<RecordBatchDef>,
    pub(crate) dbody: Vec<Bytes>,
}

impl Outgoing {
    pub(crate) fn body_bytes(&self) -> usize {
        self.dbody.iter().map(Bytes::len).sum()
    }

    fn of_drill(batch: EncodedBatch) -> Self {
        Self {
            rows: usize::try_from(batch.def.record_count()).unwrap_or_default(),
            def: Some(batch.def),
            dbody: batch.dbody,
        }
    }
}

/// The bodies of one result.
#[derive(Debug)]
pub(crate) enum Bodies {
    Drill(Arc<Encoder>),
    Arrow(SchemaRef),
}

impl Bodies {
    pub(crate) fn new(schema: SchemaRef, has_arrow: bool) -> Result<Self, UserError> {
        if has_arrow {
            return Ok(Self::Arrow(schema));
        }
        Ok(Self::Drill(Arc::new(Encoder::try_new(&schema)?)))
    }

    /// What tells the columns of a result without rows.
    pub(crate) fn schema_only(&self) -> Result<Outgoing, UserError> {
        let (def, dbody) = match self {
            Self::Drill(encoder) => (Some(encoder.schema_only()), Vec::new()),
            Self::Arrow(schema) => (None, ArrowEncoder::schema_only(schema)?),
        };
        Ok(Outgoing {
            rows: 0,
            def,
            dbody,
        })
    }

    /// The bodies of `pieces`, in their order.
    pub(crate) fn of(
        &self,
        pieces: BoxStream<'static, Result<Piece, UserError>>,
        runtime: BusRuntime,
    ) -> BoxStream<'static, Result<Outgoing, UserError>> {
        match self {
            Self::Drill(encoder) => of_drill(pieces, runtime, Arc::clone(encoder)),
            Self::Arrow(schema) => of_arrow(pieces, runtime, Arc::clone(schema)),
        }
    }
}

fn of_drill(
    pieces: BoxStream<'static, Result<Piece, UserError>>,
    runtime: BusRuntime,
    encoder: Arc<Encoder>,
) -> BoxStream<'static, Result<Outgoing, UserError>> {
    let batches = pieces.map(move |piece| {
        let encoder = Arc::clone(&encoder);
        on_pool(piece, runtime.clone(), move |piece| {
            let batch = encoder.encode(&piece.into_batch()?)?;
            Ok(Outgoing::of_drill(batch))
        })
    });
    batches.buffered(PIECES_AHEAD).boxed()
}

/// Gathering may copy, so it is done on the pool; encoding only references, and knows what came before.
fn of_arrow(
    pieces: BoxStream<'static, Result<Piece, UserError>>,
    runtime: BusRuntime,
    schema: SchemaRef,
) -> BoxStream<'static, Result<Outgoing, UserError>> {
    let batches = pieces
        .map(move |piece| on_pool(piece, runtime.clone(), |piece| Ok(piece.into_batch()?)))
        .buffered(PIECES_AHEAD);
    let mut encoder = None;
    let bodies = batches.map(move |batch| encode(&mut encoder, &schema, &batch?));
    bodies.boxed()
}

fn encode(
    encoder: &mut Option<ArrowEncoder>,
    schema: &SchemaRef,
    batch: &RecordBatch,
) -> Result<Outgoing, UserError> {
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => encoder.insert(ArrowEncoder::try_new(schema)?),
    };
    Ok(Outgoing {
        rows: batch.num_rows(),
        def: None,
        dbody: encoder.encode(batch)?,
    })
}

async fn on_pool<T: Send + 'static>(
    piece: Result<Piece, UserError>,
    runtime: BusRuntime,
    work: impl FnOnce(Piece) -> Result<T, UserError> + Send + 'static,
) -> Result<T, UserError> {
    let piece = piece?;
    match piece.bytes() {
        ..INLINE_BYTES_MAX => work(piece),
        _ => runtime.compute(move || work(piece)).await?,
    }
}
